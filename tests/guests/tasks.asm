; SPDX-License-Identifier: GPL-2.0-only
; Tasks switched by hardware, with paging: by CALL and IRET, by JMP, and by task gates, with an error code and without.
bits 32
org 0x4000
    mov esp, 0x3f00
    mov edi, 0x10000            ; 4 MB pages, one to one; the second directory is a copy
    mov ecx, 1024
    mov eax, 0x87
.directory:
    mov [edi], eax
    mov [edi + 0x1000], eax
    add edi, 4
    add eax, 0x400000
    loop .directory
    mov eax, 0x10
    mov cr4, eax
    mov eax, 0x10000
    mov cr3, eax
    mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax
    lgdt [gdtr]
    jmp 8:.flat
.flat:
    lidt [idtr]
    mov ax, 0x18
    ltr ax
    mov dword [main_tss + 28], 0x10000
    ; CALL and IRET: nested, under another CR3
    mov dword [task_tss + 28], 0x11000
    mov dword [task_tss + 32], called
    mov ebx, 0x1234
    call 0x20:0
    cmp ebx, 0x1234
    jne failed
    mov al, 'b'
    out 0xe9, al
    ; a task gate, by an exception with an error code: the task mends it and returns
    mov dword [task_tss + 32], faulted
    mov dword [task_tss + 56], 0x3e00
    mov ax, 0x40                ; beyond the limit: #GP(40h)
    mov gs, ax
    mov al, 'd'
    out 0xe9, al
    ; JMP there and back: not nested
    mov dword [task_tss + 32], jumped
    mov dword [task_tss + 36], 2
    jmp 0x20:0
    mov al, 'f'
    out 0xe9, al
    mov eax, cr0
    test al, 8
    jz failed                   ; every switch sets TS
    mov al, 10
    out 0xe9, al
    mov al, 0x10
    out 0xf4, al
    jmp $
called:
    mov eax, cr3
    cmp eax, 0x11000
    jne failed
    cmp word [task_tss], 0x18   ; back link
    jne failed
    pushfd
    pop eax
    test ah, 0x40               ; NT
    jz failed
    mov ebx, 0
    mov al, 'a'
    out 0xe9, al
    iretd
failed:
    mov al, '!'
    out 0xe9, al
    mov al, 0x11
    out 0xf4, al
    jmp $
faulted:
    pop eax
    cmp eax, 0x40
    jne failed
    add dword [main_tss + 32], 2    ; behind the instruction
    mov al, 'c'
    out 0xe9, al
    iretd
jumped:
    cmp word [main_tss + 0], 0
    jne failed
    mov al, 'e'
    out 0xe9, al
    jmp 0x18:0
align 8
gdt: dq 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
    dw 0x67, main_tss, 0x8900, 0
    dw 0x67, task_tss, 0x8900, 0
gdt_end:
gdtr: dw gdt_end - gdt - 1
    dd gdt
idt: times 13 dq 0
    dw 0, 0x20, 0x8500, 0       ; #GP: a task gate
idt_end:
idtr: dw idt_end - idt - 1
    dd idt
align 4
main_tss: times 26 dd 0
task_tss: dd 0
    dd 0, 0, 0, 0, 0, 0
    dd 0x11000, 0, 2            ; CR3, EIP, EFLAGS
    dd 0, 0, 0, 0
    dd 0x3e00, 0, 0, 0          ; ESP
    dd 0x10, 8, 0x10, 0x10, 0, 0
    dd 0, 0
