; SPDX-License-Identifier: GPL-2.0-only
;
; adversary - a guest at war with its own page tables.
;
; Under PAE, 2-level and 4-level paging in turn it does to its tables what no
; kernel would: loops, one frame at several levels, tables that are code and
; stack, reserved bits, tables beyond the end of memory, top entries changed
; behind the CPU's back, thousands of random edits with few invalidations, and
; control bits toggled all the while.  What a wild access gives differs from
; CPU to CPU, so it is not checked; every fault is caught and stepped over.  A
; group passes if the guest is alive after it, and its code, home tables and
; canary are intact.
;
; What keeps it alive: the lowest 16 MiB stay mapped one to one by home tables
; no wild entry leads to, and wild entries only ever lead to
;
;   toys    16 frames that are tables, data, code and stack all at once
;   arena   16 frames of data
;   or to addresses where there is no memory
;
; and every dword a wild store may leave is itself such an entry.

%define LEVELS 0
%include "width.inc"
%include "multiboot.inc"
%include "serial.inc"
%include "check.inc"
%include "trap.inc"

P               equ 1 << 0
W               equ 1 << 1
U               equ 1 << 2
ACC             equ 1 << 5
DIRTY           equ 1 << 6
PS              equ 1 << 7

CR0_WP          equ 1 << 16
CR0_PG          equ 1 << 31
CR4_PSE         equ 1 << 4
CR4_PAE         equ 1 << 5
CR4_PGE         equ 1 << 7
CR4_SMEP        equ 1 << 20
CR4_SMAP        equ 1 << 21
MSR_EFER        equ 0xC0000080
EFER_LME        equ 1 << 8
EFER_NXE        equ 1 << 11

RAM_BYTES       equ 32 << 20
HOME_PD         equ 4 << 20     ; PAE and 4-level: eight 2 MB pages
HOME_ROOT       equ HOME_PD + 0x1000
HOME_PDPT       equ HOME_PD + 0x2000
HOME_PT         equ HOME_PD + 0x3000            ; 2-level: four tables
HOME_END        equ HOME_PD + 0x7000
TOYS            equ 16
TOY_START       equ 8 << 20
%define TOY(n)  (TOY_START + (n) * 4096)
ALT_ROOT        equ TOY(15)     ; a second root lives in a toy
ALT_PDPT        equ TOY(14)
ARENA           equ 10 << 20
CANARY          equ 13 << 20
CANARY_DWORDS   equ 4096

USER_TEXT       equ 0           ; no ring 3 here
USER_STACK_TOP  equ 0

[section .bss]
entry_size:     resd 1          ; 4 or 8
wild_top:       resd 1          ; top entries that may be wild: first, number,
wild_tops:      resd 1
wild_flags:     resd 1          ; and the rights they need
random_state:   resd 1
home_sum:       resd 1
cr4_toys:       resd 1          ; CR4 bits that may be toggled
survived:       resd 1          ; faults stepped over
scratch:        resd 16
                alignb 16
idt64:          resb 32 * 16
__SECT__

start32:
    FLAT_SEGMENTS
    mov     esp, boot_stack_top
    call    trap_setup
    PRINT   "adversary: a guest at war with its own page tables", 10
    call    find_toggles
    mov     edi, CANARY
    mov     ecx, CANARY_DWORDS
.canary:
    mov     eax, edi
    not     eax
    stosd
    dec     ecx
    jnz     .canary
    mov     dword [random_state], 0x6C078965
    call    stage_pae
    call    stage_2level
    call    stage_4level
    jmp     finish

; SMEP and SMAP if there; PGE and PSE always.
find_toggles:
    mov     eax, 7
    xor     ecx, ecx
    cpuid
    and     ebx, 1 << 7 | 1 << 20
    mov     eax, ebx
    and     eax, 1 << 7         ; SMEP
    shl     eax, 20 - 7
    and     ebx, 1 << 20        ; SMAP
    add     ebx, ebx
    or      eax, ebx
    or      eax, CR4_PGE | CR4_PSE
    mov     [cr4_toys], eax
    ret

random:
    mov     eax, [random_state]
    imul    eax, eax, 1664525
    add     eax, 1013904223
    mov     [random_state], eax
    rol     eax, 16
    ret

; ------------------------------------------------------------- the stages

%macro STAGE_GROUPS 1
    GROUP   {%1, ": loops"}
    call    loops
    call    end_attack
    GROUP   {%1, ": table, code and stack in one"}
    call    everything_at_once
    call    end_attack
    GROUP   {%1, ": reserved bits and tables nowhere"}
    call    bad_entries
    call    end_attack
    GROUP   {%1, ": top entries behind the CPU's back"}
    call    wild_top_entries
    call    end_attack
    GROUP   {%1, ": a root that is a toy"}
    call    toy_root
    call    end_attack
    GROUP   {%1, ": stores through every alias"}
    call    aliases
    call    end_attack
    GROUP   {%1, ": random war"}
    CALL    random_war, WAR_STEPS
    call    end_attack
%endmacro

WAR_STEPS       equ 1500

stage_pae:
    call    build_home_pd
    mov     dword [HOME_ROOT], HOME_PD | P
    mov     dword [entry_size], 8
    mov     dword [wild_top], HOME_ROOT + 8
    mov     dword [wild_tops], 3
    mov     dword [wild_flags], P
    mov     eax, CR4_PAE
    call    paging_on
    STAGE_GROUPS "pae"
    jmp     paging_off

stage_2level:
    call    clear_home
    mov     edi, HOME_PT
    mov     eax, P | W
.fill:
    stosd
    add     eax, 4096
    cmp     edi, HOME_PT + 4 * 4096
    jb      .fill
    mov     dword [HOME_ROOT], HOME_PT | P | W
    mov     dword [HOME_ROOT + 4], (HOME_PT + 0x1000) | P | W
    mov     dword [HOME_ROOT + 8], (HOME_PT + 0x2000) | P | W
    mov     dword [HOME_ROOT + 12], (HOME_PT + 0x3000) | P | W
    mov     dword [entry_size], 4
    mov     dword [wild_top], HOME_ROOT + 64
    mov     dword [wild_tops], 1024 - 16
    mov     dword [wild_flags], P | W | U
    mov     eax, CR4_PSE
    call    paging_on
    STAGE_GROUPS "2-level"
    jmp     paging_off

; The code stays 32-bit, in compatibility mode; only the trap handlers change.
stage_4level:
    call    build_home_pd
    mov     dword [HOME_PDPT], HOME_PD | P | W | U
    mov     dword [HOME_ROOT], HOME_PDPT | P | W | U
    mov     dword [entry_size], 8
    mov     dword [wild_top], HOME_PDPT + 8
    mov     dword [wild_tops], 3
    mov     dword [wild_flags], P | W | U
    call    idt64_setup
    mov     ecx, MSR_EFER
    rdmsr
    or      eax, EFER_LME
    wrmsr
    mov     eax, CR4_PAE
    call    paging_on
    STAGE_GROUPS "4-level"
    call    paging_off
    mov     ecx, MSR_EFER
    rdmsr
    and     eax, ~EFER_LME
    wrmsr
    lidt    [idtr]
    ret

clear_home:
    mov     edi, HOME_PD
    mov     ecx, (HOME_END - HOME_PD) / 4
    xor     eax, eax
    rep     stosd
    ret

build_home_pd:
    call    clear_home
    mov     edi, HOME_PD
    mov     eax, P | W | PS
.fill:
    mov     [edi], eax
    add     edi, 8
    add     eax, 2 << 20
    cmp     eax, 16 << 20
    jb      .fill
    ret

; paging_on(eax = CR4); NXE on if entries have room for NX
paging_on:
    mov     cr4, eax
    call    fill_toys
    call    tame_tops
    mov     ecx, MSR_EFER
    rdmsr
    and     eax, ~EFER_NXE
    cmp     dword [entry_size], 8
    jne     .no_nx
    or      eax, EFER_NXE
.no_nx:
    wrmsr
    call    sum_home
    mov     [home_sum], eax
    mov     eax, HOME_ROOT
    mov     cr3, eax
    mov     eax, cr0
    or      eax, CR0_PG | CR0_WP
    mov     cr0, eax
    ret

paging_off:
    mov     eax, cr0
    and     eax, ~CR0_PG & 0xFFFFFFFF
    mov     cr0, eax
    xor     eax, eax
    mov     cr4, eax
    ret

; end_attack(): control bits as at the start, then is everything still there?
end_attack:
    call    tame_tops
    mov     eax, HOME_ROOT
    mov     cr3, eax
    mov     eax, cr4
    mov     edx, [cr4_toys]
    not     edx
    and     eax, edx
    or      eax, CR4_PSE
    mov     cr4, eax
    mov     eax, cr0
    or      eax, CR0_WP
    mov     cr0, eax
    cmp     dword [entry_size], 8
    jne     .no_nx
    mov     ecx, MSR_EFER
    rdmsr
    or      eax, EFER_NXE
    wrmsr
.no_nx:
    call    sum_home
    CHECK_SAME "code and home tables", eax, dword [home_sum]
    mov     edi, CANARY
    xor     edx, edx
.canary:
    mov     eax, [edi]
    not     eax
    xor     eax, edi
    or      edx, eax
    add     edi, 4
    cmp     edi, CANARY + CANARY_DWORDS * 4
    jb      .canary
    CHECK   "canary", edx, 0
    mov     eax, cr0
    and     eax, CR0_WP | CR0_PG
    CHECK   "CR0", eax, CR0_WP | CR0_PG
    END_GROUP
    ret

; sum_home() -> eax: code, constants, and home tables without A and D
sum_home:
    xor     eax, eax
    mov     esi, image_start
.code:
    rol     eax, 1
    xor     eax, [esi]
    add     esi, 4
    cmp     esi, image_constants_end
    jb      .code
    mov     esi, HOME_PD
.table:
    mov     edx, [esi]
    and     edx, ~(ACC | DIRTY)
    mov     ecx, esi            ; wild top entries do not count
    sub     ecx, [wild_top]
    jb      .home
    mov     edi, [wild_tops]
    imul    edi, [entry_size]
    cmp     ecx, edi
    jb      .next
.home:
    rol     eax, 1
    xor     eax, edx
.next:
    add     esi, 4
    cmp     esi, HOME_END
    jb      .table
    ret

; ------------------------------------------------------------- wild things

; wild_entry() -> eax low, edx high dword.  Preserves the rest.
wild_entry:
    push    ecx
    push    ebx
    call    random
    mov     ebx, eax
    mov     ecx, eax
    shr     ecx, 4
    and     ecx, 15 << 12       ; one of sixteen frames
    mov     edx, eax
    shr     edx, 20
    and     edx, 15
    or      ecx, [wild_base + edx * 4]
    mov     edx, eax            ; flags: any of them, but mostly P, W, U
    and     edx, 0xFFF & ~PS
    or      ecx, edx
    or      ecx, P
    test    eax, 7 << 24
    jz      .few
    or      ecx, W | U
.few:
    test    eax, 7 << 27
    jnz     .small
    or      ecx, PS
.small:
    call    random
    test    al, 7
    jnz     .present
    and     ecx, ~P
.present:
    xor     edx, edx
    test    ah, 3
    jnz     .plain
    shr     eax, 16
    and     eax, 7
    mov     edx, [wild_high + eax * 4]
.plain:
    mov     eax, ecx
    pop     ebx
    pop     ecx
    ret

[section .rodata]
    align 4
wild_base:
    dd TOY_START, TOY_START, TOY_START, TOY_START, TOY_START, TOY_START
    dd TOY_START, TOY_START, TOY_START, TOY_START, ARENA, ARENA
    dd RAM_BYTES, 0x40000000, 0xC0000000, 0x80000000
wild_high:                      ; NX, high addresses, reserved bits
    dd 1 << 31, 1 << 31, 1, 1 << 4, 1 << 19, 0x7FF00000, 0xFFFFFFFF, 1 << 10
__SECT__

; wild_va() -> eax: dword-aligned, above 1 GiB.  Preserves the rest.
wild_va:
    call    random
    and     eax, ~3
    test    eax, 3 << 30
    jnz     .high
    or      eax, 1 << 30
.high:
    ret

; tame_tops(): wild top entries lead to the toys in turn, with no other bits
tame_tops:
    xor     ecx, ecx
.next:
    mov     eax, ecx
    and     eax, TOYS - 1
    shl     eax, 12
    add     eax, TOY_START
    or      eax, [wild_flags]
    call    top_entry
    mov     [edi], eax
    cmp     dword [entry_size], 8
    jne     .short
    mov     dword [edi + 4], 0
.short:
    inc     ecx
    cmp     ecx, [wild_tops]
    jb      .next
    ret

; top_entry(ecx = number) -> edi: its address
top_entry:
    mov     edi, ecx
    imul    edi, [entry_size]
    add     edi, [wild_top]
    ret

; fill_toys(): every entry of every toy is wild
fill_toys:
    mov     edi, TOY_START
.next:
    call    wild_entry
    stosd
    cmp     dword [entry_size], 8
    jne     .short
    mov     [edi], edx
    add     edi, 4
.short:
    cmp     edi, TOY(TOYS)
    jb      .next
    ret

; fill_toy(edi = toy, eax, edx): all its entries alike.  Loses ecx.
fill_toy:
    push    edi
    mov     ecx, 4096
.next:
    mov     [edi], eax
    add     edi, 4
    sub     ecx, 4
    cmp     dword [entry_size], 8
    jne     .short
    mov     [edi], edx
    add     edi, 4
    sub     ecx, 4
.short:
    test    ecx, ecx
    jnz     .next
    pop     edi
    ret

; touch(edi = address): one access of eight kinds, chosen at random; any fault
; is stepped over.  What is stored is a wild entry.
touch:
    push    ebx
    push    esi
    push    edi
    call    wild_entry
    mov     ebx, eax
    call    random
    and     eax, 7
    mov     edx, [touch_kind + eax * 4]
    GUARD   .end
    jmp     edx
.read:
    mov     eax, [edi]
    jmp     .done
.write:
    mov     [edi], ebx
    jmp     .done
.exchange:
    xchg    [edi], ebx
    jmp     .done
.compare:
    mov     eax, [edi]
    lock    cmpxchg [edi], ebx
    jmp     .done
.set_dirty:
    lock    or dword [edi], DIRTY
    jmp     .done
.crossing:
    or      edi, 0xFFE
    mov     eax, [edi]
    jmp     .done
.string:
    mov     esi, edi
    mov     edi, scratch
    mov     ecx, 8
    rep     movsd
    jmp     .done
.invalidate:
    invlpg  [edi]
.done:
    dec     dword [survived]
.end:
    inc     dword [survived]
    UNGUARD
    pop     edi
    pop     esi
    pop     ebx
    ret

[section .rodata]
    align 4
touch_kind:
    dd touch.read, touch.write, touch.exchange, touch.compare
    dd touch.set_dirty, touch.crossing, touch.string, touch.invalidate
__SECT__

reload_cr3:
    GUARD   .end                ; a bad PDPTE may give #GP
    mov     eax, cr3
    mov     cr3, eax
.end:
    UNGUARD
    ret

; -------------------------------------------------------------- the attacks

; Toy 0 is a table all of whose entries are itself: directory and page table
; and page at once, with all rights, then read-only, then large, and so on.
; Every store through it rewrites what it went through.
loops:
    push    ebx
    push    ebp
    mov     ebp, LOOP_ROUNDS
.round:
    call    tame_tops
    mov     edi, TOY(0)
    mov     eax, ebp
    and     eax, 7
    mov     eax, [loop_flags + eax * 4]
    or      eax, TOY(0)
    xor     edx, edx
    call    fill_toy
    call    reload_cr3
    mov     ebx, 24
.touch:
    call    wild_va             ; within what top entry 0 maps
    mov     edi, eax
    cmp     dword [entry_size], 8
    je      .gigabyte
    and     edi, 0x003FFFFC
    or      edi, 64 << 20
    jmp     .go
.gigabyte:
    and     edi, 0x3FFFFFFC
    or      edi, 1 << 30
.go:
    call    touch
    dec     ebx
    jnz     .touch
    mov     edi, TOY(0)         ; a ring of three: 0 -> 1 -> 2 -> 0
    mov     eax, TOY(1) | P | W | U
    xor     edx, edx
    call    fill_toy
    mov     edi, TOY(1)
    mov     eax, TOY(2) | P | W | U
    call    fill_toy
    mov     edi, TOY(2)
    mov     eax, TOY(0) | P | W | U
    call    fill_toy
    call    reload_cr3
    mov     ebx, 16
.ring:
    call    wild_va
    mov     edi, eax
    call    touch
    dec     ebx
    jnz     .ring
    dec     ebp
    jnz     .round
    pop     ebp
    pop     ebx
    ret

LOOP_ROUNDS equ 10
[section .rodata]
    align 4
loop_flags:
    dd P | W | U, P | W, P | U, P, P | W | U | PS, P | W | U | ACC | DIRTY, W | U
    dd P | W | U | 0x100
__SECT__

; Toy 3 is a directory, its own page table, a page of code that is run through
; it, and the stack that code uses.
CODE_AT         equ 0x800       ; offset of the code in the toy
STACK_AT        equ 0x600       ; and of the stack's top

everything_at_once:
    push    ebx
    push    ebp
    mov     ebp, 16
.round:
    mov     edi, TOY(3)
    mov     eax, TOY(3) | P | W | U
    xor     edx, edx
    call    fill_toy
    mov     esi, toy_code       ; over entries nobody walks
    mov     edi, TOY(3) + CODE_AT
    mov     ecx, toy_code_end - toy_code
    rep     movsb
    xor     ecx, ecx
    call    top_entry
    mov     eax, TOY(3)
    or      eax, [wild_flags]
    mov     [edi], eax
    call    reload_cr3
    mov     ebx, 1 << 30        ; where it all appears
    cmp     dword [entry_size], 8
    je      .run
    mov     ebx, 64 << 20
.run:
    mov     [resume_sp], esp
    mov     eax, TOY(3) | P | W | U
    lea     edx, [ebx + CODE_AT]
    lea     esp, [ebx + STACK_AT]
    call    edx
    mov     esp, [resume_sp]
    mov     edi, TOY(3) + STACK_AT - 64         ; no return address left behind
    xor     eax, eax
    mov     ecx, 32
    rep     stosd
    CHECK   "the code ran", dword [scratch], 0x600DC0DE
    mov     dword [scratch], 0
    invlpg  [ebx]
    dec     ebp
    jnz     .round
    mov     edi, TOY(3)         ; code makes bad entries: they might lead home
    xor     eax, eax
    xor     edx, edx
    call    fill_toy
    pop     ebp
    pop     ebx
    ret

; Position independent.  Pushes entries, pops them, rewrites an entry of the
; very table it runs from, and returns.
toy_code:
    push    eax
    push    eax
    pop     ecx
    pop     ecx
    mov     [ebx + 0x40], ecx
    xchg    [ebx + 0x50], ecx
    mov     edx, scratch
    mov     dword [edx], 0x600DC0DE
    ret
toy_code_end:

; Every kind of bad entry at both lower levels, read and written through.
bad_entries:
    push    ebx
    push    ebp
    xor     ebp, ebp
.bad:
    mov     ebx, 2              ; 1. as directory entries; 2. as leaf entries
.level:
    call    tame_tops
    mov     eax, [bad_low + ebp * 4]
    mov     edx, [bad_high + ebp * 4]
    mov     edi, TOY(4)
    call    fill_toy
    mov     edi, TOY(5)
    mov     eax, TOY(4) | P | W | U
    xor     edx, edx
    call    fill_toy
    xor     ecx, ecx
    call    top_entry
    mov     eax, TOY(4)
    cmp     ebx, 2
    je      .set
    mov     eax, TOY(5)
.set:
    or      eax, [wild_flags]
    mov     [edi], eax
    call    reload_cr3
    mov     ecx, 12
.touch:
    push    ecx
    call    wild_va
    mov     edi, eax
    and     edi, 0x003FFFFC
    or      edi, 1 << 30
    cmp     dword [entry_size], 8
    je      .go
    xor     edi, (1 << 30) ^ (64 << 20)
.go:
    call    touch
    pop     ecx
    dec     ecx
    jnz     .touch
    dec     ebx
    jnz     .level
    inc     ebp
    cmp     ebp, BAD_ENTRIES
    jb      .bad
    pop     ebp
    pop     ebx
    ret

[section .rodata]
    align 4
bad_low:
    dd TOY(6) | P | W | U               ; bit 51
    dd TOY(6) | P | W | U               ; bits 52-62
    dd TOY(6) | P | W | U               ; all high bits
    dd (8 << 20) | P | W | U | PS | 1 << 13     ; large and misaligned
    dd (8 << 20) | P | W | U | PS | 1 << 21
    dd RAM_BYTES | P | W | U            ; just beyond memory
    dd RAM_BYTES | P | W | U | PS
    dd 0x80000000 | P | W | U           ; far beyond
    dd 0xC0000000 | P | W | U | PS
    dd 0x40000000 | P | W | U           ; 5 GiB (1 GiB if entries are short)
    dd 0x40000000 | P | W | U | PS
    dd TOY(6) | W | U | PS              ; absent, and full of bits
BAD_ENTRIES equ ($ - bad_low) / 4
bad_high:
    dd 1 << 19, 0x7FF00000, 0xFFFFFFFF, 0, 0, 0, 0, 0, 0, 1, 1, 0xFFFFFFFF
__SECT__

; Top entries change without a load of CR3: toys, nothing, addresses nowhere.
; Whether the CPU sees it is its own affair.  PDPTEs lead to toys only, as a
; hypervisor may take one to nowhere for a shutdown; their reserved bits come
; last: a load of CR3 may then give #GP.
wild_top_entries:
    push    ebx
    push    ebp
    mov     ebp, 64
.round:
    call    random
    xor     edx, edx
    div     dword [wild_tops]
    mov     ecx, edx
    call    top_entry
    call    random
    mov     edx, eax
    shr     edx, 8
    and     edx, 15
    cmp     dword [wild_flags], P
    jne     .anywhere
    and     edx, 7              ; the toys among the bases
.anywhere:
    mov     edx, [wild_base + edx * 4]
    shr     eax, 12
    and     eax, 15 << 12
    or      eax, edx
    or      eax, [wild_flags]
    test    ebp, 3
    jnz     .store
    xor     eax, eax
.store:
    mov     [edi], eax
    mov     ebx, 10
.touch:
    call    wild_va
    mov     edi, eax
    call    touch
    dec     ebx
    jnz     .touch
    test    ebp, 7
    jnz     .next
    call    reload_cr3
.next:
    dec     ebp
    jnz     .round
    xor     ecx, ecx            ; reserved bits, and a CR3 that may not take them
    call    top_entry
    mov     eax, TOY(7) | P | 0x1E6
    mov     [edi], eax
    call    reload_cr3
    mov     edi, 1 << 30
    call    touch
    call    tame_tops
    call    reload_cr3
    pop     ebp
    pop     ebx
    ret

; The running root is a copy inside a toy that its own tables map: as a page
; table, as a directory, and as a page.  Low bits of CR3 vary.  A PDPT is copied
; to any 32 bytes of its frame instead: the A bit that a walk through the toy
; would set is reserved in a PDPTE.
toy_root:
    push    ebx
    push    ebp
    mov     ebp, 12
.round:
    test    ebp, 3
    jnz     .filled
    call    fill_toys
.filled:
    call    tame_tops
    mov     esi, HOME_ROOT
    mov     edi, ALT_ROOT
    mov     ecx, 1024
    rep     movsd
    mov     eax, ebp            ; PWT, PCD
    and     eax, 3
    shl     eax, 3
    or      eax, ALT_ROOT
    cmp     dword [wild_flags], P
    je      .pdpt
    cmp     dword [entry_size], 8
    jne     .load
    mov     esi, HOME_PDPT      ; 4-level: level 3 in a toy too, which is also a
    mov     edi, ALT_PDPT       ; directory below itself, as is level 4
    mov     ecx, 1024
    rep     movsd
    mov     dword [ALT_PDPT + 2 * 8], ALT_ROOT | P | W | U
    mov     dword [ALT_PDPT + 3 * 8], ALT_PDPT | P | W | U
    mov     dword [ALT_ROOT], ALT_PDPT | P | W | U
    jmp     .load
.pdpt:
    mov     esi, HOME_ROOT
    mov     edi, ebp
    shl     edi, 5
    add     edi, HOME_ROOT + 0x400
    mov     eax, edi
    mov     ecx, 8
    rep     movsd
.load:
    mov     cr3, eax
    mov     ebx, 20
.touch:
    call    wild_va
    mov     edi, eax
    call    look                ; stores might reach the entries of home
    dec     ebx
    jnz     .touch
    mov     eax, HOME_ROOT
    mov     cr3, eax
    dec     ebp
    jnz     .round
    cmp     dword [wild_flags], P
    jne     .done
    mov     edi, HOME_ROOT + 0x400
    mov     ecx, 0x200 / 4
    xor     eax, eax
    rep     stosd
.done:
    xor     eax, eax            ; their entries lead home: away with them
    xor     edx, edx
    mov     edi, ALT_ROOT
    call    fill_toy
    mov     edi, ALT_PDPT
    call    fill_toy
    pop     ebp
    pop     ebx
    ret

; look(edi = address): read and INVLPG only
look:
    GUARD   .end
    mov     eax, [edi]
    invlpg  [edi]
    mov     al, [edi + 1]
.end:
    UNGUARD
    ret

; All toys mapped as pages, in a row, by toy 8 as table below toy 9; toy 8 and 9
; are among them.  Every toy is written through that row, and the tables are
; then used.
aliases:
    push    ebx
    push    ebp
    mov     ebp, 6
.round:
    call    tame_tops
    mov     edi, TOY(9)
    mov     eax, TOY(8) | P | W | U
    xor     edx, edx
    call    fill_toy
    mov     edi, TOY(8)
    xor     eax, eax
    call    fill_toy
    xor     ecx, ecx
.map:
    mov     edi, ecx
    imul    edi, [entry_size]
    mov     eax, ecx
    shl     eax, 12
    add     eax, TOY_START | P | W | U
    mov     [TOY(8) + edi], eax
    inc     ecx
    cmp     ecx, TOYS
    jb      .map
    xor     ecx, ecx
    call    top_entry
    mov     eax, TOY(9)
    cmp     dword [entry_size], 8
    je      .set
    mov     eax, TOY(8)         ; top entries are directory entries
.set:
    or      eax, [wild_flags]
    mov     [edi], eax
    call    reload_cr3
    mov     ebx, 160
.store:
    call    random
    and     eax, 0xFFFC         ; any dword of any toy
    lea     edi, [eax + (1 << 30)]
    cmp     dword [entry_size], 8
    je      .go
    lea     edi, [eax + (64 << 20)]
.go:
    call    touch
    test    ebx, 7
    jnz     .next
    call    wild_va
    mov     edi, eax
    call    touch
.next:
    dec     ebx
    jnz     .store
    dec     ebp
    jnz     .round
    call    fill_toys
    pop     ebp
    pop     ebx
    ret

; random_war(steps): edits of toys in many ways, accesses, and a toggle now and
; then; INVLPG only by chance.
random_war:
    push    ebx
    push    ebp
    mov     ebp, edi
    mov     dword [survived], 0
.step:
    call    random
    and     eax, 3
    jz      .access
    call    edit_toy
.access:
    call    wild_va
    mov     edi, eax
    call    touch
    call    touch
    test    ebp, 15
    jnz     .next
    call    toggle
.next:
    dec     ebp
    jnz     .step
    mov     eax, [survived]
    shr     eax, 4              ; some hundred faults at least
    cmp     eax, 1
    setae   al
    movzx   eax, al
    CHECK   "faults stepped over", eax, 1
    pop     ebp
    pop     ebx
    ret

; edit_toy(): one random entry of one random toy, by one of eight stores
edit_toy:
    push    ebx
    call    random
    and     eax, TOYS * 4096 - 1
    and     eax, ~7
    lea     edi, [eax + TOY_START]
    call    wild_entry
    mov     ebx, eax
    call    random
    and     eax, 7
    jmp     [edit_kind + eax * 4]
.both:
    mov     [edi], ebx
    mov     [edi + 4], edx
    jmp     .done
.high:
    cmp     dword [entry_size], 8
    jne     .low
    mov     [edi + 4], edx
    jmp     .done
.low:
    mov     [edi], ebx
    jmp     .done
.flags:
    mov     byte [edi], bl
    jmp     .done
.exchange:
    xchg    [edi], ebx
    jmp     .done
.absent:
    lock    btr dword [edi], 0
    jmp     .done
.across:                        ; two entries: a high half and a low one
    and     edi, ~4095
    mov     dword [edi + 0x7F6], 0xFFFF4000
    jmp     .done
.zeros:
    and     edi, ~63
    xor     eax, eax
    mov     ecx, 16
    rep     stosd
.done:
    pop     ebx
    ret

[section .rodata]
    align 4
edit_kind:
    dd edit_toy.both, edit_toy.high, edit_toy.low, edit_toy.flags
    dd edit_toy.exchange, edit_toy.absent, edit_toy.across, edit_toy.zeros
__SECT__

; toggle(): one control bit at random, or CR3, or paging off and on
toggle:
    call    random
    and     eax, 7
    jmp     [toggle_kind + eax * 4]
.write_protect:
    mov     eax, cr0
    xor     eax, CR0_WP
    mov     cr0, eax
    ret
.no_execute:
    cmp     dword [entry_size], 8
    jne     .reload
    mov     ecx, MSR_EFER
    rdmsr
    xor     eax, EFER_NXE
    wrmsr
.reload:
    jmp     reload_cr3
.cr4_bit:
    call    random
    mov     ecx, eax
    and     ecx, 31
    mov     eax, 1
    shl     eax, cl
    and     eax, [cr4_toys]
    jz      .cr4_bit
    mov     edx, cr4
    xor     edx, eax
    mov     cr4, edx
    ret
.paging:
    mov     eax, cr0
    btr     eax, 31
    mov     cr0, eax
    mov     edi, TOY(10)        ; a toy is plain memory for a moment
    call    wild_entry
    call    fill_toy
    mov     eax, cr0
    bts     eax, 31
    mov     cr0, eax
    ret
.top:
    call    tame_tops
    jmp     reload_cr3

[section .rodata]
    align 4
toggle_kind:
    dd toggle.write_protect, toggle.write_protect, toggle.no_execute
    dd toggle.cr4_bit, toggle.cr4_bit, toggle.paging, toggle.reload, toggle.top
__SECT__

; -------------------------------------------------- traps of the last stage

; In long mode gates are 64-bit even if the code is not.  Only the guard is
; served: this stage expects every fault.
idt64_setup:
    xor     ecx, ecx
.gate:
    mov     eax, [trap64_entry + ecx * 4]
    mov     edi, ecx
    shl     edi, 4
    add     edi, idt64
    mov     [edi], ax
    mov     word [edi + 2], SEL_CODE64
    mov     word [edi + 4], 0x8E00
    shr     eax, 16
    mov     [edi + 6], ax
    inc     ecx
    cmp     ecx, 32
    jb      .gate
    lidt    [idtr64]
    ret

[section .data]
idtr64:
    dw 32 * 16 - 1
    dd idt64
__SECT__

bits 64
%macro TRAP64_STUB 1
  trap64_%1:
    %if %1 != 8 && %1 != 10 && %1 != 11 && %1 != 12 && %1 != 13 && %1 != 14 \
        && %1 != 17 && %1 != 21 && %1 != 29 && %1 != 30
    push    0
    %endif
    push    %1
    jmp     trap64
%endmacro
%assign vector 0
%rep 32
  TRAP64_STUB vector
  %assign vector vector + 1
%endrep

[section .rodata]
    align 4
trap64_entry:
%assign vector 0
%rep 32
  dd trap64_ %+ vector
  %assign vector vector + 1
%endrep
__SECT__

trap64:
    push    rax
    mov     eax, [rsp + 16]     ; error code
    mov     [fault], eax
    mov     eax, [rsp + 8]
    mov     [fault_vector], eax
    mov     eax, [resume_ip]
    test    eax, eax
    jz      .unexpected
    mov     [rsp + 24], rax
    pop     rax
    add     rsp, 16
    iretq
.unexpected:
    mov     al, EXIT_FAIL
    out     EXIT_PORT, al
    cli
    hlt
bits 32

[section .rodata]
    align 4
image_constants_end:
__SECT__

IMAGE_END
