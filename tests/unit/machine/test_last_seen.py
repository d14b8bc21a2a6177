# SPDX-License-Identifier: GPL-2.0-only
"""What is told of a guest that fails: where it was, by the names of its ELF image, its last faults, what it asked for in vain."""

import io
import struct
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from shadowmmu.border.limits import NAME
from shadowmmu.machine.last_seen import FAULTS
from shadowmmu.machine.loader import Guest, load_bytes, read_guest
from shadowmmu.machine.machine import Machine
from shadowmmu.machine.result import Reason
from shadowmmu.machine.symbols import Symbols
from shadowmmu.machine.unclaimed import KEPT, Unclaimed
from shadowmmu.runs.guest_run import GuestRun
from shadowmmu.view.draw_report import draw_report

# --- names of places


def elf(*symbols: tuple[str, int, int], bits: int = 32) -> bytes:
    """An ELF of one segment, linked at 0xC0000000 and loaded at 0x100000, with these (name, address, size) as functions."""
    names = b"\0" + b"".join(name.encode() + b"\0" for name, _, _ in symbols)
    table, at = b"", 1
    for name, address, size in (("", 0, 0), *symbols):
        kind, where = (2, 1) if name else (0, 0)
        index = at if name else 0
        at += len(name) + 1 if name else 0
        if bits == 32:
            table += struct.pack("<IIIBBH", index, address, size, kind, 0, where)
        else:
            table += struct.pack("<IBBHQQ", index, kind, 0, where, address, size)
    header, section, entry = (52, 40, 16) if bits == 32 else (64, 64, 24)
    program = (
        struct.pack("<8I", 1, 0, 0xC0000000, 0x100000, 16, 0x1000, 7, 4)
        if bits == 32
        else struct.pack("<2I6Q", 1, 7, 0, 0xC0000000, 0x100000, 16, 0x1000, 4)
    )
    data = header + len(program)
    sections = b"".join(
        struct.pack("<10I" if bits == 32 else "<IIQQQQIIQQ", *fields)
        for fields in (
            (0,) * 10,
            (0, 2, 0, 0, data, len(table), 2, 1, 4, entry),
            (0, 3, 0, 0, data + len(table), len(names), 0, 0, 1, 0),
        )
    )
    start = struct.pack("<4sBBB9x", b"\x7fELF", 1 if bits == 32 else 2, 1, 1)
    shape = "<HHIIIIIHHHHHH" if bits == 32 else "<HHIQQQIHHHHHH"
    machine = 3 if bits == 32 else 62
    where = data + len(table) + len(names)
    start += struct.pack(shape, 2, machine, 1, 0xC0000000, header, where, 0, header, len(program), 1, section, 3, 2)
    return start + program + table + names + sections


def with_section(image: bytes, number: int, **changed: int) -> bytes:
    """A 64-bit image, fields of one of its section headers changed."""
    names = ("name", "type", "flags", "addr", "offset", "size", "link", "info", "addralign", "entsize")
    at = struct.unpack_from("<Q", image, 40)[0] + 64 * number
    fields = dict(zip(names, struct.unpack_from("<IIQQQQIIQQ", image, at), strict=True)) | changed
    return image[:at] + struct.pack("<IIQQQQIIQQ", *fields.values()) + image[at + 64 :]


NOTHING_IN_FILE, PACKED = 8, 1 << 11  # SHT_NOBITS, SHF_COMPRESSED


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize(
    "changed",
    [
        {"type": NOTHING_IN_FILE, "size": 1 << 40}, {"size": 1 << 40}, {"size": (1 << 64) - 1}, {"flags": PACKED, "size": 1 << 40},
        {"flags": PACKED}, {"link": 1}, {"link": 7}, {"link": (1 << 32) - 1}, {"entsize": 0}, {"offset": (1 << 64) - 1},
        {"type": 2}, {"type": 6}, {"type": 11}, {"name": (1 << 32) - 1},
    ],
    ids=str,
)  # fmt: skip
def test_sections_that_promise_what_is_not_there(number: int, changed: dict[str, int]) -> None:
    """No more is made of them than the file has, and nothing is raised."""
    tracemalloc.start()
    try:
        Symbols(with_section(elf(("main", 0xC0000100, 0x20), bits=64), number, **changed)).name(0xC0000105)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_names_that_do_not_end_are_cut() -> None:
    long = "a" * 1_000_000
    assert Symbols(elf((long, 0xC0000100, 0x20))).name(0xC0000101) == "a" * NAME + "+0x1"


@pytest.mark.parametrize("bits", [32, 64])
def test_places_have_the_names_of_the_image(bits: int) -> None:
    symbols = Symbols(elf(("start", 0xC0000010, 0), ("main", 0xC0000100, 0x20), bits=bits))
    assert symbols.name(0xC0000010) == "start"
    assert symbols.name(0xC0000105) == "main+0x5"
    assert symbols.name(0x100105) == "main+0x5", "before paging: where it is loaded"
    assert symbols.name(0xC0000120) == "", "behind the end of main"
    assert symbols.name(0x10) == symbols.name(0xD0000000) == ""


def test_control_characters_of_a_name_are_not_shown() -> None:
    assert Symbols(elf(("a\x1b]0;b", 0xC0000010, 8))).name(0xC0000010) == "a?]0;b"


@settings(max_examples=300)
@given(st.data())
def test_an_image_that_is_damaged_has_no_names_or_some(data: st.DataObject) -> None:
    image = bytearray(elf(("start", 0xC0000010, 0), ("main", 0xC0000100, 0x20), bits=data.draw(st.sampled_from((32, 64)))))
    for _ in range(data.draw(st.integers(1, 4))):
        image[data.draw(st.integers(0, len(image) - 1))] = data.draw(st.sampled_from((0, 1, 0x7F, 0x80, 0xFF)))
    Symbols(bytes(image[: data.draw(st.integers(0, len(image)))])).name(0xC0000105)


# --- what nothing answers


def test_the_last_things_of_each_kind_are_kept() -> None:
    unclaimed = Unclaimed()
    for port in (*range(KEPT + 2), 3, 3):
        unclaimed.port(port, 1, write=False)
    ports = unclaimed.last()["ports"]
    assert len(ports) == KEPT and list(ports)[-1] == "in 0x3, 1 byte" and ports["in 0x3, 1 byte"] == 3
    assert "in 0x0, 1 byte" not in ports


def _run(code: str, **fields: object) -> tuple[Machine, Reason]:
    guest = Guest(name="x", image="x", format="flat", memory_mib=2, **fields)  # type: ignore[arg-type]
    machine = Machine(guest, loaded=load_bytes(guest, bytes.fromhex(code)))
    return machine, machine.run().reason


def test_a_triple_fault_tells_what_led_to_it() -> None:
    # in al, 0x64; out 0x60, ax; mov eax, [0xfee00030]; mov [0xfee000b0], al; mov eax, 0x77; cpuid; mov ecx, 0x1234; rdmsr
    machine, reason = _run("e464 66e760 a13000e0fe a2b000e0fe b877000000 0fa2 b934120000 0f32", start="protected")
    last = machine.last_seen(b"")
    assert reason is Reason.TRIPLE_FAULT
    assert last.unclaimed == {
        "MMIO": {"read 0xfee00030, 4 bytes": 1, "write 0xfee000b0, 1 byte": 1},
        "ports": {"in 0x64, 1 byte": 1, "out 0x60, 2 bytes": 1},
        "MSRs": {"RDMSR 0x1234": 1},
        "CPUID leaves": {"0x77": 1},
    }
    assert [fault.exception for fault in last.faults[0]] == ["#GP error code 0x0", "#DF error code 0x0"]
    assert last.vcpus == [last.faults[0][0].place]
    assert (last.vcpus[0].rip, last.vcpus[0].mode) == (f"{0x7C00 + 27:#x}", "32-bit code, ring 0")


def test_the_faults_of_a_guest_that_goes_on_are_its_last_ones() -> None:
    """Real mode: a handler of #UD that skips it, again and again."""
    # mov word [0x18], 0x7c15; mov word [0x1a], 0; mov cx, 20; again: ud2; loop again; hlt; handler: pop ax; add ax, 2; push ax; iret
    machine, reason = _run("c7061800157c c7061a000000 b91400 0f0b e2fc f4 90 58 050200 50 cf")
    last = machine.last_seen(b"")
    assert (reason, len(last.faults[0])) == (Reason.HALTED, FAULTS)
    assert {fault.exception for fault in last.faults[0]} == {"#UD"}
    assert last.vcpus[0].mode == "real mode"


# --- a tick only for the end that is expected


@pytest.mark.parametrize(
    ("toml", "said", "expected"),
    [
        ("", "", False),
        ('end = "halt"\n', "", True),
        ('end = "halt"\nexpect = "DONE"\n', "x", False),
        ('end = "halt"\nexpect = "x"\n', "x", True),
        ('expect = "x"\n', "x", False),
    ],
)
def test_a_guest_that_halts_is_as_expected_if_its_description_says_so(tmp_path: Path, toml: str, said: str, expected: bool) -> None:
    (tmp_path / "h.toml").write_text(f'name = "h"\nimage = "h.img"\nformat = "flat"\nmemory_mib = 2\n{toml}')
    code = b"".join(b"\xb0" + bytes((c,)) + b"\xe6\xe9" for c in said.encode())  # mov al, c; out 0xe9, al
    (tmp_path / "h.img").write_bytes(code + b"\xf4")
    report = GuestRun(read_guest(tmp_path / "h.toml"), "h").run()
    assert report.result is not None
    assert report.as_expected is expected
    assert report.result.reason is (Reason.FAILED if "halt" in toml and not expected else Reason.HALTED)


def test_people_are_told(tmp_path: Path) -> None:
    """Where it was, its faults and what was not there, below a verdict that is no tick."""
    (tmp_path / "h.toml").write_text('name = "h"\nimage = "h.img"\nformat = "flat"\nmemory_mib = 2\nstart = "protected"\n')
    (tmp_path / "h.img").write_bytes(bytes.fromhex("e464 b934120000 0f32"))  # in al, 0x64; mov ecx, 0x1234; rdmsr
    console = Console(record=True, width=120, file=io.StringIO())
    console.print(draw_report(GuestRun(read_guest(tmp_path / "h.toml"), "h").run(), 1.0))
    text = console.export_text()
    assert "✘ triple fault" in text
    assert "vCPU 0 at       0x7c07, 32-bit code, ring 0" in text
    assert "was given     #GP error code 0x0, in 0x7c07, 32-bit code, ring 0" in text
    assert "no such MSRs    RDMSR 0x1234" in text and "no such ports   in 0x64, 1 byte" in text
