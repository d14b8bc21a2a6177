# SPDX-License-Identifier: GPL-2.0-only
"""The capture kit without QEMU: its guests, the archives it packs, what it decodes, and how it complains."""

import io
import json
import os
import re
import struct
import subprocess
import sys
import tarfile
from pathlib import Path

import msgspec
import pytest
from elftools.elf.elffile import ELFFile
from iced_x86 import Code, Decoder, Mnemonic

from shadowmmu.border.files import gunzip
from shadowmmu.captures import capture as packed
from shadowmmu.captures import find as shipped
from shadowmmu.captures import kit as reader
from shadowmmu.trace import events as e

SOURCE = Path(__file__).resolve().parents[3] / "capture"
sys.path.insert(0, str(SOURCE))

import capture as driver  # noqa: E402
from kit import initramfs, watchdog  # noqa: E402
from kit import run as machine  # noqa: E402
from kit.anew import anew, host_in  # noqa: E402
from kit.decode import decode  # noqa: E402
from kit.errors import KitError  # noqa: E402
from kit.kernels import KERNELS, kernel_of_release  # noqa: E402
from kit.normal import Normaliser  # noqa: E402
from kit.ringbuffer import role  # noqa: E402
from kit.sets import BY_SEED, FIXED, RUNS, guests_of  # noqa: E402
from kit.tools import TOOLS, tools  # noqa: E402

SPECIAL = SOURCE.parent / "tests/conformance/special_kernel"
SEEDS = range(2)
ANY = range(1 << 16)
DONE_BY = {
    "rd": {Mnemonic.MOV}, "wr": {Mnemonic.MOV, Mnemonic.ADD}, "call": {Mnemonic.CALL}, "invlpg": {Mnemonic.INVLPG}, "cr0": {Mnemonic.MOV},
    "cr3": {Mnemonic.MOV}, "cr4": {Mnemonic.MOV}, "wrmsr": {Mnemonic.WRMSR}, "vmrun": {Mnemonic.VMRUN}, "vmmcall": {Mnemonic.VMMCALL},
    "invlpga": {Mnemonic.INVLPGA}, "leave_user": {Mnemonic.INT}, "enter_user": {Mnemonic.PUSH}, "host": {Mnemonic.MOV}, "end": ANY,
}  # fmt: skip
"""What may be the instruction at each operation's rip; the end of L1 and of L2 are told in different ways."""


def saved(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def read_guest(folder, name):
    """A guest as the replay's reader takes it, and its image."""
    described = json.loads((folder / f"{name}.json").read_text())
    return reader._guest(described), [(part["gpa"], (folder / part["file"]).read_bytes()) for part in described["image"]]


@pytest.fixture(scope="module", params=[*FIXED, *BY_SEED])
def guest_set(request, tmp_path_factory):
    """All guests of a set, written."""
    folder = tmp_path_factory.mktemp(request.param)
    guests = guests_of(request.param, SEEDS)
    for guest in guests:
        guest.save(folder)
    return request.param, folder, guests


def test_guests_are_the_same_each_time(guest_set, tmp_path):
    name, folder, _ = guest_set
    for guest in guests_of(name, SEEDS):
        guest.save(tmp_path)
    assert saved(tmp_path) == saved(folder)


def test_operations_lie_where_the_list_says(guest_set):
    """The list is what replay works from: each rip holds the instruction of its operation."""
    _, folder, guests = guest_set
    for guest in guests:
        read, image = read_guest(folder, guest.name)
        for ops, bits in ((read.ops, guest.bits), (read.l2_ops, 32)):
            assert [op.i for op in ops] == list(range(len(ops)))
            for op in ops:
                gpa, data = next((gpa, data) for gpa, data in image if gpa <= op.rip < gpa + len(data))
                instruction = next(iter(Decoder(bits, data[op.rip - gpa :][:15], ip=op.rip)))
                kind = op.op.removeprefix("l2_")
                assert instruction.code != Code.INVALID and instruction.mnemonic in DONE_BY[kind], (guest.name, op)


def known_words():
    """The runner's."""
    commands = set((SOURCE / "runner.c").read_text().split('{ "')[1:])
    return {command.split('"')[0] for command in commands} | {"run"}


def test_scripts_name_what_the_runner_knows(guest_set):
    """Every word of every script is a command of runner.c, and every file it loads is there."""
    _, folder, guests = guest_set
    for guest in guests:
        lines = [line.split() for line in (folder / f"{guest.name}.kvs").read_text().splitlines()]
        assert {words[0] for words in lines} <= known_words()
        assert all((folder / words[2]).is_file() for words in lines if words[0] == "load")
        assert [words[0] for words in lines].count("run") == len(guest.script) + 1


@pytest.mark.parametrize("name", FIXED)
def test_guests_are_those_of_the_captures(name, tmp_path):
    """A guest that is captured here already is made anew to the byte: code, tables, registers, operations."""
    captured = {found.name: found for found in (*shipped.find(str(SPECIAL)), *shipped.find(None))}
    compared = 0
    for guest in guests_of(name, SEEDS):
        sets = (name, f"{name}_special", *(f"linux_6_12{host}" for host in ("", "_nested", "_nx", "_tdp0")))
        found = next((captured[where] for one in sets if (where := f"{one}/{guest.name}") in captured), None)
        if found is None:
            continue
        guest.save(tmp_path)
        read, image = read_guest(tmp_path, guest.name)
        original = found.load()
        assert image == original.image, guest.name
        assert (read.entry_state, read.memslots) == (original.guest.entry_state, original.guest.memslots)
        for ours, theirs in ((read.ops, original.guest.ops), (read.l2_ops, original.guest.l2_ops)):
            assert [without_note(op) for op in ours] == [without_note(op) for op in theirs], guest.name
        compared += 1
    assert compared == len(guests_of(name, SEEDS))


def without_note(op):
    return msgspec.structs.replace(op, note=None)


HOSTS = {
    "edges_nx": "npt=0 kvm=tdp_mmu=1 kvm=nx_huge_pages=force", "split_off": "npt=1 kvm=tdp_mmu=1 kvm=eager_page_split=0",
    "no_1g": "npt=0 kvm=tdp_mmu=1", "intel": "npt=0 kvm=tdp_mmu=1", "wild": "npt=0 kvm=tdp_mmu=1", "two_roots": "npt=0 kvm=tdp_mmu=1",
    "image": "npt=0 kvm=tdp_mmu=1", "no_mmio_caching": "npt=0 kvm=tdp_mmu=1 kvm=mmio_caching=0", "edges_nested_tdp0": "npt=1 kvm=tdp_mmu=0",
    "resched": "npt=0 kvm=tdp_mmu=1", "linux_6_12": "npt=0 kvm=tdp_mmu=1", "linux_6_12_nested": "npt=1 kvm=tdp_mmu=1",
}  # fmt: skip
LACKING = {"no_1g": "nofeature 80000001 edx 26", "intel": "vendor GenuineIntel", "wild": "physbits 36"}


@pytest.mark.parametrize("name", HOSTS)
def test_guests_of_captures_are_made_anew(name, tmp_path):
    """To the byte, for the host that they were captured on, with what their CPU lacked, and in words that the runner knows."""
    made = anew((name,))
    made.save(tmp_path)
    assert made.name == f"{name}_anew" and host_in(tmp_path) == made.host and made.host.arguments == HOSTS[name]
    for found in shipped.find(name):
        original = found.load()
        read, image = read_guest(tmp_path, found.guest)
        assert image == original.image and read.ops == original.guest.ops and read.l2_ops == original.guest.l2_ops
        assert (read.entry_state, read.memslots) == (original.guest.entry_state, original.guest.memslots)
        lines = (tmp_path / f"{found.guest}.kvs").read_text().splitlines()
        assert lines.count("run") == len(original.guest.host_script) + 1 and lines.count("vcpu") == original.vcpus
        assert LACKING.get(name, "physbits 40") in lines and ("find" in lines) == (name == "image")
        assert ("noquirks 80" in lines) == (original.setup.quirks_off == 0x80)
        assert ("busy" in lines) == (name == "resched")
        assert known_words() >= {line.split()[0] for line in lines}


def test_captures_of_two_hosts_are_not_made_anew_together(tmp_path, capsys):
    assert driver.main(["anew", "no_1g", "edges_nx", "--work", str(tmp_path)]) == 2
    assert "are of two hosts: name those of one set" in capsys.readouterr().err
    assert driver.main(["anew", "--work", str(tmp_path)]) == 2
    assert "no captures are named" in capsys.readouterr().err
    assert driver.main(["anew", "no_1g", "no_1g", "--work", str(tmp_path)]) == 2
    assert "more than one of the captures has a guest p64_nogb0" in capsys.readouterr().err
    assert driver.main(["anew", "no_such", "--work", str(tmp_path)]) == 2
    assert "no capture is named no_such" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_example_of_the_readme_makes_a_guest(tmp_path, monkeypatch):
    (example,) = re.findall(r"^```python\n(.*?)^```", (SOURCE / "README.md").read_text(), flags=re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})
    read, image = read_guest(tmp_path / "build/capture/6.1/guests/mine", "pae_mine")
    assert [op.op for op in read.ops][:3] == ["rd", "wr", "wr"] and read.ops[-1].op == "end" and image


def test_every_set_has_its_guests_beside_it():
    """The replay's reader finds guests in the folder whose name the captures' folder begins with."""
    for name, run in RUNS.items():
        assert name.startswith(run.guests) and (run.guests in FIXED or run.guests in BY_SEED)


def test_archive_holds_its_members(tmp_path):
    """The newc form, read by its own description: magic, 13 fields, name, content, each part padded to 4 bytes."""
    members = {"init": b"#!/bin/sh\n", "modules/kvm.ko": b"abcde", "guests/a.kvs": b""}
    initramfs.write_archive(tmp_path / "one", members)
    initramfs.write_archive(tmp_path / "two", members)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    data, at, read = initramfs.gzip.decompress((tmp_path / "one").read_bytes()), 0, {}
    while at < len(data):
        assert data[at : at + 6] == b"070701"
        fields = [int(data[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        name = data[at + 110 : at + 110 + fields[11] - 1].decode()
        at = at + 110 + fields[11] + 3 & ~3
        read[name] = (fields[1], data[at : at + fields[6]])
        at = at + fields[6] + 3 & ~3
    assert read.pop("TRAILER!!!") == (0, b"")
    assert list(read) == ["guests", "modules", *members]  # folders come before what they hold
    assert {name: content for name, (mode, content) in read.items() if mode == initramfs.FILE} == members


def test_runner_compiles_into_the_archive(tmp_path):
    """Linked statically: there is no C library where it runs."""
    folder = tmp_path / "packages"
    folder.mkdir()
    for name in ("vmlinuz", "busybox", *(f"{Path(module).name}.ko" for module in KERNELS["6.12"].modules)):
        (folder / name).write_bytes(b"x")
    initramfs.build(SOURCE, folder, KERNELS["6.12"], tmp_path / "initrd.gz")
    runner = (tmp_path / "runner").read_bytes()
    assert "PT_INTERP" not in [segment["p_type"] for segment in ELFFile(io.BytesIO(runner)).iter_segments()]
    assert runner in initramfs.gzip.decompress((tmp_path / "initrd.gz").read_bytes())


# --- decoding

LAYOUTS = {
    "ftrace.print": (5, ["field:unsigned long ip;\toffset:8;\tsize:8;\tsigned:0;", "field:char buf[];\toffset:16;\tsize:0;\tsigned:0;"]),
    "kv.mmu_page_fault_ret": (900, ["field:s32 ret;\toffset:8;\tsize:4;\tsigned:1;"]),
    "kvmmmu.kvm_mmu_unsync_page": (
        901,
        [
            "field:__u8 mmu_valid_gen;\toffset:8;\tsize:1;\tsigned:0;",
            "field:__u64 gfn;\toffset:16;\tsize:8;\tsigned:0;",
            "field:__u32 role;\toffset:24;\tsize:4;\tsigned:0;",
            "field:__u32 root_count;\toffset:28;\tsize:4;\tsigned:0;",
            "field:bool unsync;\toffset:32;\tsize:1;\tsigned:0;",
        ],
    ),
}
COMMON = "\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n"


def record(number, body, delta=1):
    """An event with its data: a 4-byte header, of which 5 bits are the length in words."""
    data = struct.pack("<HHI", number, 0, 0) + body
    data += bytes(-len(data) % 4)
    return struct.pack("<I", len(data) // 4 | delta << 5) + data


def page_of(time, *records):
    body = b"".join(records)
    return (struct.pack("<QQ", time, len(body)) + body).ljust(4096, b"\0")


@pytest.fixture
def raw_run(tmp_path):
    """What a run leaves: two pages of the ring buffer, and the files beside it."""
    raw = tmp_path / "6.1" / "raw" / "shadow"
    (raw / "format").mkdir(parents=True)
    for name, (number, fields) in LAYOUTS.items():
        text = f"name: {name.split('.')[1]}\nID: {number}\nformat:\n{COMMON}" + "".join(f"\t{field}\n" for field in fields)
        (raw / "format" / f"{name}.txt").write_text(text)
    marker = record(5, bytes(8) + b"H create vm\n\0")
    unsync = record(901, struct.pack("<B7xQIIB3x", 1, 0x19, 0x3711, 0, 1))
    extended = struct.pack("<II", 30 | 5 << 5, 1) + record(900, struct.pack("<i", -14))
    long_marker = b"G seq=1 op=0 " + b"x" * 120 + b"\0"
    by_length = struct.pack("<II", 7 << 5, 4 + 16 + len(long_marker) + -len(long_marker) % 4) + struct.pack("<HHI8x", 5, 0, 0)
    by_length += long_marker + bytes(-len(long_marker) % 4)
    padding = struct.pack("<II", 29, 0)
    (raw / "a.raw").write_bytes(page_of(1000, marker, unsync, extended) + page_of(9000, by_length, padding))
    (raw / "a.trace.txt").write_text("# tracer: nop\n" + "an event\n" * 4)
    (raw / "a.pfn.txt").write_text("19 5000 0\n1a 0 0\n")
    (raw / "a.spt.txt").write_text("DUMP seq=1 tag=before-op-0 root=7000 level=2\n L2 7000[001] = 8027\n   L1 8000[000] = 5000a25\n")
    (raw / "a.stats.txt").write_text("STATS seq=1 tag=final\n mmu_unsync=1\n vcpu0/pf_taken=2\n")
    (raw / "a.cpuid.txt").write_text("80000008.0 00003028 0 0 0\n")
    (raw / "kvm_params.txt").write_text("/sys/module/kvm/parameters/tdp_mmu=Y\n/sys/module/kvm_amd/parameters/npt=N\n")
    (raw / "cpuinfo.txt").write_text("flags : fpu\naddress sizes\t: 40 bits physical, 48 bits virtual\n")
    for name in ("uname", "cmdline"):
        (raw / f"{name}.txt").write_text("Linux host 6.1.0-50-amd64\n")
    (raw / "roots.txt").write_text("legacy\n")
    return raw


def test_decoded_run_is_what_the_replay_reads(raw_run, tmp_path):
    target = tmp_path / "captures" / "shadow"
    assert decode(raw_run, target) == {"a": 4}
    guest = guests_of("shadow", SEEDS)[0]
    guest.name = "a"
    guest.save(tmp_path / "guests" / "shadow")
    read = reader.read_capture(target, "a")
    marker, unsync, returned, long_marker = read.events
    assert marker == e.Marker(text="H create vm") and long_marker.text.startswith("G seq=1 op=0 xxx")
    assert (unsync.gfn, unsync.role, unsync.unsync) == (0x19, 0x3711, True)
    assert returned.ret == -14
    assert read.frames == [(0, 0x19, 0x5000, 1)]
    assert read.dumps[0].entries == [packed.TableEntry(2, 0x7000, 1, 0x8027), packed.TableEntry(1, 0x8000, 0, 0x5000A25)]
    assert read.counters[0].values == {"mmu_unsync": 1, "pf_taken": 2}
    assert not read.setup.npt and read.setup.roots == "legacy" and read.guest.ops[0].op == "rd"
    times = [json.loads(line)["ts"] for line in gunzip((target / "a.jsonl.gz").read_bytes()).splitlines()]
    assert times == [1001, 1002, 1002 + 5 + (1 << 27) + 1, 9007]


def test_cut_trace_is_refused(raw_run, tmp_path, capsys):
    (raw_run / "a.trace.txt").write_text("one event\n")
    assert driver.main(["decode", "shadow", "--work", str(tmp_path)]) == 2
    assert "a: the kernel printed 1 events, the buffer gives 4" in capsys.readouterr().err


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_role_has_every_bit_once(kernel):
    covered = [low + bit for _, low, bits in kernel.role for bit in range(bits)]
    assert len(covered) == len(set(covered))
    word = sum(1 << bit for bit in covered)
    assert role(word, kernel.role) == {"word": word} | {name: (1 << bits) - 1 for name, _, bits in kernel.role}


def test_kernels_are_told_by_their_release():
    assert kernel_of_release("Linux (none) 6.12.117+deb12-amd64 #1 SMP").name == "6.12"
    with pytest.raises(KitError, match=r"Linux 5\.10\.0, of which"):
        kernel_of_release("Linux (none) 5.10.0 #1")


def test_lines_name_frames_and_shadow_pages():
    lines = Normaliser({0x5000: 0x19})
    spte = {"ev": "kvm_mmu_set_spte", "gfn": 0x19, "spte": 0x5000A25, "sptep": 0x8008, "level": 1, "r": 1}
    assert lines.line(spte) == "kvm_mmu_set_spte gfn=19 spte=g19|a25 level=1 at=S0[001]"
    assert lines.line({"ev": "load_pgd", "root": 0x7000, "level": 4}) == "load_pgd root=S1 level=4"
    assert lines.line(spte | {"spte": 0x7000027}).split()[2] == "spte=S2|27"  # no guest frame: another shadow page
    role_word = role(0x3712, KERNELS["6.1"].role)
    page = {
        "ev": "kvm_mmu_get_page",
        "gfn": 0x18,
        "role": role_word,
        "mmu_valid_gen": 0,
        "root_count": 0,
        "unsync": 0,
        "created": 1,
    }
    assert lines.line(page).startswith("kvm_mmu_get_page gfn=18 level=2 gpte=4 quad=0 access=wux [efer_nx cr0_wp] role=3712")


# --- the driver's complaints: one line, exit code 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["run", "nosuch"], "there is no set nosuch: give one of shadow, extra"),
        (["guests", "nosuch"], "there are no guests nosuch: give any of shadow"),
        (["run", "shadow", "p32_nosuch"], "has no guest p32_nosuch for this host: give any of np32_basic"),
        (["run", "nestedsp"], "initrd.gz: run capture.py build"),
        (["build"], "run capture.py fetch"),
        (["decode", "shadow"], "holds no run: run capture.py run shadow"),
        (["nosuch"], "Try: python capture/capture.py --help"),
        (["guests", "--seeds", "0"], "Try: python capture/capture.py --help"),
        (["guests", "shadow", "--backing", "0=thp"], "are a set of their own: name one set to make them from, and theirs by --called"),
        (["guests", "extra", "--called", "odd", "--backing", "9=thp"], "p32_flood2 has no slot '9' to back: give ID=WORD, as 0=thp"),
    ],
)
def test_errors_are_one_line(words, says, tmp_path, capsys):
    work = [] if words == ["nosuch"] else ["--work", str(tmp_path)]
    assert driver.main([*words, *work]) == 2
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "program", "package"),
    [(["fetch"], "apt-get", "apt"), (["build"], "gcc", "gcc"), (["run", "nestedsp"], "qemu-system-x86_64", "qemu-system-x86")],
)
def test_missing_programs_are_named(words, program, package, tmp_path, capsys, monkeypatch):
    (tmp_path / "6.1" / "packages").mkdir(parents=True)
    for name in ("packages/vmlinuz", "packages/busybox", "initrd.gz"):
        (tmp_path / "6.1" / name).write_bytes(b"x")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert driver.main([*words, "--work", str(tmp_path)]) == 2
    assert f"no {program}: apt install {package}" in capsys.readouterr().err


def test_guests_made_otherwise_are_a_set_of_their_own(tmp_path):
    told = ["--called", "thp", "--backing", "0=thp", "--backing", "3=slot:0+100000", "--cpu", "physbits 36"]
    assert driver.main(["guests", "extra", *told, "--work", str(tmp_path)]) == 0
    folder = tmp_path / "6.1" / "guests" / "thp"
    lines = (folder / "p32_flood2.kvs").read_text().splitlines()
    assert {"slot 0 0 0 1000000 thp", "slot 3 0 3000000 10000 slot:0+100000", "physbits 36"} <= set(lines)
    assert [slot.backing for slot in read_guest(folder, "p32_flood2")[0].memslots] == ["thp", "huge", "anon", "slot:0+100000"]


def test_an_image_is_a_guest_whose_stores_are_found(tmp_path):
    (tmp_path / "code.bin").write_bytes(b"\xf4" * 5000)
    words = ["--load", f"8000={tmp_path / 'code.bin'}", "--state", "mode=32", "--state", "rip=8000", "--slot", "0=0+10000:thp"]
    assert driver.main(["image", "mine", *words, "--work", str(tmp_path)]) == 0
    folder = tmp_path / "6.1" / "guests" / "mine"
    lines = (folder / "mine.kvs").read_text().splitlines()
    assert lines[:3] == ["vm", "slot 0 0 0 10000 thp", "load 8000 mine.8000.bin"]
    assert lines[3] == "vcpu" and "mode=0x20" in lines[4] and "rip=0x8000" in lines[4]
    assert lines[5:] == ["dumpeach 1", "find", "stats before", "run"]
    read, image = read_guest(folder, "mine")
    assert read.ops == [] and read.entry_state["rip"] == 0x8000 and image == [(0x8000, (b"\xf4" * 5000).ljust(8192, b"\0"))]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "mine: nothing to run; give --load GPA=FILE"),
        (["--load", "x=y"], "'x=y' loads nothing: give GPA=FILE"),
        (["--load", "8000=nosuch"], "nosuch: No such file or directory"),
        (["--load", "8000={file}", "--state", "ax=1"], "'ax=1' is no register: give one of mode, cr0"),
        (["--load", "8000={file}", "--state", "mode=8"], "no CPU begins in mode 8"),
        (["--load", "8000={file}", "--slot", "0:1"], "'0:1' is no memslot: give ID=GPA+SIZE"),
        (["--load", "ff0000={file}"], "no slot holds the 3 bytes at ff0000"),
    ],
)
def test_an_image_that_makes_no_sense_is_refused(words, says, tmp_path, capsys):
    (tmp_path / "file").write_bytes(b"abc")
    told = [word.format(file=tmp_path / "file") for word in words]
    assert driver.main(["image", "mine", *told, "--work", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1


# --- what a run leaves


@pytest.fixture
def machine_run(tmp_path, monkeypatch):
    """Runs two guests, of whom the console and the disk tell what a test says."""
    slots = "slot 0 0 0 1000000 anon\nslot 1 0 1000000 8000000 huge\nslot 5 0 80000000 40000000 giant\n"
    for name in ("a", "b"):
        (tmp_path / f"{name}.kvs").write_text("vm\n" + slots)
    (tmp_path / "initrd.gz").write_bytes(b"")

    def run(console, *left):
        def boot(_work, _host, memory, initrd, disk, log, _report):
            assert initrd.parent == disk.parent == tmp_path / "raw"  # of its own, as two sets may run at once
            assert memory.arguments == "hugepagesz=1G hugepages=1 huge=64" and memory.mib == 16 + 128 + 1024
            log.write_text(console)
            disk.write_bytes(b"".join(left))
            return "it died"

        monkeypatch.setattr(machine, "_boot", boot)
        return machine.run(tmp_path, [tmp_path / "a.kvs", tmp_path / "b.kvs"], machine.Host(), tmp_path / "raw", print, {})

    return run


def tar_of(name):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        member = tarfile.TarInfo(f"./{name}")
        member.size = 3
        archive.addfile(member, io.BytesIO(b"abc"))
    return file.getvalue()


def test_what_a_guest_left_is_kept_when_the_next_one_dies(machine_run, tmp_path):
    assert machine_run("RAN a\n", tar_of("a.raw"), tar_of("b.raw")[:300]) == ["b: it died"]
    assert (tmp_path / "raw" / "a.raw").read_bytes() == b"abc"
    assert machine_run("RUNNER FAIL b: 7 events were lost\n", tar_of("a.raw"), tar_of("b.txt")) == ["b: 7 events were lost"]


def test_a_kernel_without_a_probe_is_refused(machine_run):
    with pytest.raises(KitError, match="lacks 1 probes, so no capture would be whole: p:kv/x y"):
        machine_run("PROBE MISSING p:kv/x y\n", tar_of("a.raw"))


class Machine:
    """What a watchdog sees of a machine: from look to look it works for so long, and wants the CPU or not."""

    def __init__(self):
        self.seconds, self.runs = 0.0, True

    def worked(self):
        return self.seconds

    def wants_cpu(self):
        return self.runs


def looks(dog, machine, seconds, runs, most=100_000):
    """At which look it barks; None: it does not."""
    for look in range(most):
        machine.seconds, machine.runs = machine.seconds + seconds, runs
        dog.look()
        if dog.barked:
            return look + 1
    return None


@pytest.mark.parametrize(("seconds", "runs", "barks_at"), [(1.0, True, 121), (0.25, True, 481), (0.0, False, 121), (0.0, True, None)])
def test_patience_is_counted_in_work(seconds, runs, barks_at):
    """A machine that works without a word, one that gets a quarter of a CPU, one that sleeps, and one that is not let."""
    barks = []
    machine = Machine()
    dog = watchdog.Watchdog(machine, lambda: barks.append(1))
    assert looks(dog, machine, 1.0, True, most=100) is None
    dog.heard()
    assert looks(dog, machine, seconds, runs) == barks_at
    dog.look()
    assert len(barks) == (barks_at is not None)


def test_work_and_sleep_of_a_process_are_told():
    """As /proc tells them: this process works, a sleeping one does not, one that is over is no error."""
    this = watchdog.Process(os.getpid())
    assert this.wants_cpu() and this.worked() > 0
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as sleeper:
        other = watchdog.Process(sleeper.pid)
        while other.wants_cpu():  # it starts
            pass
        assert not other.wants_cpu()
        sleeper.communicate()
    assert not other.wants_cpu() and other.worked() == 0


def test_a_cache_of_another_kernel_is_named(tmp_path, capsys):
    (tmp_path / "linux-image-6.6.9-amd64_6.6.9-1_amd64.deb").write_bytes(b"")
    assert driver.main(["fetch", "--cache", str(tmp_path), "--work", str(tmp_path / "work")]) == 2
    assert "of Linux 6.1, but linux-image-6.6.9-amd64_6.6.9-1_amd64.deb: give another --kernel" in capsys.readouterr().err


def test_a_guest_says_what_its_cpu_lacks_and_which_vcpus_there_are(tmp_path):
    guest = guests_of("shadow", SEEDS)[0]
    guest.cpu = ["nofeature 80000001 edx 26", "vendor GenuineIntel"]
    guest.other_vcpus = [guest.entry_state | {"rip": 0xB00000}]
    guest.save(tmp_path)
    lines = (tmp_path / f"{guest.name}.kvs").read_text().splitlines()
    start = lines.index("nofeature 80000001 edx 26")
    assert [line.split()[0] for line in lines[start : start + 7]] == ["nofeature", "vendor", "vcpu", "state", "vcpu", "state", "on"]
    assert "rip=0xb00000" in lines[start + 5] and lines[start + 6] == "on 0"


def test_tools_of_this_machine_are_taken_with_their_libraries(tmp_path, monkeypatch):
    """Any programs of these names will do; all that the loader looks for comes along, by the paths it looks at."""
    for name in TOOLS:
        (tmp_path / name).symlink_to("/bin/ls")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    taken = tools(SOURCE)
    assert {"bin/perf", "bin/trace-cmd", "tools", "lib64/ld-linux-x86-64.so.2"} <= taken.keys()
    assert taken["bin/perf"] == Path("/bin/ls").read_bytes() and any(name.endswith("/libc.so.6") for name in taken)
    (tmp_path / "perf").unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(KitError, match="no perf: apt install linux-perf"):
        tools(SOURCE)
