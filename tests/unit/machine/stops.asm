; SPDX-License-Identifier: GPL-2.0-only
; counts in every way that a repeated or lost instruction would show
%if BITS == 64
  %define A rax
  %define C rcx
  %define D rdx
  %define S rsi
  %define I rdi
  %define SP rsp
  %define R 8
  %define PUSHF pushfq
  %define POPF popfq
  %define IRET iretq
%elif BITS == 32
  %define A eax
  %define C ecx
  %define D edx
  %define S esi
  %define I edi
  %define SP esp
  %define R 4
  %define PUSHF pushfd
  %define POPF popfd
  %define IRET iretd
%else
  %define A ax
  %define C cx
  %define D dx
  %define S si
  %define I di
  %define SP sp
  %define R 2
  %define PUSHF pushf
  %define POPF popf
  %define IRET iret
%endif
bits BITS
    mov D, 3
.again:
    inc word [I]                ; I: data
    mov A, 5
    lock xadd [I + 8], A
    adc [I + 16], A
    push D
    call .count
    pop D
    push I
    mov C, 5
    lea I, [I + 0x20]
    rep stosb
    mov S, I
    mov C, 6
    rep movsw
    std
    mov C, 3
    repne scasb
    cld
    pop I
    cli
    PUSHF
    sti
    push C
    pop C
    POPF
%if BITS == 64
    mov A, SP
    push D                      ; SS
    mov [SP], ss
    push A
%endif
    PUSHF
    mov A, cs
    push A
    call .frame
    rol word [I + 24], 1
    xor [I + 28], D
    shl D, 3
    shr D, 3
    dec D
    jnz .again
    db 0x0f, 0xa2               ; CPUID: the end
.count:
    inc word [I + 2]
    cmp A, [I + 8]
    setc [I + 4]
    ret
.frame:                         ; the return address is the RIP of the frame
    inc word [I + 6]
    IRET
