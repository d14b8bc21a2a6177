# SPDX-License-Identifier: GPL-2.0-only
"""Captures that are cut off, changed or of another kind: one clear line and exit code 2, or a verdict; never a traceback."""

from __future__ import annotations

import gzip
import json
import lzma
import os
import random
from functools import partial
from pathlib import Path

import msgspec
import pytest
from kit_files import write_kit

from shadowmmu import ROOT_DESIGNS
from shadowmmu.captures.find import find
from shadowmmu.cli.main import call

zipped = partial(gzip.compress, mtime=0)  # the same bytes at each collection
NAME = "shadow/np32_dirty"
MUTATIONS = int(os.environ.get("SHADOWMMU_MUTATIONS", "120"))
"""Of packed captures and of the kit's files, each; more by hand."""


def packed() -> dict:
    """The shipped capture as plain containers."""
    return msgspec.msgpack.decode(lzma.decompress(find(NAME)[0].path.read_bytes()))


def write(path: Path, content: dict) -> Path:
    path.write_bytes(lzma.compress(msgspec.msgpack.encode(content), preset=0))
    return path


def refused(capsys: pytest.CaptureFixture[str], *arguments: object, verb: str = "replay") -> str:
    """The one line with which the verb refuses its input."""
    assert call([verb, *map(str, arguments)]) == 2
    out, err = capsys.readouterr()
    assert not out and err.startswith("shadowmmu: ") and err.count("\n") == 1
    return err


def at(content: dict, words: str) -> int:
    """Where the first marker is that begins so."""
    return next(number for number, event in enumerate(content["events"]) if event.get("text", "").startswith(words))


def aged(**fields: int | str) -> dict[str, object]:
    """The host looks whether pages are in use."""
    return {"event": "other", "ev": "kvm_age_hva", "fields": fields}


def said(words: str) -> dict:
    return {"event": "print", "text": words}


def last_byte(content: dict) -> int:
    """Of the last memslot, with nothing behind it."""
    return max(slot["gpa"] + slot["size"] for slot in content["guest"]["memslots"]) - 1


def write_files(folder: Path, content: bytes) -> list[Path]:
    (folder / "other").write_bytes(content)
    return [folder / "other"]


# --- packed files


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.update(grammar=0), "has events of grammar 0, known is 1: pack it anew"),
        (lambda c: c["events"].insert(30, {"event": "kvm_new_thing"}), "Invalid value 'kvm_new_thing' - at `$.events[30].event`"),
        (lambda c: c["events"][30].update(vcpu="x"), "Expected `int`, got `str` - at `$.events[30].vcpu`"),
        (lambda c: c.pop("setup"), "missing required field `setup`"),
        (lambda c: c["setup"].update(host_levels=9), "no CPU has 9 levels of paging"),
        (lambda c: c["setup"].update(maxphyaddr=500), "with 500 and 40 address bits"),
        (lambda c: c["setup"].update(maxphyaddr=52), "has 52 bits of physical address, the engine's at most 51; capture it with fewer"),
        (lambda c: c["events"].insert(40, said("H operand rip=1")), "event 40, 'H operand rip=1', does not tell val"),
        (lambda c: c["events"].insert(40, {"event": "print", "text": "H slot"}), "event 40, 'H slot', does not tell id and gpa"),
        (lambda c: c["events"].insert(40, {"event": "print", "text": "G"}), "event 40, 'G', does not tell seq"),
        (lambda c: c["events"].insert(40, {"event": "print", "text": "H poke gpa=0 val=0 len=99"}), "stores too much"),
        (lambda c: c["events"].insert(40, {"event": "print", "text": "H mprotect gpa=-5 size=0 w=0"}), "has a negative number"),
        (
            lambda c: c["events"].insert(40, {"event": "print", "text": "H slot id=1 gpa=0 flags=0 size=f00000000000"}),
            "more than 0x100000000",
        ),
        (lambda c: c.update(frames=[[0, 0, 1, 1 << 60]]), "its host frames are negative, or hold more than 0x"),
        (lambda c: c["dumps"][0].update(level=9), "has tables of no level"),
        (lambda c: c["guest"]["ops"][0].update(size=10**9), "operation 0 of its guest has 1000000000 bytes"),
        (lambda c: c["guest"].update(host_script=[["stats"]]), "its VMM's script has 'stats'"),
        (lambda c: c.update(image=[[-5, b"x"]]), "its image has 0x1 bytes at -0x5, where no memslot is"),
        (lambda c: c["image"].append([1 << 32, b"x"]), "its image has 0x1 bytes at 0x100000000, where no memslot is"),
        (lambda c: c["image"].append([last_byte(c), b"xy"]), "its image has 0x2 bytes at 0x"),
        (lambda c: c["guest"]["memslots"].pop(), "its guest declares [0, "),
        (lambda c: c["guest"]["memslots"][0].update(size=4096), "or others of these numbers"),
        (lambda c: c["guest"]["ops"].append(c["guest"]["ops"][0]), "two operations of its guest have one number"),
        (lambda c: c["guest"]["ops"].pop(0), "is no step of its guest"),
        (lambda c: c["guest"].update(ops=[]), "is no step of its guest"),
        (lambda c: c["events"].insert(100, aged(start=5, end=9)), "event 100, kvm_age_hva start=5 end=9, names no pages of its VMM's"),
        (lambda c: c["events"].insert(100, aged(start=4096, end=0)), "names no pages of its VMM's"),
        (lambda c: c["events"].insert(100, aged(start="x")), "names no pages of its VMM's"),
        (lambda c: c["guest"].update(host_script=[]), "its VMM's script has 0 calls"),
        (lambda c: c["events"][100].update(vcpu=7), "event 100 is of vCPU 7, and its VMM creates 1"),
        (lambda c: c["events"].insert(100, said("H on vcpu=1")), "its VMM creates 1 vCPUs"),
        (lambda c: c["events"].pop(at(c, "H slot")), "comes with memslots ["),
        (lambda c: c["events"].insert(at(c, "H set_sregs"), said("H slot id=9 flags=0 gpa=0 size=1000")), "overlaps memslot 0"),
        (lambda c: c["events"].insert(at(c, "H set_sregs"), said("H slot id=9 flags=0 gpa=1 size=1000")), "no whole number of pages"),
        (lambda c: c["events"].pop(at(c, "H create vm")), "creates no VM"),
        (lambda c: c["events"].pop(at(c, "H create vcpu")), "no vCPU"),
        (lambda c: c["events"].pop(at(c, "H set_sregs")), "does not set it up"),
        (lambda c: c["guest"]["entry_state"].update(cr0=0x11), "and its guest starts with another CR0"),
        (lambda c: c["guest"]["entry_state"].clear(), "and its guest starts with another CR0, CR3, CR4, EFER"),
        (lambda c: c["dumps"][0].update(seq=99_999), "a dump was taken at marker 99999, which its guest never wrote"),
        (lambda c: c["counters"][0].update(seq=99_999), "a set of counters was taken at marker 99999"),
        (lambda c: c["frames"].append([77, 0, 1, 1]), "its host frames of memslot 77 lie outside it"),
        (lambda c: c["frames"].append([0, 1 << 30, 1, 1]), "its host frames of memslot 0 lie outside it"),
        (lambda c: c["setup"].update(tdp_mmu=True), "a TDP MMU without nested paging"),
    ],
)
def test_a_changed_capture_is_refused_with_what_is_wrong(change, said, tmp_path, capsys):
    content = packed()
    change(content)
    path = write(tmp_path / "one.capture", content)
    line = refused(capsys, path)
    assert said in line and str(path) in line


@pytest.mark.parametrize("verb", ["replay", "rerun"])
@pytest.mark.parametrize(
    ("register", "illegal"),
    [
        ("cr0", lambda cr0: cr0 & ~1 | 1 << 31),  # PG without PE
        ("cr0", lambda cr0: cr0 & ~(1 << 30) | 1 << 29),  # NW without CD
        ("cr0", lambda cr0: cr0 | 1 << 40),
        ("cr4", lambda cr4: cr4 | 1 << 63),
        ("efer", lambda efer: efer | 1 << 10),  # LMA alone
    ],
)
@pytest.mark.parametrize("again", [False, True])
def test_registers_that_kvm_refuses_are_in_no_capture(verb, register, illegal, again, tmp_path, capsys):
    """Neither as the guest starts nor later, from its VMM."""
    content = packed()
    first = at(content, "H set_sregs")
    state = content["guest"]["entry_state"]
    state = {**state, register: illegal(state[register])}
    words = "H set_sregs mode=0 " + " ".join(f"{name}={state[name]:x}" for name in ("cr0", "cr3", "cr4", "efer"))
    if again and verb == "replay":
        content["events"].insert(first + 1, said(words))
    else:
        content["guest"]["entry_state"] = state
        content["events"][first] = said(words)
    path = write(tmp_path / "one.capture", content)
    assert f"{register.upper()} {state[register]:#x}" in (line := refused(capsys, path, verb=verb))
    assert "which no CPU has together; it was changed" in line


def test_files_that_are_no_captures(tmp_path, capsys):
    whole = find(NAME)[0].path.read_bytes()
    for content in (b"", b"nonsense", whole[: len(whole) // 2], lzma.compress(b"\x93"), lzma.compress(b"")):
        path = tmp_path / "one.capture"
        path.write_bytes(content)
        assert f"{path} is no capture, or a broken one" in refused(capsys, path)
    text = tmp_path / "trace"
    assert call(["replay", NAME, "--text"]) == 0
    text.write_text(capsys.readouterr().out)
    assert f"{text} is no capture, it is the text of a trace, which has no guest" in refused(capsys, text)
    assert "is no capture, it is a gzip file" in refused(capsys, *write_files(tmp_path, zipped(b"x")))
    assert "it unpacks to more than 67,108,864 bytes" in refused(capsys, *write_files(tmp_path, lzma.compress(bytes(80 << 20), preset=0)))
    with path.open("wb") as file:
        file.truncate(1 << 36)
    assert "has 68,719,476,736 bytes" in refused(capsys, path)
    os.mkfifo(tmp_path / "pipe")
    for no_file in (tmp_path / "pipe", "/dev/zero", "/dev/stdin"):
        assert "is no regular file" in refused(capsys, no_file)
    (tmp_path / "empty").mkdir()
    assert "holds no capture" in refused(capsys, tmp_path / "empty")
    assert "no capture is named" in refused(capsys, tmp_path / "missing")
    assert "a capture without a name" in refused(capsys, "")
    assert "is no folder" in refused(capsys, "--kit", tmp_path / "missing")
    assert "has 442 events: choose --at up to that" in refused(capsys, NAME, "--at", 10**9)
    assert "cannot write" in refused(capsys, NAME, "--pack", path)


def test_an_action_that_no_vmm_has_does_nothing(tmp_path, capsys):
    """The VMM's lines name actions, not whatever a class has of that name."""
    content = packed()
    content["events"][40:40] = [{"event": "print", "text": text} for text in ("H lay_out", "H history", "H huge_slots", "", "X")]
    assert call(["replay", str(write(tmp_path / "one.capture", content))]) == 0


# --- the kit's files


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("captures/shadow/np32_dirty.spt.txt", None, "No such file"),
        ("captures/shadow/np32_dirty.stats.txt", None, "No such file"),
        ("captures/shadow/np32_dirty.pfn.txt.gz", None, "No such file"),
        ("captures/shadow/np32_dirty.pfn.txt.gz", b"junk", "Not a gzipped file"),
        ("captures/shadow/np32_dirty.pfn.txt.gz", zipped(b"1 2\n"), "is not as the kit writes it"),
        (
            "captures/shadow/np32_dirty.jsonl.gz",
            zipped(b'{"ev":"invlpg","gva":"x"}'),
            "Expected `int`, got `str` - at `$.events[0].gva`",
        ),
        ("captures/shadow/np32_dirty.jsonl.gz", zipped(b'{"ev":"invlpg"}'), "is not as the kit writes it"),
        ("captures/shadow/np32_dirty.jsonl.gz", zipped(b'{"gva":1}'), "lacks 'ev'"),
        ("captures/shadow/np32_dirty.jsonl.gz", zipped(b"[1]"), "is not as the kit writes it"),
        ("captures/shadow/np32_dirty.jsonl.gz", zipped(b'{"ev":')[:-9], "ended before the end-of-stream"),
        ("captures/shadow/_kvm_params.txt", None, "it tells how the host was set up"),
        ("captures/shadow/np32_dirty.cpuid.txt", b"1.0 x y z w\n", "is not as the kit writes it"),
        ("guests/shadow/np32_dirty.json", None, "its guest np32_dirty.json is in no folder"),
        ("guests/shadow/np32_dirty.json", b"{", "is not as the kit writes it"),
        ("guests/shadow/np32_dirty.json", b"{}", "lacks 'name'"),
        ("guests/shadow/np32_dirty.json", b'{"name":1,"entry_state":2,"memslots":3,"image":[]}', "is not as the kit writes it"),
    ],
)
def test_a_broken_file_of_the_kit_is_named(file, content, said, tmp_path, capsys):
    write_kit(find(NAME)[0].load(), tmp_path)
    path = tmp_path / file
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    line = refused(capsys, "--kit", tmp_path)
    assert said in line and path.name.partition(".")[0] in line


@pytest.mark.parametrize("name", ["../../../secret", "/etc/passwd", "link", "pipe", "."])
def test_parts_of_a_kit_are_files_inside_it(name, tmp_path, capsys):
    kit = tmp_path / "kit"
    write_kit(find(NAME)[0].load(), kit)
    (tmp_path / "secret").write_bytes(bytes(4096))
    guests = kit / "guests" / "shadow"
    (guests / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(guests / "pipe")
    described = json.loads((guests / "np32_dirty.json").read_text())
    described["image"][0]["file"] = name
    (guests / "np32_dirty.json").write_text(json.dumps(described))
    line = refused(capsys, "--kit", kit)
    assert "lies outside its folder" in line or "no regular file" in line or "Is a directory" in line


@pytest.mark.parametrize("suffix", [".spt.txt", ".stats.txt", ".pfn.txt.gz", ".jsonl.gz"])
def test_a_file_of_a_kit_is_no_link_that_leads_out_of_it(suffix, tmp_path, capsys):
    kit = tmp_path / "kit"
    file = write_kit(find(NAME)[0].load(), kit) / f"np32_dirty{suffix}"
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    assert "lies outside its folder" in refused(capsys, "--kit", kit)
    file.unlink()
    os.mkfifo(file)
    assert "is no regular file" in refused(capsys, "--kit", kit)


# --- any bytes


def flip(data: bytes, chance: random.Random, spared: range = range(0)) -> bytes:
    """One to four changes outside `spared`: a byte, a bit, a cut, or bytes put in."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(changed) - len(spared) or 1)
        at += len(spared) if at >= spared.start else 0
        kind = chance.randrange(10)
        if kind < 5 and changed:
            changed[at] = chance.randrange(256)
        elif kind < 8 and changed:
            changed[at] ^= 1 << chance.randrange(8)
        elif kind == 8:
            del changed[at : at + chance.randint(1, 64)]
        else:
            changed[at:at] = chance.randbytes(chance.randint(1, 9))
    return bytes(changed)


def ends_well(capsys: pytest.CaptureFixture[str], arguments: list[str], what: str) -> int:
    """Replay and give the exit code: 0, 1 or 2, with one line for 2."""
    try:
        code = call(["replay", *arguments])
    except BaseException as error:
        raise AssertionError(f"{what}: {error!r}") from error
    _, err = capsys.readouterr()
    assert code in (0, 1, 2), what
    assert err.count("\n") == (code == 2), f"{what}: {err}"
    return code


def test_packed_captures_with_flipped_bytes(tmp_path, capsys):
    """The MessagePack inside is changed: most changes of the compressed file end at its check sum."""
    chance = random.Random(7)
    whole = find(NAME)[0].path.read_bytes()
    plain = lzma.decompress(whole)
    image = range(plain.index(b"\xa5image"), plain.index(b"\xa6events"))  # most bytes, and most of them never used
    codes = set()
    for number in range(MUTATIONS):
        path = tmp_path / "one.capture"
        path.write_bytes(flip(whole, chance) if number % 10 == 0 else lzma.compress(flip(plain, chance, image), preset=0))
        roots = list(ROOT_DESIGNS)[number % len(ROOT_DESIGNS)]
        codes.add(ends_well(capsys, [str(path), "--roots", roots], f"packed mutation {number}"))
    assert codes == {0, 1, 2}


def test_files_of_the_kit_with_flipped_bytes(tmp_path, capsys):
    chance = random.Random(8)
    folder = write_kit(find(NAME)[0].load(), tmp_path)
    files = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    codes = set()
    for number in range(MUTATIONS):
        path = files[number % len(files)]
        kept = path.read_bytes()
        is_compressed = path.suffix == ".gz"
        changed = flip(gzip.decompress(kept) if is_compressed else kept, chance)
        path.write_bytes(zipped(changed, 1) if is_compressed else changed)
        codes.add(ends_well(capsys, ["--kit", str(tmp_path)], f"kit mutation {number} of {path.name}"))
        path.write_bytes(kept)
    assert codes == {0, 1, 2}
    assert json.loads((tmp_path / "guests" / folder.name / f"{NAME.split('/')[1]}.json").read_text())["image"]


# --- ends


@pytest.mark.parametrize("keeps_dumps", [True, False])
def test_a_capture_that_is_cut_off_is_not_exact(keeps_dumps, tmp_path, capsys):
    """Wherever it ends: even if nothing differs up to there."""
    chance = random.Random(9)
    content = packed()
    closing = next(i for i, event in enumerate(content["events"]) if event.get("text") == "H closing")
    if not keeps_dumps:
        content.update(dumps=[], counters=[])
    for at in (closing, closing - 1, 0, *(chance.randrange(closing) for _ in range(6))):
        cut = {**content, "events": content["events"][:at]}
        for roots in ("legacy", "special"):
            assert call(["replay", str(write(tmp_path / "one.capture", cut)), "--roots", roots]) == 1, at
    assert "cut off" in capsys.readouterr().out


@pytest.mark.parametrize(
    "behind",
    [
        lambda events, closing: events,
        lambda events, closing: events[:closing],
        lambda events, closing: [{"event": "print", "text": "G seq=1 op=0"}],
        lambda events, closing: [event for event in events if event["event"] == "kvm_mmu_get_page"][:1],
        lambda events, closing: events[-1:],
    ],
)
@pytest.mark.parametrize("where", ["behind the end", "while it is closed"])
def test_what_follows_the_end_is_refused(behind, where, tmp_path, capsys):
    """Be it all of it once more, or one event."""
    content = packed()
    events = content["events"]
    closing = next(i for i, event in enumerate(events) if event.get("text") == "H closing")
    more = behind(events, closing)
    content["events"] = [*events, *more] if where == "behind the end" else [*events[: closing + 1], *more, *events[closing + 1 :]]
    assert "follows its end; it was changed" in refused(capsys, write(tmp_path / "one.capture", content))


def test_a_broken_guest_is_refused_before_it_is_rerun(tmp_path, capsys):
    content = packed()
    content["image"].append([1 << 32, b"x"])
    assert call(["rerun", str(write(tmp_path / "one.capture", content))]) == 2
    assert "where no memslot is; it was changed" in capsys.readouterr().err
