; SPDX-License-Identifier: GPL-2.0-only
;
; nonpaging - CR0.PG=0: every address is physical.
;
; The shadow of such a guest maps memory one to one by a direct root.  There are
; no guest tables to follow, but all the rest: demand filling, memory that is
; not there, code that rewrites itself, control bits that mean nothing now, and
; the way into paging and out of it.

%define LEVELS 0
%include "width.inc"
%include "multiboot.inc"
%include "serial.inc"
%include "check.inc"
%include "trap.inc"

RAM_BYTES       equ 32 << 20
FREE_START      equ 2 << 20     ; free memory: all above the image
STRIDE          equ 20 << 10    ; not a power of two: visits odd pages too
CODE_PLACES     equ 64
CODE_STEP       equ (RAM_BYTES - FREE_START) / CODE_PLACES

CR0_PE          equ 1 << 0
CR0_WP          equ 1 << 16
CR0_PG          equ 1 << 31
CR4_PSE         equ 1 << 4
CR4_PAE         equ 1 << 5
CR4_PGE         equ 1 << 7

USER_TEXT       equ user_text   ; not mapped anywhere else
USER_STACK_TOP  equ user_stack_top

[section .bss]
                alignb 16
user_stack:     resb 4096
user_stack_top:
__SECT__

start32:
    FLAT_SEGMENTS
    mov     esp, boot_stack_top
    call    trap_setup
    PRINT   "nonpaging: a tour of a CPU with paging off", 10
    call    group_entry_state
    call    group_memory
    call    group_blocks
    call    group_code
    call    group_self_modifying
    call    group_edges
    call    group_beyond
    call    group_no_tables
    call    group_exceptions
    call    group_ring3
    call    group_paging_moment
    call    group_real_mode
    jmp     finish

group_entry_state:
    GROUP   "entry state"
    CHECK   "EAX of the loader", dword [loader_eax], MB_LOADER_EAX
    mov     eax, cr0
    and     eax, CR0_PG | CR0_PE
    CHECK   "protected mode, no paging", eax, CR0_PE
    CHECK   "header in place", dword [IMAGE_BASE], MB_MAGIC
    END_GROUP
    ret

; One word in each of some 1,500 pages, all over memory; written upwards, read
; downwards.  Also the low 640 KB.
group_memory:
    GROUP   "all of memory"
    mov     edi, FREE_START
.write:
    mov     eax, edi
    not     eax
    mov     [edi], eax
    add     edi, STRIDE
    cmp     edi, RAM_BYTES - 4
    jb      .write
.read:
    sub     edi, STRIDE
    mov     eax, [edi]
    not     eax
    CHECK_SAME "word", eax, edi
    cmp     edi, FREE_START
    ja      .read
    mov     edi, 0x10000
.low:
    mov     [edi + 8], edi
    add     edi, 4096
    cmp     edi, 0x90000
    jb      .low
.low_read:
    sub     edi, 4096
    CHECK_SAME "low word", dword [edi + 8], edi
    cmp     edi, 0x10000
    ja      .low_read
    END_GROUP
    ret

; Blocks moved over large-page boundaries, up and down, overlapping.
BLOCK           equ (4 << 20) - 6000
BLOCK_DWORDS    equ 4096

group_blocks:
    GROUP   "block moves"
    push    ebx
    mov     ebx, 6
.round:
    mov     edi, BLOCK
    mov     ecx, BLOCK_DWORDS
    lea     eax, [ebx * 8]
.fill:
    stosd
    inc     eax
    dec     ecx
    jnz     .fill
    mov     esi, BLOCK          ; far away, over the next boundary
    mov     edi, BLOCK + (6 << 20) + 3
    mov     ecx, BLOCK_DWORDS
    rep     movsd
    mov     esi, BLOCK + (BLOCK_DWORDS - 1) * 4
    lea     edi, [esi + 4096]   ; onto itself, downwards
    mov     ecx, BLOCK_DWORDS
    std
    rep     movsd
    cld
    mov     esi, BLOCK + 4096
    mov     edi, BLOCK + (6 << 20) + 3
    mov     ecx, BLOCK_DWORDS
    repe    cmpsd
    CHECK   "the two copies", ecx, 0
    mov     eax, [BLOCK + 4096 + (BLOCK_DWORDS - 1) * 4]
    lea     edx, [ebx * 8 + BLOCK_DWORDS - 1]
    CHECK_SAME "last word", eax, edx
    dec     ebx
    jnz     .round
    pop     ebx
    END_GROUP
    ret

; The same little routine, "mov eax, n; ret", at 64 places in memory.
group_code:
    GROUP   "code everywhere"
    push    ebx
    push    ebp
    mov     ebp, 3
.round:
    xor     ebx, ebx
.place:
    imul    edi, ebx, CODE_STEP
    add     edi, FREE_START + 4093      ; across a page edge
    imul    eax, ebp, CODE_PLACES
    add     eax, ebx
    mov     byte [edi], 0xB8
    mov     [edi + 1], eax
    mov     byte [edi + 5], 0xC3
    inc     ebx
    cmp     ebx, CODE_PLACES
    jb      .place
.run:
    dec     ebx
    imul    edi, ebx, CODE_STEP
    add     edi, FREE_START + 4093
    call    edi
    imul    edx, ebp, CODE_PLACES
    add     edx, ebx
    CHECK_SAME "result", eax, edx
    test    ebx, ebx
    jnz     .run
    dec     ebp
    jnz     .round
    pop     ebp
    pop     ebx
    END_GROUP
    ret

; Code that changes an instruction just ahead of itself, and one behind.
group_self_modifying:
    GROUP   "self-modifying code"
    push    ebx
    mov     ebx, 50
.round:
    mov     [.ahead + 1], ebx
    jmp     .flush
.flush:
.ahead:
    mov     eax, 0
    CHECK_SAME "just ahead", eax, ebx
    mov     edi, FREE_START     ; inc eax x n; ret - longer each time
    mov     ecx, ebx
    mov     al, 0x40
    rep     stosb
    mov     byte [edi], 0xC3
    xor     eax, eax
    mov     edx, FREE_START
    call    edx
    CHECK_SAME "a run of INCs", eax, ebx
    dec     ebx
    jnz     .round
    pop     ebx
    END_GROUP
    ret

; Misaligned accesses over page and large-page edges.
group_edges:
    GROUP   "accesses across pages"
    push    ebx
    mov     ebx, 4 << 20
.edge:
    mov     dword [ebx - 4], 0
    mov     dword [ebx - 1], 0x11223344
    mov     word [ebx - 3], 0x5566
    CHECK   "dword", dword [ebx - 1], 0x11223344
    CHECK   "below", dword [ebx - 4], 0x44556600
    mov     eax, 1
    lock    xadd [ebx - 2], eax
    CHECK   "xadd", eax, 0x22334455
    CHECK   "after xadd", dword [ebx - 2], 0x22334456
    mov     dword [ebx - 4], 0
    mov     dword [ebx], 0
    add     ebx, 1 << 20
    cmp     ebx, 30 << 20
    jb      .edge
    pop     ebx
    END_GROUP
    ret

; Addresses with no memory behind them: reads give anything, writes go nowhere,
; nothing crashes, and memory is not touched.
[section .rodata]
    align 4
nowhere:
    dd RAM_BYTES, RAM_BYTES + 0x1234, 64 << 20, 0x12345678
    dd 0x40000000, 0x7FFFFFFC, 0x80000000, 0xBFFFF000
NOWHERE equ ($ - nowhere) / 4
__SECT__

group_beyond:
    GROUP   "beyond the end of memory"
    push    ebx
    push    ebp
    mov     dword [RAM_BYTES - 4], 0x600D600D
    mov     ebp, 4
.round:
    mov     ebx, NOWHERE - 1
.address:
    mov     edi, [nowhere + ebx * 4]
    mov     eax, [edi]
    mov     dword [edi], 0xDEADBEEF
    mov     eax, [edi]
    mov     byte [edi + 1], 0
    mov     ax, [edi + 1]
    add     dword [edi], 1
    push    dword [edi]
    pop     dword [edi]
    dec     ebx
    jns     .address
    mov     edi, RAM_BYTES + 4096
    mov     ecx, 32
    rep     stosd
    mov     esi, RAM_BYTES + 8192
    mov     edi, FREE_START
    mov     ecx, 32
    rep     movsd
    mov     dword [RAM_BYTES - 2], 0x77665544   ; half in, half out
    movzx   eax, word [RAM_BYTES - 2]
    CHECK   "the half inside", eax, 0x5544
    mov     word [RAM_BYTES - 2], 0x600D
    CHECK   "last word of memory", dword [RAM_BYTES - 4], 0x600D600D
    CHECK   "the image", dword [IMAGE_BASE], MB_MAGIC
    dec     ebp
    jnz     .round
    pop     ebp
    pop     ebx
    END_GROUP
    ret

; Without paging: INVLPG, loads of CR3 and the paging bits of the control
; registers are allowed and do nothing, and there is no write protection.
group_no_tables:
    GROUP   "paging bits without paging"
    push    ebx
    push    ebp
    mov     ebp, 12
.round:
    mov     [FREE_START + 8], ebp
    invlpg  [FREE_START]
    invlpg  [0x80000000]
    invlpg  [group_no_tables]
    mov     eax, FREE_START     ; "tables" that would map nothing
    mov     cr3, eax
    mov     eax, cr4
    xor     eax, CR4_PSE | CR4_PGE
    mov     cr4, eax
    xor     eax, CR4_PAE
    mov     cr4, eax
    mov     eax, FREE_START + 32
    mov     cr3, eax
    mov     eax, cr0
    xor     eax, CR0_WP
    mov     cr0, eax
    mov     [.scratch], ebp      ; the image is as writable as any
    CHECK_SAME "written", dword [FREE_START + 8], ebp
    CHECK_SAME "written in the image", dword [.scratch], ebp
    mov     eax, cr3
    CHECK   "CR3 reads back", eax, FREE_START + 32
    dec     ebp
    jnz     .round
    mov     eax, cr4
    and     eax, ~(CR4_PSE | CR4_PGE | CR4_PAE)
    mov     cr4, eax
    pop     ebp
    pop     ebx
    END_GROUP
    ret
.scratch: dd 0

; Exceptions other than page faults reach the guest's own handlers.
group_exceptions:
    GROUP   "exceptions"
    push    ebx
    mov     ebx, 8
.round:
    GUARD   .divided
    xor     ecx, ecx
    xor     edx, edx
    div     ecx
.divided:
    UNGUARD
    CHECK   "#DE", dword [fault_vector], 0
    GUARD   .undefined
    ud2
.undefined:
    UNGUARD
    CHECK   "#UD", dword [fault_vector], 6
    GUARD   .protected
    mov     ax, 0x88            ; beyond the GDT
    mov     fs, ax
.protected:
    UNGUARD
    CHECK   "#GP", dword [fault_vector], 13
    CHECK   "its error code", dword [fault], 0x88
    GUARD   .breakpoint
    int3
.breakpoint:
    UNGUARD
    CHECK   "#BP", dword [fault_vector], 3
    GUARD   .outside
    int     0x70                ; no such gate
.outside:
    UNGUARD
    CHECK   "#GP of a gate that is none", dword [fault_vector], 13
    CHECK   "its error code", dword [fault], 0x70 * 8 + 2
    dec     ebx
    jnz     .round
    CHECK   "no page faults", dword [pf_count], 0
    pop     ebx
    END_GROUP
    ret

; Ring 3 without paging: segments alone keep it in.
group_ring3:
    GROUP   "ring 3"
    CALL    user_call, user_syscalls, 200, 0
    CHECK   "200 system calls", eax, 20100
    GUARD   1
    CALL    user_call, user_cli, 0, 0
    CHECK   "CLI", dword [fault_vector], 13
    mov     dword [resume_ip], 0
    END_GROUP
    ret

; Paging for a moment, over and over: a directory of 4 MB pages that maps the
; guest to itself and 12 MB somewhere else, and is plain memory in between.
MOMENT_PD       equ 8 << 20
MOMENT_VA       equ 12 << 20
MOMENT_FRAMES   equ 16 << 20

group_paging_moment:
    GROUP   "paging for a moment"
    push    ebx
    push    ebp
    mov     eax, cr4
    or      eax, CR4_PSE
    mov     cr4, eax
    mov     ebp, 24
.round:
    mov     ebx, ebp            ; one of three 4 MB frames
    and     ebx, 1
    shl     ebx, 22
    add     ebx, MOMENT_FRAMES
    mov     [ebx + 64], ebp
    mov     dword [MOMENT_VA + 64], 0x0FF0FF
    mov     edi, MOMENT_PD
    xor     eax, eax
    mov     ecx, 1024
    rep     stosd
    mov     dword [MOMENT_PD], 0x83             ; present, writable, 4 MB
    mov     dword [MOMENT_PD + 8], (8 << 20) | 0x83
    lea     eax, [ebx + 0x83]
    mov     [MOMENT_PD + (MOMENT_VA >> 22) * 4], eax
    mov     eax, MOMENT_PD
    mov     cr3, eax
    mov     eax, cr0
    or      eax, CR0_PG
    mov     cr0, eax
    CHECK_SAME "mapped elsewhere", dword [MOMENT_VA + 64], ebp
    mov     dword [MOMENT_VA + 68], 0x1234
    GUARD   .absent
    mov     eax, [MOMENT_FRAMES]
.absent:
    UNGUARD
    CHECK   "not mapped", dword [fault], 0
    CHECK   "its address", dword [fault_va], MOMENT_FRAMES
    mov     eax, cr0
    and     eax, ~CR0_PG & 0xFFFFFFFF
    mov     cr0, eax
    CHECK   "itself again", dword [MOMENT_VA + 64], 0x0FF0FF
    CHECK   "written meanwhile", dword [ebx + 68], 0x1234
    mov     eax, [MOMENT_PD + (MOMENT_VA >> 22) * 4]
    and     eax, 0x60
    CHECK   "A and D", eax, 0x60
    dec     ebp
    jnz     .round
    pop     ebp
    pop     ebx
    END_GROUP
    ret

; Real mode: segments times 16, the vector table at 0, 16-bit code at 0x8000.
REAL_BASE       equ 0x8000
REAL_DATA       equ 0x9000
REAL_VECTOR     equ 0x60
SEL_CODE16      equ 0x08        ; of real_gdt
SEL_DATA16      equ 0x10
SEL_BACK        equ 0x18

%define REAL(label) (REAL_BASE + (label - real_code))

group_real_mode:
    GROUP   "real mode"
    push    ebx
    push    ebp
    mov     ebp, 5
.round:
    mov     esi, real_code
    mov     edi, REAL_BASE
    mov     ecx, (real_code_end - real_code + 3) / 4
    rep     movsd
    mov     edi, REAL_DATA
    xor     eax, eax
    mov     ecx, 1024
    rep     stosd
    mov     [REAL_DATA], ebp
    push    ebp
    mov     [saved_esp], esp
    lgdt    [real_gdtr]
    lidt    [real_idtr]
    jmp     SEL_CODE16:REAL(real_code)
.back:
    mov     ax, SEL_BACK + 8
    mov     ss, ax
    mov     ds, ax
    mov     es, ax
    mov     esp, [saved_esp]
    FLAT_SEGMENTS
    mov     ax, SEL_UDATA
    mov     fs, ax
    mov     gs, ax
    lidt    [idtr]
    pop     ebp
    movzx   eax, word [REAL_DATA + 2]
    lea     edx, [ebp * 3]
    CHECK_SAME "arithmetic", eax, edx
    movzx   eax, word [REAL_DATA + 4]
    CHECK   "PE was off", eax, 0
    movzx   eax, word [REAL_DATA + 6]
    CHECK   "interrupts through the vector table", eax, 0x4321
    CHECK   "string store over segment 2000h", dword [0x20000 + 512], 0xA5A5A5A5
    CHECK   "copy to segment 3000h", dword [0x30000 + 1020], 0xA5A5A5A5
    CHECK   "end of the copy", dword [0x30000 + 1024], 0
    movzx   eax, word [0x40000]
    CHECK   "through FFFF-based segment", eax, 0xBEAD
    mov     dword [0x30000], 0
    dec     ebp
    jnz     .round
    pop     ebp
    pop     ebx
    END_GROUP
    ret

[section .bss]
saved_esp:      resd 1
[section .data]
    align 8
real_gdt:
    dq 0
    dq 0x00009B000000FFFF       ; 08 16-bit code
    dq 0x000093000000FFFF       ; 10 16-bit data
    dq 0x00CF9B000000FFFF       ; 18 32-bit code, to come back by
    dq 0x00CF93000000FFFF       ; 20 32-bit data
real_gdt_end:
real_gdtr:
    dw real_gdt_end - real_gdt - 1
    dd real_gdt
real_idtr:
    dw 0x3FF
    dd 0
__SECT__

; Copied to REAL_BASE; entered in 16-bit protected mode.
    align 4
real_code:
bits 16
    mov     ax, SEL_DATA16      ; 64 KB limits
    mov     ds, ax
    mov     es, ax
    mov     fs, ax
    mov     gs, ax
    mov     ss, ax
    mov     eax, cr0
    and     al, ~CR0_PE & 0xFF
    mov     cr0, eax
    jmp     0:REAL(.real)
.real:
    xor     ax, ax
    mov     ds, ax
    mov     ss, ax
    mov     sp, REAL_BASE
    mov     ax, [REAL_DATA]     ; 1. stack, call, arithmetic
    push    ax
    call    .triple
    pop     cx
    mov     [REAL_DATA + 2], ax
    smsw    ax
    and     ax, CR0_PE
    mov     [REAL_DATA + 4], ax
    mov     word [REAL_VECTOR * 4], REAL(.service)
    mov     word [REAL_VECTOR * 4 + 2], 0
    mov     ax, 0x1234          ; 2. a software interrupt
    int     REAL_VECTOR
    mov     [REAL_DATA + 6], ax
    mov     ax, 0x2000          ; 3. strings in far segments
    mov     es, ax
    xor     di, di
    mov     eax, 0xA5A5A5A5
    mov     cx, 256
    rep     stosd
    mov     ax, 0x2000
    mov     ds, ax
    mov     ax, 0x3000
    mov     es, ax
    xor     si, si
    xor     di, di
    mov     cx, 512
    rep     movsw
    mov     dword [es:di], 0
    mov     ax, 0x3FF0          ; 4. another name for the same byte
    mov     fs, ax
    mov     word [fs:0x100], 0xBEAD
    xor     ax, ax
    mov     ds, ax
    mov     eax, cr0
    or      al, CR0_PE
    mov     cr0, eax
    jmp     dword SEL_BACK:group_real_mode.back
.triple:
    mov     bp, sp
    mov     ax, [bp + 2]
    lea     eax, [eax + eax * 2]
    ret
.service:
    rol     ax, 8               ; 1234h -> 4321h, nibble by nibble
    ror     al, 4
    ror     ah, 4
    iret
real_code_end:
bits 32

%include "user.inc"

IMAGE_END
