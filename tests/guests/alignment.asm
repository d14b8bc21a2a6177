; SPDX-License-Identifier: GPL-2.0-only
; A guest whose user code has its operands' alignment checked. It prints how many #AC there were.
bits 32
org 0x4000
AC equ 1 << 18
    mov esp, 0x3f00
    lgdt [gdtr]
    jmp 8:.flat
.flat:
    mov ax, 0x10
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov edi, 0x6000 + 8 * 17    ; the IDT
    mov eax, on_misaligned
    mov dh, 0x8e
    call gate
    mov edi, 0x6000 + 8 * 0x80
    mov eax, on_end
    mov dh, 0xee
    call gate
    lidt [idtr]
    mov ax, 0x28
    ltr ax
    mov eax, [0x5001]           ; not checked in ring 0
    mov eax, cr0
    or eax, AC                  ; AM is the same bit
    mov cr0, eax
    mov eax, [0x5001]
    push 0x23
    push 0x3e00
    push 0x3202 | AC
    push 0x1b
    push user
    iretd
user:
    mov ecx, 50
.aligned:
    mov eax, [0x5004]
    mov [0x5008], eax
    mov ax, [0x5002]
    add byte [0x5001], 1
    lea eax, [0x5001]
    push eax
    pop eax
    loop .aligned
    mov eax, [0x5001]           ; twice #AC, which steps over five bytes
    mov [0x5002], eax
    mov edi, 3
.again:
    pushfd
    and dword [esp], ~AC
    popfd
    mov eax, [0x5001]           ; not checked
    pushfd
    or dword [esp], AC
    popfd
    mov eax, [0x5003]           ; #AC
    dec edi
    jnz .again
    int 0x80
on_misaligned:
    inc byte [count]
    pop eax                     ; the error code
    add [count], al
    add dword [esp], 5
    iretd
on_end:
    mov al, [count]
    out 0xe9, al
    mov al, 10
    out 0xe9, al
    mov al, 0x10
    out 0xf4, al
    hlt
gate:                           ; at EDI to EAX, of type DH
    mov [edi], ax
    mov word [edi + 2], 8
    mov dl, 0
    mov [edi + 4], dx
    shr eax, 16
    mov [edi + 6], ax
    ret
count: db '0'
align 8
gdt: dq 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00cffb000000ffff, 0x00cff3000000ffff
    dw 0x67, tss, 0x8900, 0
tss: dd 0, 0x3f00, 0x10
    times 0x68 - 12 db 0
gdtr: dw 0x2f
    dd gdt
idtr: dw 0x7ff
    dd 0x6000
