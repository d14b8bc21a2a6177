; SPDX-License-Identifier: GPL-2.0-only
; A guest that watches its data by the debug registers. Of each #DB it prints the lowest digit of DR6, and g or s for BD or BS.
bits 32
org 0x4000
WRITES_4 equ 0xd << 20          ; of DR1: four bytes, writes
ACCESSES_2 equ 0x7 << 24        ; of DR2: two bytes, reads and writes
DR1_ON equ 1 << 2
DR2_ON equ 1 << 5
GD equ 1 << 13
    mov esp, 0x3f00
    lgdt [gdtr]
    jmp 8:.flat
.flat:
    mov ax, 0x10
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov edi, 0x6000 + 8         ; the IDT
    mov eax, on_debug
    call gate
    mov edi, 0x6000 + 8 * 0x80
    mov eax, on_call
    call gate
    lidt [idtr]
    mov eax, 0x5002             ; which is aligned by the CPU
    mov dr1, eax
    mov eax, 0x5010
    mov dr2, eax
    mov [0x5000], eax           ; nothing is watched yet
    mov eax, WRITES_4 | ACCESSES_2 | DR1_ON | DR2_ON
    mov dr7, eax
    mov eax, [0x5000]
    mov [0x5004], eax
    mov [0x4ffc], eax
    mov [0x5000], eax           ; 2
    mov byte [0x5003], 0        ; 2
    mov [0x4ffd], eax           ; 2
    mov al, '-'
    out 0xe9, al
    mov ax, [0x5010]            ; 4
    mov eax, [0x500f]           ; 4
    mov al, [0x5012]
    mov esi, 0x5011             ; 4: reads its last byte
    mov edi, 0x5001             ; 2 as often as it writes one of the three
    mov ecx, 5
    rep movsb
    mov esp, 0x5004
    push eax                    ; 2
    mov esp, 0x3f00
    mov al, '-'
    out 0xe9, al
    mov word [0x5010], 0x10     ; 4
    mov ss, [0x5010]            ; waits for
    int 0x80                    ; i, but behind the 4
    mov ss, [0x5010]
    nop                         ; 4
    mov al, '-'
    out 0xe9, al
    pushfd
    or dword [esp], 1 << 8
    popfd
    mov [0x5000], eax           ; 2s
    and dword [esp - 4], 0      ; s
    pushfd                      ; s
    and dword [esp], ~(1 << 8)  ; s
    popfd                       ; s
    mov al, '-'
    out 0xe9, al
    mov eax, GD | 0x400
    mov dr7, eax
    mov [0x5000], eax           ; no more
    mov eax, dr1                ; g, once
    cmp eax, 0x5002
    jne .wrong
    mov eax, dr7                ; a #DB has cleared GD
    cmp eax, 0x400
    jne .wrong
    mov eax, GD | 0x400
    mov dr7, eax
    mov dr7, eax                ; g
    mov eax, 0x400
    mov dr7, eax                ; g: it was set again
    mov al, 10
    out 0xe9, al
    mov al, 0x10
    out 0xf4, al
.wrong:
    hlt
on_call:
    push eax
    mov al, 'i'
    out 0xe9, al
    pop eax
    iretd
on_debug:
    push eax
    mov eax, dr6
    push eax
    and al, 15
    add al, '0'
    out 0xe9, al
    pop eax
    test ah, 1 << 5
    jz .no_detect
    mov al, 'g'
    out 0xe9, al
.no_detect:
    test ah, 1 << 6
    jz .no_step
    mov al, 's'
    out 0xe9, al
.no_step:
    mov eax, 0
    mov dr6, eax
    pop eax
    iretd
gate:                           ; at EDI to EAX
    mov [edi], ax
    mov word [edi + 2], 8
    mov word [edi + 4], 0x8e00
    shr eax, 16
    mov [edi + 6], ax
    ret
align 8
gdt: dq 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdtr: dw 0x17
    dd gdt
idtr: dw 0x7ff
    dd 0x6000
