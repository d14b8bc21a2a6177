; SPDX-License-Identifier: GPL-2.0-only
; A guest that reads and writes model-specific registers and CR8 again and again: its APIC's as an x2APIC, with interrupts to itself, a
; timer, and values that are illegal. It prints P, if all interrupts and exceptions have come.
; nasm -f bin -o registers.bin registers.asm
        org 0x4000
        bits 32

TABLES  equ 0x10000             ; PML4, PDPT, PD
IDT     equ 0x20000
ROUNDS  equ 40
GP_A_ROUND equ 3

start:
        mov     esp, 0x9000
        mov     al, 0xff
        out     0x21, al
        mov     dword [TABLES], TABLES + 0x1007
        mov     dword [TABLES + 0x1000], TABLES + 0x2007
        mov     dword [TABLES + 0x2000], 0x87
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
        mov     edi, 13
        mov     eax, on_protection
        call    set_gate
        mov     edi, 0x31
        mov     eax, on_own
        call    set_gate
        mov     edi, 0x42
        mov     eax, on_timer
        call    set_gate
        lidt    [idtr]
        mov     ecx, 0x1b                                       ; an x2APIC, enabled, its timer by deadlines
        rdmsr
        or      eax, 0xc00
        wrmsr
        xor     edx, edx
        mov     eax, 0x1ff
        mov     ecx, 0x80f
        wrmsr
        mov     eax, 0x40042
        mov     ecx, 0x832
        wrmsr
        sti

        mov     ebp, ROUNDS
again:
        mov     ecx, 0x10                                       ; the clock, and soon the timer
        rdmsr
        add     [sum], eax
        add     eax, 25000
        adc     edx, 0
        mov     ecx, 0x6e0
        wrmsr
        mov     eax, 15                                         ; an interrupt that waits for the task priority
        mov     cr8, rax
        xor     edx, edx
        mov     eax, 0x31
        mov     ecx, 0x83f
        wrmsr
        mov     rax, cr8
        add     [sum], eax
        mov     ecx, 0x808
        rdmsr
        add     [sum], eax
        mov     ecx, 0x821                                      ; IRR
        rdmsr
        add     [sum], eax
        mov     rax, rbp
        and     eax, 1
        mov     cr8, rax
        mov     ecx, 0x808
        xor     eax, eax
        wrmsr
        mov     eax, ebp                                        ; bases, and where system calls lead
        mov     esi, registers
.one:
        mov     ecx, [rsi]
        mov     edx, 0
        wrmsr
        xor     eax, eax
        rdmsr
        add     [sum], eax
        lea     eax, [rax + rbp]
        add     esi, 4
        cmp     esi, registers_end
        jb      .one
        mov     rax, [gs:0]
        add     [sum], eax
        mov     ecx, 0x277
        rdmsr
        wrmsr
        mov     eax, 11                                         ; hypercalls: to yield, and one that there is none of
        vmmcall
        add     [sum], eax
        mov     eax, 99
        vmmcall
        add     [sum], eax
        mov     ecx, 0x8ff                                      ; what there is none of
        rdmsr
        mov     ecx, 0x83f
        mov     eax, 0x100
        xor     edx, edx
        wrmsr
        mov     ecx, 0xc0000082
        mov     edx, 1 << 15
        wrmsr
        dec     ebp
        jnz     again

.wait:
        cmp     dword [timers], 2
        jb      .wait
        cmp     dword [owns], ROUNDS
        jne     .end
        cmp     dword [faults], ROUNDS * GP_A_ROUND
        jne     .end
        mov     al, 'P'
        out     0xe9, al
        mov     al, 10
        out     0xe9, al
        mov     al, 0x10
        out     0xf4, al
.end:
        mov     al, 0x11
        out     0xf4, al
        jmp     .end

set_gate:                                                       ; vector edi, handler eax
        shl     edi, 4
        mov     [rdi + IDT], ax
        mov     word [rdi + IDT + 2], 8
        mov     word [rdi + IDT + 4], 0x8e00
        mov     word [rdi + IDT + 6], 0
        mov     qword [rdi + IDT + 8], 0
        ret

on_protection:                                                  ; behind the RDMSR or WRMSR
        inc     dword [faults]
        add     qword [rsp + 8], 2
        add     rsp, 8
        iretq

on_own:
        inc     dword [owns]
        jmp     end_of_interrupt
on_timer:
        inc     dword [timers]
end_of_interrupt:
        push    rax
        push    rcx
        push    rdx
        xor     eax, eax
        xor     edx, edx
        mov     ecx, 0x80b
        wrmsr
        pop     rdx
        pop     rcx
        pop     rax
        iretq

        align 8
gdt:    dq 0, 0x00af9b000000ffff, 0x00cf93000000ffff
gdtr:   dw 23
        dd gdt
idtr:   dw 0xfff
        dq IDT
registers:
        dd 0xc0000100, 0xc0000101, 0xc0000102, 0xc0000081, 0xc0000082, 0xc0000084, 0x174, 0x175, 0x176, 0x2ff, 0x200
registers_end:
sum:    dd 0
faults: dd 0
owns:   dd 0
timers: dd 0
