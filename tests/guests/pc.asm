; SPDX-License-Identifier: GPL-2.0-only
; A guest of the PC: two vCPUs, interrupts from timers and from each other. It prints what it counts.
bits 32
org 0x4000
APIC equ 0xfee00000
    mov esp, 0x3f00
    mov al, 0xff                ; no interrupts from the old controllers
    out 0x21, al
    out 0xa1, al
    lgdt [gdtr]
    jmp 8:.flat
.flat:
    mov edi, 0x6000             ; the IDT: all vectors to `stray`, then three of them
    mov ecx, 256
.gates:
    mov eax, stray
    call gate
    loop .gates
    mov edi, 0x6000 + 8 * 0x30
    mov eax, on_timer
    call gate
    mov edi, 0x6000 + 8 * 0x31
    mov eax, on_ipi
    call gate
    mov edi, 0x6000 + 8 * 0x32
    mov eax, on_line
    call gate
    mov edi, 0x6000 + 8 * 2
    mov eax, on_nmi
    call gate
    lidt [idtr]
    mov dword [APIC + 0xf0], 0x1ff
    ; the local timer, periodic, while the guest sleeps
    mov dword [APIC + 0x3e0], 0xb
    mov dword [APIC + 0x320], 0x20030
    mov dword [APIC + 0x380], 100000
.sleep:
    sti
    hlt
    cli
    cmp byte [timers], 5
    jb .sleep
    mov dword [APIC + 0x320], 0x10030
    ; the same while it spins with interrupts off, and then on: one waits
    mov dword [APIC + 0x320], 0x30
    mov dword [APIC + 0x380], 1000
    mov ecx, 100000
    loop $
    mov al, [timers]
    mov [before], al
    sti
    nop
    cli
    ; the old timer, by the I/O APIC
    mov dword [0xfec00000], 0x14
    mov dword [0xfec00010], 0x32
    mov al, 0x34
    out 0x43, al
    mov al, 0x00
    out 0x40, al
    mov al, 0x10
    out 0x40, al
    sti
.lines:
    cmp byte [lines], 3
    jb .lines
    cli
    ; the second processor
    mov esi, second
    mov edi, 0x2000
    mov ecx, second_end - second
    rep movsb
    mov dword [APIC + 0x310], 0x01000000
    mov dword [APIC + 0x300], 0x4500
    mov dword [APIC + 0x300], 0x4602
    sti
.wait:
    pause
    cmp byte [ipis], 1
    jb .wait
    mov dword [APIC + 0x300], 0x4500      ; INIT: the other one sleeps, and no SIPI wakes it
    mov ecx, 10
.others:
    pause
    loop .others
    mov dword [APIC + 0x300], 0x44400     ; an NMI to itself
    mov al, [timers]
    call digit
    mov al, [before]
    call digit
    mov al, [lines]
    call digit
    mov al, [ipis]
    call digit
    mov al, [nmis]
    call digit
    mov al, 10
    out 0xe9, al
    mov al, 0x10
    out 0xf4, al
    jmp $
digit:
    add al, '0'
    out 0xe9, al
    ret
gate:                           ; at EDI, to EAX
    mov [edi], ax
    mov word [edi + 2], 8
    mov word [edi + 4], 0x8e00
    shr eax, 16
    mov [edi + 6], ax
    add edi, 8
    ret
stray:
    mov al, '!'
    out 0xe9, al
    mov al, 0x11
    out 0xf4, al
    jmp $
on_timer:
    inc byte [timers]
    mov dword [APIC + 0xb0], 0
    iret
on_ipi:
    inc byte [ipis]
    mov dword [APIC + 0xb0], 0
    iret
on_line:
    inc byte [lines]
    mov dword [APIC + 0xb0], 0
    iret
on_nmi:
    inc byte [nmis]
    iret
bits 16
second:                         ; runs at 2000h: real mode, and then protected to reach its APIC
    cli
    xor ax, ax
    mov ds, ax
    o32 lgdt [gdtr]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    jmp dword 8:second_32
second_end:
bits 32
second_32:
    mov ax, 16
    mov ds, ax
    mov dword [APIC + 0xf0], 0x1ff
    mov dword [APIC + 0x310], 0
    mov dword [APIC + 0x300], 0x4031
    cli
    hlt
align 8
gdt: dq 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdtr: dw 23
    dd gdt
idtr: dw 2047
    dd 0x6000
timers: db 0
before: db 0
lines: db 0
ipis: db 0
nmis: db 0
