; SPDX-License-Identifier: GPL-2.0-only
;
; player.asm - a guest that does a saved list of operations, step by step.
;
; It lies at the same address with paging off, under 2-level and under PAE paging,
; where its linear addresses are its physical ones. In long mode it runs high up,
; below one entry of the list's own root, as no lower entry is its own; between the
; modes it goes by a root of its own ("home"). What it needs in a root of the list
; the list itself stores there before it loads the root (`player.py`).
;
; Behind it lie the steps (struc STEP), and their texts. All vCPUs read them; each
; does those that are its own when their turn has come.

%define ORG     0x90000000
%define LONG4   0x0000400010000000      ; the image in long mode: below entry 128 of the root
%define LONG5   0x0080000010000000
org ORG

DEVICE          equ 0xFF000000          ; memory that is no memory: what reads it is emulated
DIRECT          equ 0x800000            ; from the image: all memory of the list
DEVICE_AT       equ 0x200000            ; from the image: the device, and again for ring 3
DEBUG_PORT      equ 0xE9
HOST_PORT       equ 0xEC
EXIT_PORT       equ 0xF4
EXIT_PASS       equ 0x10
EXIT_FAIL       equ 0x11
MSR_EFER        equ 0xC0000080
MSR_HSAVE       equ 0xC0010117
CR0_PG          equ 1 << 31
CR4_LA57        equ 1 << 12
CR4_PCIDE       equ 1 << 17
EFER_LME        equ 1 << 8
EFER_LMA        equ 1 << 10
EFER_SVME       equ 1 << 12
RFLAGS_AC       equ 1 << 18
PTE             equ 0x63                ; present, writable, accessed, dirty
PTE_USER        equ 0x67
PTE_TABLE       equ 0x27

SEL_CODE64      equ 0x08
SEL_DATA        equ 0x10
SEL_UCODE32     equ 0x18 + 3
SEL_UDATA       equ 0x20 + 3
SEL_UCODE64     equ 0x28 + 3
SEL_CODE32      equ 0x30
SEL_TSS         equ 0x38
VECTORS         equ 49
BACK           equ 48                  ; INT by which ring 3 comes back
NONE            equ -1

; What a step does.
DO_END             equ 0
DO_HOST            equ 1
DO_ACCESS          equ 2
DO_FETCH           equ 3
DO_EMULATED        equ 4
DO_INVLPG          equ 5
DO_CR0             equ 6
DO_CR3             equ 7
DO_CR4             equ 8
DO_EFER            equ 9
DO_MODE            equ 10
DO_VMRUN           equ 11
DO_VMEXIT          equ 12

; Its flags.
F_WRITE         equ 1
F_USER          equ 2
F_AC            equ 4
F_VALUE         equ 8                   ; what is read is looked at
F_ANY           equ 16                  ; whatever comes of it is right

struc STEP
  .op:          resb 1
  .vcpu:        resb 1
  .size:        resb 1
  .flags:       resb 1
  .number:      resd 1                  ; of the operation; of the host's step
  .address:     resq 1                  ; of MODE: CR0
  .value:       resq 2                  ; of MODE: CR3, CR4
  .want:        resq 1                  ; error code, vector; NONE twice
  .device:      resq 1                  ; of MODE: EFER
  .device_used: resq 1
  .text:        resd 1                  ; from the image
                resd 1
endstruc

struc SELF                              ; what a vCPU has for itself; xbp leads there
  .step:        resq 1
  .resume:      resq 1                  ; where an exception that is expected leads; 0: none is
  .sp:          resq 1
  .error:       resq 1
  .vector:      resq 1
  .value:       resq 1
  .number:      resd 1
                resd 1
  .pseudo:      resb 16                 ; for LGDT and LIDT
  .tss:         resb 112
  .gdt:         resb 9 * 8
  .idt:         resb VECTORS * 16
endstruc
SELF_SIZE       equ 16384
TRAP_STACK      equ 8192                ; of what comes from ring 3
STACK           equ TRAP_STACK - 2048
VMCB            equ 8192
HSAVE           equ 12288
CPUS            equ 2

; The control block of an L2: intercepts, ASID, what is flushed; its state.
VC_MISC2        equ 0x010
VC_ASID         equ 0x058
VC_TLB          equ 0x05C
VS_ES           equ 0x400               ; selector, attributes, limit, base
VS_CS           equ 0x410
VS_SS           equ 0x420
VS_DS           equ 0x430
VS_TR           equ 0x490
VS_EFER         equ 0x4D0
VS_CR4          equ 0x548
VS_CR3          equ 0x550
VS_CR0          equ 0x558
VS_DR7          equ 0x560
VS_DR6          equ 0x568
VS_FLAGS        equ 0x570
VS_IP           equ 0x578
VS_SP           equ 0x5D8
VS_AX           equ 0x5F8
VMRUN_VMMCALL   equ 3                   ; bits of VC_MISC2
TO_LONG         equ LONG4 - ORG & 0xFFFFFFFF    ; the lower halves of both bases are the same

%include "player_macros.inc"

WIDTH 32
image:
    mov     eax, 1
    cpuid
    shr     ebx, 24
    imul    ebp, ebx, SELF_SIZE
    add     ebp, cpus
    mov     [ebp + SELF.number], ebx
    lea     esp, [ebp + STACK]
    mov     eax, 0x31                   ; as a list begins
    mov     cr0, eax
    mov     eax, 0x1000
    mov     cr3, eax
    call    setup_32
    jmp     next_32

default rel
WIDTH 32
%include "player.inc"
WIDTH 64
%include "player.inc"

; Out of long mode: on the home root, in a segment of 32 bits, at the image's own address.
WIDTH 32
leave_long:
    mov     ax, SEL_DATA                ; a trap out of ring 3 leaves none
    mov     ss, ax
    mov     eax, cr0
    and     eax, ~CR0_PG
    mov     cr0, eax
; Paging is off, or is turned off here: another mode from here on.
change_mode:
    mov     esi, [ebp + SELF.step]
    mov     eax, [esi + STEP.address]
    and     eax, ~CR0_PG
    mov     cr0, eax
    call    setup_32
    mov     esi, [ebp + SELF.step]
    GUARD   .end
    mov     eax, [esi + STEP.value + 8]
    mov     cr4, eax
    mov     eax, [esi + STEP.device]
    xor     edx, edx
    mov     ecx, MSR_EFER
    wrmsr
    mov     eax, [esi + STEP.address]
    test    eax, CR0_PG
    jz      .short
    test    dword [esi + STEP.device], EFER_LME
    jnz     .long
.short:
    mov     edx, [esi + STEP.value]
    mov     cr3, edx
    mov     cr0, eax
.end:
    mov     dword [ebp + SELF.resume], 0
    jmp     checked_32
.long:
    mov     edx, home5
    test    dword [esi + STEP.value + 8], CR4_LA57
    jnz     .root
    mov     edx, home4
.root:
    mov     cr3, edx
    mov     cr0, eax
    jmp     SEL_CODE64:enter_long

; In long mode, still at the image's own address.
WIDTH 64
enter_long:
    mov     ebp, ebp
    mov     ecx, [rbp + SELF.step]
    mov     rdx, LONG4 - ORG
    test    dword [rcx + STEP.value + 8], CR4_LA57
    jz      .base
    mov     rdx, LONG5 - ORG
.base:
    add     rbp, rdx
    lea     rsp, [rbp + STACK]
    add     rcx, rdx
    mov     [rbp + SELF.step], rcx
    lea     rax, [.high]
    add     rax, rdx
    jmp     rax
.high:
    call    setup_64
    mov     rcx, [rbp + SELF.step]
    mov     rax, [rcx + STEP.value]
    mov     cr3, rax
    mov     qword [rbp + SELF.resume], 0
    jmp     checked_64

; --- what is looked at

    align 8
gdt:
    dq 0
    dq 0x00AF9B000000FFFF       ; 08 kernel code, 64-bit
    dq 0x00CF93000000FFFF       ; 10 kernel data
    dq 0x00CFFB000000FFFF       ; 18 user code, 32-bit
    dq 0x00CFF3000000FFFF       ; 20 user data
    dq 0x00AFFB000000FFFF       ; 28 user code, 64-bit
    dq 0x00CF9B000000FFFF       ; 30 kernel code, 32-bit
    dq 0x0000890000000067       ; 38 TSS; its base is filled in
    dq 0
turn:       dd 0
passed:     dd 0
failed:     dd 0
words:
.fail:      db "FAIL operation ", 0
.got:       db ": got (vector, error code, value) ", 0
.want:      db ", want ", 0
.exception: db "FAIL an exception in the player itself: (vector, error code, address) ", 0
.done:      db "DONE ", 0
.passed:    db " passed, ", 0
.failed:    db " failed", 10, 0

; Ring 3 has one page.
    align 4096, db 0xCC
user_page:
WIDTH 32
user_access_32:
    mov     xax, xbx
    ACCESS_BODY
    int     BACK
user_emulated_32:
    EMULATED_BODY
    int     BACK
WIDTH 64
user_access_64:
    mov     xax, xbx
    ACCESS_BODY
    int     BACK
user_emulated_64:
    EMULATED_BODY
    int     BACK
    align 4096, db 0xCC
user_page_end:

; Tables. What a root of the list leads to: `pdpt` below entry 128 of four levels,
; `pml4` of five, `directory` below PDPTE 2, `table_32` and the two behind it from
; entry 240h of a 32-bit directory.
%macro PAGES 3                          ; bytes of an entry, first page, flags
  %assign page %2
  %rep 4096 / %1
    %if %1 == 8
    dq page << 12 | %3
    %else
    dd page << 12 | %3
    %endif
    %assign page page + 1
  %endrep
%endmacro

PLACE       equ ORG >> 21 & 511         ; the image's own place below its root's entry
directory:  times PLACE dq 0
            dq table + PTE_TABLE, device_table + PTE_TABLE, 0, 0
            dq direct + PTE_TABLE, direct + 0x1000 + PTE_TABLE, direct + 0x2000 + PTE_TABLE, direct + 0x3000 + PTE_TABLE
            times 504 - PLACE dq 0
table:
%assign page ORG >> 12
%rep 512
            dq (page << 12) | (page == ((user_page - image + ORG) >> 12)) * 4 | PTE
  %assign page page + 1
%endrep
device_table: dq DEVICE | PTE, DEVICE | PTE_USER
            times 510 dq 0
direct:
            PAGES 8, 0, PTE
            PAGES 8, 512, PTE
            PAGES 8, 1024, PTE
            PAGES 8, 1536, PTE
pdpt:       dq directory + PTE_TABLE
            times 511 dq 0
pml4:       dq pdpt + PTE_TABLE
            times 511 dq 0
home5:      dq home4 + PTE_TABLE
            times 127 dq 0
            dq pml4 + PTE_TABLE
            times 383 dq 0
home4:      dq home_low + PTE_TABLE
            times 127 dq 0
            dq pdpt + PTE_TABLE
            times 383 dq 0
home_low:   dq 0, 0, directory + PTE_TABLE     ; ORG lies in the third GiB
            times 509 dq 0
table_32:
%assign page ORG >> 12
%rep 512
            dd (page << 12) | (page == ((user_page - image + ORG) >> 12)) * 4 | PTE
  %assign page page + 1
%endrep
            dd DEVICE | PTE, DEVICE | PTE_USER
            times 510 dd 0
            PAGES 4, 0, PTE
            PAGES 4, 1024, PTE

cpus:       times CPUS * SELF_SIZE db 0
; Where Python finds what it needs; the steps lie behind, on a page of their own.
            times 4096 - 20 db 0
addresses:  dd pdpt, pml4, directory, table_32, user_page
steps:
