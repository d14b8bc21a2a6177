# SPDX-License-Identifier: GPL-2.0-only
"""Small guests on the whole machine: how runs end, and what the tours of guests/ do not do."""

from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from assembled import assembled

from shadowmmu.machine.loader import Guest, load_bytes
from shadowmmu.machine.machine import Machine
from shadowmmu.machine.result import GuestResult, Reason
from shadowmmu.machine.seam import Exit

ORIGIN = 0x4000


class Program(NamedTuple):
    start: str
    code: str
    """The assembled bytes, in hex."""
    source: str


PROGRAMS = {
    "hello": Program(
        "protected",
        "66baf803be17400000ac84c07403eeebf8b010e6f4ebfe68656c6c6f0a776f726c6400",
        """
            mov dx, 0x3f8
            mov esi, text
        next:
            lodsb
            test al, al
            jz done
            out dx, al
            jmp next
        done:
            mov al, 0x10
            out 0xf4, al
            jmp $
        text: db "hello", 10, "world", 0
        """,
    ),
    "spin": Program(
        "protected",
        "ebfe",
        """
        jmp $
        """,
    ),
    "halt": Program(
        "protected",
        "f4",
        """
        hlt
        """,
    ),
    "triple": Program(
        "protected",
        "0f0b",
        """
        ud2
        """,
    ),
    "unemulated": Program(
        "protected",
        "0fae0500000040",
        """
        fxsave [0x40000000]
        """,
    ),
    "from_nowhere": Program(
        "protected",
        "b800000040ffe0",
        """
        mov eax, 0x40000000
                jmp eax
        """,
    ),
    "step": Program(
        "real",
        ("31c08ed88ed0bc0070c70604003440c7060600000031ed9c67810c2400019d900fa2a100059c67812424fffe9d89e8040ae6f4f445cf"),
        """
            xor ax, ax
            mov ds, ax
            mov ss, ax
            mov sp, 0x7000
            mov word [4], trap          ; #DB
            mov word [6], 0
            xor bp, bp
            pushf
            or word [esp], 0x100
            popf
            nop                         ; 1: the CPU's own trap
            cpuid                       ; 2: done by the machine, which must trap too
            mov ax, [0x500]             ; 3
            pushf                       ; 4
            and word [esp], 0xfeff      ; 5
            popf                        ; 6
            mov ax, bp
            add al, 10                  ; 0x10
            out 0xf4, al
            hlt
        trap:
            inc bp
            iret
        """,
    ),
    "illegal": Program(
        "real",
        (
            "31c08ed88ed0bc0070c70634009140c70636000000c70618009140c7061a000000c7060c009940c7060e00000031edbb0300"
            "66b8000000800f22c066b8000000200f22c066b8002000000f22e066b8000002000f22e0bb020066b9800000c066b8001000"
            "006631d20f3066b9785634120f3266b97702000066b8020000000f30bb03000f01d80f01d9cc89e80407e6f4f4455589e501"
            "5e025dcf"
        ),
        """
            xor ax, ax
            mov ds, ax
            mov ss, ax
            mov sp, 0x7000
            mov word [13 * 4], fault
            mov word [13 * 4 + 2], 0
            mov word [6 * 4], fault
            mov word [6 * 4 + 2], 0
            mov word [3 * 4], trap
            mov word [3 * 4 + 2], 0
            xor bp, bp
            mov bx, 3
            mov eax, 0x80000000         ; PG without PE
            mov cr0, eax
            mov eax, 0x20000000         ; NW without CD
            mov cr0, eax
            mov eax, 1 << 13            ; VMXE: not offered
            mov cr4, eax
            mov eax, 1 << 17            ; PCIDE: not offered
            mov cr4, eax
            mov bx, 2
            mov ecx, 0xc0000080
            mov eax, 1 << 12            ; EFER.SVME: not offered
            xor edx, edx
            wrmsr
            mov ecx, 0x12345678         ; no such register
            rdmsr
            mov ecx, 0x277
            mov eax, 2                  ; a PAT type that is reserved
            wrmsr
            mov bx, 3
            vmrun                       ; #UD
            vmmcall                     ; #UD
            int3
            mov ax, bp
            add al, 7                   ; 0x10
            out 0xf4, al
            hlt
        fault:
            inc bp
            push bp
            mov bp, sp
            add [bp + 2], bx            ; go on behind the instruction
            pop bp
        trap:
            iret
        """,
    ),
    "denied": Program(
        "protected",
        (
            "0f0115b0400000ea0e400000080066b810008ed066b823008ed866b828000f00d80f011db6400000bc007000006a23680060"
            "00006a026a1b683e400000cfb06166ba8000eeec66baf500bb34120000eebb78560000ebfe833c24007517817c24044f4000"
            "00750d81fb341200007505b010e6f4f4b011e6f4f4909090909090900000000000000000ffff0000009bcf00ffff00000093"
            "cf00ffff000000fbcf00ffff000000f3cf008700c840008900002f00804000006f00584000009090909057400800008e0000"
            "0000000000500000100000000000000000000000000000000000000000000000000000000000000000000000000000000000"
            "0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
            "00006800000000000000000000000000000000000000000000000000000000000000ffff"
        ),
        """
            lgdt [gdtr]
            jmp 0x08:flat
        flat:
            mov ax, 0x10
            mov ss, ax
            mov ax, 0x23
            mov ds, ax
            mov ax, 0x28
            ltr ax
            lidt [idtr]
            mov esp, 0x7000
            push 0x23
            push 0x6000
            push 2                      ; IOPL 0
            push 0x1b
            push user
            iret
        user:
            mov al, 'a'
            mov dx, 0x80                ; allowed by the map
            out dx, al
            in al, dx
            mov dx, 0xf5                ; denied
            mov ebx, 0x1234
            out dx, al                  ; goes on in the #GP handler
            mov ebx, 0x5678
            jmp $
        fault:
            cmp dword [esp], 0          ; error code
            jne bad
            cmp dword [esp + 4], user + 17
            jne bad
            cmp ebx, 0x1234
            jne bad
            mov al, 0x10
            out 0xf4, al
            hlt
        bad:
            mov al, 0x11
            out 0xf4, al
            hlt
            align 8
        gdt:
            dq 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00cffb000000ffff, 0x00cff3000000ffff
            dw 0x67 + 32, tss, 0x8900, 0
        gdtr: dw 47
            dd gdt
        idtr: dw 13 * 8 + 7
            dd gate - 13 * 8
            align 8
        gate: dw fault, 0x08, 0x8e00, 0
        tss: dd 0, 0x5000, 0x10
            times 0x66 - 12 db 0
            dw 0x68
            times 0x1e db 0             ; ports 0-0xef
            db 0xff, 0xff               ; ports 0xf0-0xff
        """,
    ),
    "two": Program(
        "protected",
        (
            "b8010000000fa2c1eb187525f390833d008000000175f5c7050080000002000000f390833d008000000375f5b010e6f4f4c7"
            "050080000001000000f390833d008000000275f5c7050080000003000000f4"
        ),
        """
            mov eax, 1
            cpuid
            shr ebx, 24
            jnz second
        first:
            pause
            cmp dword [0x8000], 1
            jne first
            mov dword [0x8000], 2
        until:
            pause
            cmp dword [0x8000], 3
            jne until
            mov al, 0x10
            out 0xf4, al
            hlt
        second:
            mov dword [0x8000], 1
        other:
            pause
            cmp dword [0x8000], 2
            jne other
            mov dword [0x8000], 3
            hlt
        """,
    ),
    "clock": Program(
        "protected",
        "0f3189c3b9320000000f3139d8760989c3e2f6b010e6f4f4b011e6f4f4",
        """
            rdtsc
            mov ebx, eax
            mov ecx, 50
        more:
            rdtsc
            cmp eax, ebx
            jbe bad
            mov ebx, eax
            loop more
            mov al, 0x10
            out 0xf4, al
            hlt
        bad:
            mov al, 0x11
            out 0xf4, al
            hlt
        """,
    ),
    "code in a table": Program(
        "protected",
        (
            "c7050000010007100100b900010000b807000000bf00100100ab0500100000e2f8c70500080100b800000066c70504080100"
            "00c3b8000001000f22d80f20c00d000000800f22c0bc00800000be2800000089f0a201080100e8a3c7000025ff00000039f0"
            "75150f013d000004008b1d000004004e75dbb010e6f4f4b011e6f4f4"
        ),
        """
            mov dword [0x10000], 0x11007    ; a directory; its upper half is code
            mov ecx, 256
            mov eax, 7
            mov edi, 0x11000
        fill:
            stosd
            add eax, 0x1000
            loop fill
            mov dword [0x10800], 0xb8       ; mov eax, imm32
            mov word [0x10804], 0xc300      ; ret
            mov eax, 0x10000
            mov cr3, eax
            mov eax, cr0
            or eax, 0x80000000
            mov cr0, eax
            mov esp, 0x8000
            mov esi, 40
        more:
            mov eax, esi
            mov [0x10801], al               ; a store to a shadowed table, and to code
            call 0x10800
            and eax, 0xff
            cmp eax, esi
            jne bad
            invlpg [0x40000]
            mov ebx, [0x40000]              ; have the table shadowed again
            dec esi
            jnz more
            mov al, 0x10
            out 0xf4, al
            hlt
        bad:
            mov al, 0x11
            out 0xf4, al
            hlt
        """,
    ),
}


def machine(name: str, **options: object) -> Machine:
    program = PROGRAMS[name]
    guest = Guest(name=name, image=name, format="flat", memory_mib=2, load=ORIGIN, start=program.start, vcpus=2 if name == "two" else 1)
    return Machine(guest, loaded=load_bytes(guest, bytes.fromhex(program.code)), **options)


def run(name: str) -> GuestResult:
    return machine(name).run(max_exits=5000, max_quiet=10_000_000)


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_bytes_are_those_of_the_source(name: str, tmp_path: Path) -> None:
    program, source = PROGRAMS[name], tmp_path / "x.asm"
    source.write_text(f"bits {32 if program.start == 'protected' else 16}\norg {ORIGIN:#x}\n{program.source}")
    assert assembled(source, tmp_path).hex() == program.code


def test_output_is_streamed_by_lines() -> None:
    lines: list[str] = []
    result = machine("hello", on_output=lines.append).run()
    assert lines == ["hello\n", "world"]
    assert (result.output, result.reason, result.passed) == ("hello\nworld", Reason.PASSED, True)


def test_a_last_line_that_is_not_expected_is_a_failure() -> None:
    m = machine("hello")
    m.guest = Guest(name="hello", image="hello", expect="DONE")
    result = m.run()
    assert (result.reason, result.detail) == (Reason.FAILED, "last line is 'world', not 'DONE'")


@pytest.mark.parametrize(
    ("name", "reason", "detail"),
    [
        ("spin", Reason.SPINNING, "10,000,000 instructions without an exit, near RIP 0x4000"),
        ("halt", Reason.HALTED, "HLT at RIP 0x4000"),
        ("triple", Reason.TRIPLE_FAULT, "#GP during the delivery of a double fault"),
        ("unemulated", Reason.UNEMULATED, "RIP 0x4000: 0f ae 05 00 00 00 40"),
        ("from_nowhere", Reason.UNEMULATED, "RIP 0x40000000"),
    ],
)
def test_how_runs_end(name: str, reason: Reason, detail: str) -> None:
    result = run(name)
    assert result.reason is reason
    assert detail in result.detail
    assert not result.passed


@pytest.mark.parametrize("name", ["illegal", "denied", "clock", "two", "code in a table"])
def test_guests_that_judge_themselves(name: str) -> None:
    assert run(name).reason is Reason.PASSED


def test_single_steps_trap_after_what_the_machine_does_too() -> None:
    result = run("step")
    assert result.reason is Reason.PASSED
    assert result.injected == {"#DB": 6}


def test_the_exit_limit_can_be_raised_and_the_run_goes_on() -> None:
    m = machine("clock")
    first = m.run(max_exits=10)
    assert (first.reason, first.total_exits) == (Reason.EXIT_LIMIT, 10)
    assert m.run().passed


def test_a_halted_machine_stays_halted() -> None:
    m = machine("halt")
    assert [m.run().reason, m.run().reason] == [Reason.HALTED, Reason.HALTED]


def test_runs_repeat_exactly() -> None:
    first, *others = (msgspec.structs.replace(machine("two").run(), host_memory=0) for _ in range(4))
    assert others == [first] * 3


def test_hooks_see_every_exit() -> None:
    seen: list[str] = []
    audits: list[int] = []

    def on_exit(m: Machine, exit_: Exit) -> None:
        seen.append(exit_.kind.value)
        assert m.exits == len(seen)

    result = machine("clock", on_exit=on_exit, audit=lambda vm: audits.append(vm.generation)).run()
    assert len(seen) == len(audits) == result.total_exits
    assert seen.count("RDTSC") == 51


def test_what_an_audit_raises_ends_the_run() -> None:
    def audit(_vm: object) -> None:
        raise ArithmeticError("violated")

    with pytest.raises(ArithmeticError, match="violated"):
        machine("clock", audit=audit).run()
