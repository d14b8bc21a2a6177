; SPDX-License-Identifier: GPL-2.0-only
; What a processor does in 64-bit code where an emulator is easily wrong. Each exception is told by a letter.
; nasm -f bin -o long.bin long.asm
        org 0x4000
        bits 32

TABLES  equ 0x10000             ; PML4, PDPT, PD, and a way to the last page below the canonical hole: PDPT, PD, PT, page
EDGE    equ 0x7ffffffffffd      ; where a VMMCALL ends at the hole
PER_CPU equ 0x5a000
MAGIC   equ 0x600df00d
IDT     equ 0x20000

start:
        mov     esp, 0x9000
        mov     dword [TABLES], TABLES + 0x1007
        mov     dword [TABLES + 0x1000], TABLES + 0x2007
        mov     dword [TABLES + 0x2000], 0x87
        mov     dword [TABLES + 255 * 8], TABLES + 0x3007
        mov     dword [TABLES + 0x3000 + 511 * 8], TABLES + 0x4007
        mov     dword [TABLES + 0x4000 + 511 * 8], TABLES + 0x5007
        mov     dword [TABLES + 0x5000 + 511 * 8], TABLES + 0x6007
        mov     dword [TABLES + 0x6ffc], 0xd9010f90             ; nop; vmmcall
        mov     dword [PER_CPU], MAGIC
        mov     eax, cr4
        or      eax, 1 << 5
        mov     cr4, eax
        mov     eax, TABLES
        mov     cr3, eax
        mov     ecx, 0xc0000080
        rdmsr
        or      eax, 1 << 8
        wrmsr
        mov     eax, cr0
        or      eax, 1 << 31
        mov     cr0, eax
        lgdt    [gdtr]
        jmp     8:wide

        bits 64
wide:
        mov     eax, 16
        mov     ds, eax
        mov     ss, eax
        mov     gs, eax
        mov     ecx, 0xc0000101                                 ; the base of GS
        mov     eax, PER_CPU
        xor     edx, edx
        wrmsr
        mov     edi, 1
        mov     eax, on_debug
        call    set_gate
        mov     edi, 12
        mov     eax, on_stack
        call    set_gate
        mov     edi, 13
        mov     eax, on_protection
        call    set_gate
        lidt    [idtr]

        mov     rbp, 1 << 60
        mov     r15, .other_segment
        mov     rax, [rbp]                                      ; S
.other_segment:
        mov     r15, .trap
        mov     rcx, 1 << 60
        mov     rax, [rcx]                                      ; G
.trap:
        db      0x2e, 0xf1                                      ; D: ICEBP with a prefix
        pushfq
        or      qword [rsp], 1 << 8
        popfq
        hlt                                                     ; D: it traps and goes on
        mov     r15, .bases
        mov     rax, -1
        mov     rcx, EDGE - 1
        jmp     rcx                                             ; GE: at the instruction behind the VMMCALL
.bases:
        mov     r15, .second
        lgdt    [bad]                                           ; G
.second:
        mov     r15, .user
        lidt    [bad]                                           ; G
.user:
        push    0x23
        push    0x9000
        push    0x3002                                          ; with the right to ports
        push    0x1b
        push    outer
        iretq
outer:
        mov     al, 'U'
        cmp     dword [gs:0], MAGIC                             ; the base is there still
        je      .told
        mov     al, 'X'
.told:
        out     0xe9, al
        mov     al, 10
        out     0xe9, al
        mov     al, 0x10
        out     0xf4, al
        jmp     $

set_gate:                                                       ; of vector edi: a handler at eax
        shl     edi, 4
        mov     word [rdi + IDT], ax
        mov     word [rdi + IDT + 2], 8
        mov     word [rdi + IDT + 4], 0x8e00
        ret

on_debug:
        mov     al, 'D'
        out     0xe9, al
        and     qword [rsp + 16], ~(1 << 8)
        iretq

on_stack:
        mov     al, 'S'
        jmp     tell
on_protection:
        mov     al, 'G'
tell:
        out     0xe9, al
        mov     rax, EDGE + 3
        cmp     [rsp + 8], rax
        jne     .go_on
        mov     al, 'E'
        out     0xe9, al
.go_on:
        mov     [rsp + 8], r15
        add     rsp, 8
        iretq

gdtr:   dw      gdt.end - gdt - 1
        dq      gdt
idtr:   dw      0xfff
        dq      IDT
bad:    dw      0xfff
        dq      1 << 60
gdt:    dq      0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00affb000000ffff, 0x00cff3000000ffff
.end:
