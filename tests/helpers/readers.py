# SPDX-License-Identifier: GPL-2.0-only
"""Every reader of outside input as a property: whatever it is given, it reads, or refuses in a line of BadInput.

`PROPERTIES` are run by tests/readers with a fixed seed and budget, and by tools/fuzz_readers.py for as long as one says.
"""

from __future__ import annotations

import contextlib
import copy
import gzip
import inspect
import io
import json
import lzma
import os
import random
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator
from difflib import unified_diff
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import msgspec
from hypothesis import strategies as st
from kit_files import write_kit

from shadowmmu.captures.find import find
from shadowmmu.captures.validate import undoable
from shadowmmu.check.bugs.bug import apply, read_bug
from shadowmmu.check.bugs.copy import changed_functions
from shadowmmu.check.bugs.table import HEAD
from shadowmmu.check.fuzz.corpus import NEXT, Corpus
from shadowmmu.check.fuzz.operations import Kind
from shadowmmu.check.replay.replay import Replay
from shadowmmu.check.rerun.rerun import Rerun, not_rerun
from shadowmmu.cli.bugs import _page
from shadowmmu.cli.fuzz import _again
from shadowmmu.cli.main import VERBS, call
from shadowmmu.errors import BadInput
from shadowmmu.machine.host import Do
from shadowmmu.machine.loader import Guest, load_bytes, load_image, read_guest
from shadowmmu.machine.machine import Machine
from shadowmmu.runs.explained.source import count_file, explain_file
from shadowmmu.runs.suite.entries import read_suite
from shadowmmu.runs.suite.junit import to_junit
from shadowmmu.runs.suite.run_suite import run_suite
from shadowmmu.trace.ftrace.format_files import kernel_of_formats
from shadowmmu.trace.ftrace.guess import said
from shadowmmu.trace.text import read_text, text_lines

NAMES = ("shadow/np32_dirty", "shadow/p32_basic", "nested/npae_slots")
NUMBERS = (0, 1, -1, 2, 7, 12, 255, 4095, 4096, 1 << 20, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 40, 1 << 52, (1 << 63) - 1, (1 << 64) - 1)
LARGER = (-(1 << 63), 1 << 63, 1 << 64, 1 << 200, 10**4400)
TEXTS = ("", "x", "\x1b]0;x\x07", "../../etc/passwd", "/etc/passwd", "\udcff", "\0", "a" * 5000, "9" * 5000, "0x" + "f" * 5000, "\u202e")
SOURCES = Path(__file__).parents[2] / "src" / "shadowmmu"
TEXTS_OF_KERNELS = Path(__file__).parents[1] / "conformance" / "texts"
Choose = random.Random
Property = Callable[[Choose], object]


def refuses_or_reads(read: Callable[[], Any]) -> Any:
    """What was read; None: it was refused, as the user is told."""
    try:
        return read()
    except BadInput as error:
        assert str(error).strip(), "a line has words"
        return None


# --- changes


def value(choose: Choose, depth: int = 0) -> Any:
    """Anything that JSON or MessagePack can hold."""
    kind = choose.randrange(9)
    if kind < 4:
        return choose.choice(NUMBERS)
    if kind < 6:
        return choose.choice([text for text in TEXTS if text.isprintable()])
    if kind < 8 or depth > 3:
        return choose.choice([None, True, -0.5, 1e300, [], {}, [[]] * 3, {"": 0}])
    return [value(choose, depth + 1), {"x": value(choose, depth + 1)}]


def nested(levels: int) -> Any:
    """Deeper than parsers go."""
    tree: Any = []
    for _ in range(levels):
        tree = [tree]
    return tree


def change(tree: Any, choose: Choose) -> None:
    """One change somewhere in a tree of containers: a value, a name, a part left out or there twice."""
    while True:
        keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
        if not keys:
            return
        key = choose.choice(keys)
        below = tree[key]
        if not isinstance(below, dict | list) or not below or choose.random() < 0.15:
            break
        tree = below
    kind = choose.randrange(6)
    if kind == 0:
        del tree[key]
    elif kind == 1 and isinstance(tree, list):
        tree.insert(key, copy.deepcopy(below))
    elif kind == 2 and isinstance(tree, dict):
        tree[choose.choice(("", "new", key + "x"))] = value(choose)
    elif kind == 3 and isinstance(below, int) and not isinstance(below, bool):
        tree[key] = (below ^ 1 << choose.randrange(64)) & (1 << 64) - 1
    else:
        tree[key] = value(choose)


def flip(data: bytes, choose: Choose) -> bytes:
    """A few bytes changed, cut out or put in."""
    changed = bytearray(data)
    for _ in range(choose.randint(1, 3)):
        at = choose.randrange(len(changed) + 1)
        kind = choose.randrange(5)
        if kind < 2:
            changed[at : at + 1] = bytes([choose.randrange(256)])
        elif kind == 2:
            del changed[at : at + choose.choice((1, 4, 64, 4096))]
        elif kind == 3:
            changed[at:at] = choose.choice((b"\0", b"\xff" * 8, b"\xdd\xff\xff\xff\xff", b"[" * 9, b"9" * 20, b"\n", b"= "))
        else:
            changed = changed[:at]
    return bytes(changed)


# --- captures


@cache
def packed(name: str) -> bytes:
    return lzma.decompress(find(name)[0].path.read_bytes())


def capture_file(choose: Choose) -> None:
    """A packed capture; one that can be loaded is replayed, and now and then its guest is run."""
    plain = packed(choose.choice(NAMES))
    kind = choose.randrange(8)
    if kind < 5:
        tree = msgspec.msgpack.decode(plain)
        for _ in range(choose.randint(1, 3)):
            change(tree, choose)
        if kind == 0:
            tree[choose.choice(("unknown", "events"))] = nested(400)
        data = lzma.compress(msgspec.msgpack.encode(tree), preset=0)
    elif kind < 7:
        data = lzma.compress(flip(plain, choose), preset=0)
    else:
        data = flip(lzma.compress(plain, preset=0), choose)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "one.capture")
        path.write_bytes(data)
        replayed(path, choose)


def replayed(path: Path, choose: Choose) -> None:
    for one in refuses_or_reads(lambda: find(str(path))) or ():
        capture = refuses_or_reads(one.load)
        if capture is not None:
            refuses_or_reads(lambda capture=capture: replay(capture, choose.choice(("legacy", "special"))))
            if choose.random() < 0.25 and not_rerun(capture) is None:
                refuses_or_reads(lambda capture=capture: rerun(capture))


def replay(capture: Any, roots: str) -> bool:
    with undoable("it"):
        return Replay(capture, roots).run().ok


def rerun(capture: Any) -> bool:
    with undoable("it"):
        return Rerun(capture, "legacy").run().ok


# --- the kit


@cache
def kit() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="kit."))
    write_kit(find(NAMES[0])[0].load(), folder)
    return folder


def kit_folder(choose: Choose) -> None:
    """A folder as the kit leaves it, with one of its files changed or replaced by what is none."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "kit")
        shutil.copytree(kit(), folder)
        path = choose.choice(sorted(path for path in folder.rglob("*") if path.is_file()))
        kind = choose.randrange(12)
        if kind == 0:
            replace(path, choose)
        elif path.suffix == ".json" and kind < 8:
            described = json.loads(path.read_text())
            change(described, choose)
            if kind == 1 and isinstance(described.get("image"), list):
                change(described["image"], choose)
            path.write_text(json.dumps(described) if kind > 2 else "[" * 100_000)
        else:
            data = path.read_bytes()
            path.write_bytes(
                gzip.compress(flip(gzip.decompress(data), choose), 1) if path.suffix == ".gz" and kind < 10 else flip(data, choose)
            )
        replayed(folder, choose)


def replace(path: Path, choose: Choose) -> None:
    """By something else than a file that is inside."""
    path.unlink()
    kind = choose.randrange(5)
    if kind == 0:
        os.mkfifo(path)
    elif kind == 1:
        path.mkdir()
    elif kind < 4:
        path.symlink_to(choose.choice(("/etc/passwd", "/dev/zero", path.name, "nowhere", "/")))


# --- guests


def description(choose: Choose) -> None:
    """A guest's TOML file."""
    fields = {"name": '"x"', "image": '"x.img"', "mode": '"pae"', "vcpus": "1", "memory_mib": "32", "features": '["nx"]', "load": "0x7c00"}
    fields |= {"format": '"flat"', "start": '"real"', "entry": "0", "expect": '"x"', "title": '"x"'}
    if choose.random() < 0.5:
        fields = {"name": '"x"', "image": '"x.elf"', "modules": choose.choice(MODULES), "arguments": toml(choose)}
    for _ in range(choose.randint(0, 4)):
        fields[choose.choice([*Guest.__struct_fields__, "other", '"a.b"', "a.b.c"])] = toml(choose)
    text = "\n".join(f"{name} = {words}" for name, words in fields.items())
    if choose.random() < 0.4:
        text += host(choose)
    data = text.encode("utf-8", "surrogateescape")
    if choose.random() < 0.3:
        data = flip(data, choose)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.toml")
        path.write_bytes(data)
        Path(folder, "x.img").write_bytes(b"\xf4")
        Path(folder, "x.elf").write_bytes(an_elf())
        os.mkfifo(Path(folder, "pipe"))
        guest = refuses_or_reads(lambda: read_guest(path))
        if guest is not None:
            loaded = refuses_or_reads(lambda: load_image(guest))
            if loaded is not None and guest.host is not None:
                machine = refuses_or_reads(lambda: Machine(guest, loaded=loaded))
                if machine is not None and machine.host is not None:
                    machine.host.perform(1)
            elif loaded is not None and choose.random() < 0.1:
                ends_well(["run", str(path), "--max-exits", "3"])


def host(choose: Choose) -> str:
    """What a guest's TOML file says of its host: memory, and what it does when the guest writes 1 to its port."""
    numbers = few_numbers(choose)
    log, large = choose.choice(("''", "'set'", "'x'")), next(numbers)
    lines = ["", "[host]", f"memory_mib = {choose.choice((1, 2, 4))}", f"large = [{large}]", f"manual_log = {log}"]
    lines += ["[[host.memslot]]", "slot = 0", "page = 0", "pages = 64"]
    lines += ["[[host.memslot]]", "slot = 1", "page = 512", "pages = 8", "host_page = 64"]
    for do in choose.choices((*get_args(Do), "x"), k=choose.randint(1, 4)):
        slot = ", ".join(f"{name} = {next(numbers)}" for name in ("slot", "page", "pages", "host_page"))
        lines += ["[[host.step]]", "at = 1", f"do = '{do}'", f"memslot = {{ {slot} }}", f"slot = {choose.choice((0, 1, 2))}"]
        lines += [f"{name} = {next(numbers)}" for name in ("page", "count", "address")]
        lines += [f"written = [{next(numbers)}]", f"value = {toml(choose)}", f"size = {choose.choice((1, 4, 8, 3))}"]
    return "\n".join(lines) + "\n"


def few_numbers(choose: Choose) -> Iterator[str]:
    """Most often small ones, which make sense."""
    while True:
        yield str(choose.choice((0, 1, 2, 8, 63, 64, 512, 4096) if choose.random() < 0.9 else NUMBERS))


MODULES = (
    '["x.img"]', '["x.img a b"]', '["x.img", "x.elf"]', '["pipe"]', '["/dev/zero"]', '["none"]', '["."]', '[""]',
    "[" + '"x.img", ' * 5000 + "]",
)  # fmt: skip


def toml(choose: Choose) -> str:
    kind = choose.randrange(8)
    if kind < 3:
        return str(choose.choice(NUMBERS)) if kind else hex(choose.choice((*NUMBERS, *LARGER)))
    if kind < 5:
        return json.dumps(choose.choice(TEXTS))
    return choose.choice(
        ("9" * 5000, "[" * 3000, "{a=" * 3000, "[" * 60_000, "1979-05-27", "nan", "true", '"""', "[]", "{}", '[["nx"]]', "'\x1b'")
    )


def image(choose: Choose) -> None:
    """A flat, a multiboot or an ELF image."""
    kind = choose.choice(("flat", "fields", "elf32", "elf64"))
    load = choose.choice((0, 0x7C00, 0x100000, *NUMBERS, 1 << 63, 1 << 64))
    guest = Guest(name="x", image="x", format="flat" if kind == "flat" else "multiboot", memory_mib=4, load=max(0, load), start="protected")
    data = {"flat": lambda: b"\xf4", "fields": lambda: fields(choose), "elf32": lambda: elf(choose, 32), "elf64": lambda: elf(choose, 64)}[
        kind
    ]()
    if choose.random() < 0.4:
        data = flip(data, choose)
    loaded = refuses_or_reads(lambda: load_bytes(guest, data))
    if loaded is not None:
        assert all(piece.gpa >= 0 and len(piece.data) <= piece.size and piece.gpa + piece.size <= 4 << 20 for piece in loaded.pieces)
        assert sum(piece.size for piece in loaded.pieces) <= 4 << 20


def number(choose: Choose, usual: int, width: int) -> int:
    """A header's field: mostly as it should be."""
    return (usual if choose.random() < 0.85 else choose.choice((*NUMBERS, 1 << 63, (1 << 64) - 16))) & (1 << width) - 1


def header(flags: int, *words: int) -> bytes:
    magic = 0x1BADB002
    return struct.pack(f"<III{len(words)}I", magic, flags, -(magic + flags) & 0xFFFFFFFF, *words)


def fields(choose: Choose) -> bytes:
    usual = (0x100000, 0x100000, 0x100030, 0x101000, 0x100020)
    return header(1 << 16 | choose.choice((0, 1, 2, 3, 4)), *(number(choose, word, 32) for word in usual)) + bytes(16)


def elf(choose: Choose, width: int) -> bytes:
    """An ELF file of one to three segments."""
    wide, count = width == 64, choose.randint(1, 3)
    start, entry_size, code = (64, 56, header(0)) if wide else (52, 32, header(0))
    form = "<HHIQQQIHHHHHH" if wide else "<HHIIIIIHHHHHH"
    sizes = (16, 16, 32, width, width, width, 32, 16, 16, 16, 16, 16, 16)
    usual = (2, 62 if wide else 3, 1, 0x100000, start, 0, 0, start, entry_size, count, 0, 0, 0)
    made = struct.pack("<4sBBB9x", b"\x7fELF", 2 if wide else 1, 1, 1)
    made += struct.pack(form, *(number(choose, word, size) for word, size in zip(usual, sizes, strict=True)))
    for index in range(count):
        at = 0x100000 + 0x1000 * index
        offset = start + entry_size * count
        words = (1, 5, offset, at, at, len(code), len(code) + 16, 4096) if wide else (1, offset, at, at, len(code), len(code) + 16, 5, 4096)
        widths = (32, 32, *([64] * 6)) if wide else (32,) * 8
        made += struct.pack("<IIQQQQQQ" if wide else "<8I", *(number(choose, word, size) for word, size in zip(words, widths, strict=True)))
    return made + code


@cache
def an_elf() -> bytes:
    """One that can be loaded."""
    guest = Guest(name="x", image="x", memory_mib=4)
    made = (elf(random.Random(seed), 32) for seed in range(1000))
    return next(data for data in made if refuses_or_reads(lambda: load_bytes(guest, data)))  # noqa: B023


# --- events and arguments


@cache
def trace() -> tuple[str, ...]:
    return tuple(text_lines(find(NAMES[0])[0].load().events[:200]))


def event_text(choose: Choose) -> None:
    """Lines of a trace."""
    lines = [*trace()]
    for _ in range(choose.randint(1, 4)):
        at = choose.randrange(len(lines))
        words = choose.choice(
            (lines[at] + " x", lines[at].replace("=", "=z", 1), f"{lines[at]} {choose.choice(TEXTS)}={choose.choice(TEXTS)}")
        )
        broken = flip(lines[at].encode("utf-8", "surrogateescape"), choose).decode("utf-8", "replace")
        lines[at] = choose.choice((words, broken, f"other ev={choose.choice(TEXTS)}"))
    events = refuses_or_reads(lambda: list(read_text("\n".join(lines))))
    if events is not None:
        again = list(read_text("\n".join(text_lines(events))))
        assert len(again) == len(events)


@cache
def kernel_text(name: str) -> list[str]:
    """A trace as tracefs of the captured kernel wrote it."""
    return lzma.decompress((TEXTS_OF_KERNELS / name).read_bytes()).decode().splitlines()


def kernel_trace(choose: Choose) -> None:
    """A kernel's trace as people have it: cut, folded, counted, quoted, broken. Every line is read or passed over."""
    lines = list(kernel_text(choose.choice(sorted(path.name for path in TEXTS_OF_KERNELS.glob("*.xz")))))
    start = choose.randrange(len(lines))
    lines = lines[start : start + choose.randint(1, 120)]
    for _ in range(choose.randint(0, 12)):
        at = choose.randrange(len(lines))
        line, cut = lines[at], choose.randrange(len(lines[at]) + 1)
        lines[at] = choose.choice(
            (
                line[:cut], line[cut:], f"{line[:cut]}\n{line[cut:]}", f"> {line}", f"   {choose.choice(NUMBERS)} {line}",
                line + choose.choice(TEXTS), line.replace("0", choose.choice(TEXTS)), line.partition(": ")[2],
                line[cut : cut + 9] * choose.choice((1, 3000)),
                flip(line.encode("utf-8", "surrogateescape"), choose).decode("utf-8", "replace"),
            )
        )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "trace")
        text = "\n".join(lines).encode("utf-8", "surrogateescape")
        path.write_bytes(choose.choice((bytes, gzip.compress, lzma.compress))(text))
        refuses_or_reads(lambda: explain_file(path, choose.choice((None, said((2, 6)), said((4, 18)), said((7, 3))))))
        refuses_or_reads(lambda: count_file(path))


# --- bugs

EDITED = Path("shadowmmu", "engine", "entries", "mmio.py")


def bug_table(choose: Choose) -> None:
    """The page that `shadowmmu bugs --write` puts its rows into, with rows of any kind."""
    cells = ("1 of 1", "cannot be seen", "I9", "-", "1,001", "x", "", *TEXTS)
    names = ("cve-2021-38198", "chain-kept", "x")
    rows = "".join(f"| {choose.choice(names)} | {' | '.join(choose.choices(cells, k=choose.randint(2, 4)))} |\n" for _ in range(4))
    text = f"3 bugs: 1 found; 0 missed.\n\n{choose.choice((HEAD, HEAD, ''))}{rows}\nThe rest.\n".encode("utf-8", "surrogateescape")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "bugs.md")
        path.write_bytes(flip(text, choose) if choose.random() < 0.3 else text)
        refuses_or_reads(lambda: _page(path))


def bug_file(choose: Choose) -> None:
    """A bug as TOML or as a diff, broken; what can be read is put into a tree of one file."""
    bug = {"title": '"x"', "breaks": '"x"', "roots": '"legacy"', "modes": '["pae"]', "known": '"x"'}
    edit = {"function": '"is_mmio_spte"', "old": '"spte"', "new": toml(choose)}
    for part in (bug, edit):
        for _ in range(choose.randint(0, 2)):
            part[choose.choice([*part, "id", "diff", "other"])] = toml(choose)
    text = "\n".join((*(f"{name} = {words}" for name, words in bug.items()), "[[edit]]", *(f"{k} = {v}" for k, v in edit.items())))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "src", EDITED)
        file.parent.mkdir(parents=True)
        file.write_bytes((SOURCES.parent / EDITED).read_bytes())
        path = Path(folder, choose.choice(("mine.toml", "mine.diff")))
        data = (text if path.suffix == ".toml" else diff(choose)).encode("utf-8", "surrogateescape")
        path.write_bytes(flip(data, choose) if choose.random() < 0.5 else data)
        read = refuses_or_reads(lambda: read_bug(path))
        if read is not None and (not read.diff or choose.random() < 0.2):
            refuses_or_reads(lambda: apply(read, Path(folder)))
        if choose.random() < 0.05:
            refuses_or_reads(lambda: changed_functions(Path(folder)))


def diff(choose: Choose) -> str:
    before = (SOURCES.parent / EDITED).read_text().splitlines(keepends=True)
    after = [*before[: (at := choose.randrange(len(before)))], choose.choice(TEXTS) + "\n", *before[at:]]
    name = choose.choice((f"src/{EDITED}", "../x", "/etc/passwd", "", "x" * 5000))
    return "".join(unified_diff(before, after, f"a/{name}", f"b/{name}"))


# --- command lines


@cache
def files() -> list[str]:
    """Paths of each kind that a verb may be given, and of what no verb should read."""
    folder = Path(tempfile.mkdtemp(prefix="files."))
    for ending in (".toml", ".diff", ".capture", ".img", ".txt"):
        for name, data in (("empty", b""), ("bytes", bytes(range(256))), ("deep", b"a = " + b"[" * 60_000), ("\x1b]0;x\x07", b"x\n")):
            (folder / f"{name}{ending}").write_bytes(data)
    (folder / "x.elf").write_bytes(an_elf())
    os.mkfifo(folder / "pipe")
    (folder / "loop").symlink_to("loop")
    with open(folder / "sparse.img", "wb") as file:
        file.truncate(1 << 36)
    return [*map(str, sorted(folder.iterdir())), str(folder), "/dev/null", "/dev/zero", "/", "."]


def parameters(verb: str) -> list[inspect.Parameter]:
    """Of a verb's function; what the command line is made of."""
    return list(inspect.signature(getattr(import_module(f"shadowmmu.cli.{verb}"), verb)).parameters.values())


SMALL = {"max_exits": "3", "at": "3", "operations": "5", "seconds": "1", "hunts": "1"}
"""Options that keep a verb short."""
WORDS = ("special", "legacy", "off", "40", "0x1000", "5", "pae", "6.1", "bash", "nonpaging", NAMES[0], "np32_*", "[", "*/")
OPTIONS = ("--help", "--version", "--", "-", "@x", "-v")


def arguments(choose: Choose) -> None:
    """A command line, made of what the verbs' functions take: it ends with 0, 1 or 2, and with one line for 2."""
    verb = choose.choice((*VERBS, choose.choice(TEXTS)))
    known = parameters(verb) if verb in VERBS else []
    options = [f"--{one.name.replace('_', '-')}" for name in VERBS for one in parameters(name) if one.kind is one.KEYWORD_ONLY]
    words = [choose.choice(kind) for kind in (options, OPTIONS, WORDS, WORDS, TEXTS, files(), files(), [*map(str, NUMBERS)])]
    tokens = [verb, *(choose.choice(words) for _ in range(choose.randrange(5)))]
    quick = [word for one in known if one.name in SMALL for word in (f"--{one.name.replace('_', '-')}", SMALL[one.name])]
    if any(one.kind is not one.KEYWORD_ONLY for one in known):  # else it may do all there is
        quick.append(choose.choice((NAMES[0], "bash", "nobody", *files())))
    ends_well([*tokens[:1], *quick, *tokens[1:]])


def ends_well(tokens: list[str]) -> None:
    said, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(errors):
        code = call(tokens)
    assert code in (0, 1, 2)
    assert errors.getvalue().count("\n") == (code == 2), errors.getvalue()
    assert not set(errors.getvalue() + said.getvalue()) & set("\x1b\x07\x7f\u202e")


FORMATS = ("print fmt: ", "role.has_4_byte_gpte ? 4 : 8", "role.cr4_pae", "REC->ret == 4, REC->ret == 5", '"rwux"', "sp gen %u", "\n")


def format_files(choose: Choose) -> None:
    """Format files of a kernel's events, in a folder for each or one alone."""
    with tempfile.TemporaryDirectory() as folder:
        for event in choose.sample(("kvm_mmu_get_page", "fast_page_fault", "x"), choose.randint(0, 3)):
            file = Path(folder, event, "format")
            file.parent.mkdir()
            file.write_bytes(flip("".join(choose.choices(FORMATS, k=5)).encode(), choose))
        refuses_or_reads(lambda: kernel_of_formats(Path(folder)))


def suite_tree(choose: Choose) -> None:
    """A built tree of kvm-unit-tests, with images or what is none; those that can be run are, for a moment."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "x86")
        place.mkdir()
        Path(folder, "config.mak").write_text(choose.choice(("ARCH=x86_64\n",) * 5 + ("ARCH=i386\n", "ARCH=arm\n", "")))
        (place / "one.flat").write_bytes(choose.choice((an_elf(), fields(choose))))
        (place / "none.flat").write_bytes(b"\xf4")
        (place / "link.flat").symlink_to("/etc/passwd")
        os.mkfifo(place / "pipe.flat")
        text = "\n".join(suite_lines(choose)).encode("utf-8", "surrogateescape")
        (place / "unittests.cfg").write_bytes(flip(text, choose) if text and choose.random() < 0.3 else text)
        suite = refuses_or_reads(lambda: read_suite(Path(folder)))
        if suite is not None:
            (place / "one.log").write_bytes(flip(b"PASS: a\nFAIL: b\n", choose))
            to_junit(run_suite(suite, seconds=0.00001, beside=choose.choice((None, place))))


def suite_lines(choose: Choose) -> Iterator[str]:
    for number in range(choose.randint(0, 3)):
        yield f"[{choose.choice(('one', 'DEFAULT', number, *TEXTS))}]"
        yield f"file = {choose.choice(('one.flat', 'one.flat', 'one.flat', 'none.flat', 'pipe.flat', 'link.flat', '.', *TEXTS))}"
        for _ in range(choose.randrange(3)):
            option = choose.choice(("-cpu max,", "-cpu ,", "-m ", "")) + str(
                choose.choice((*NUMBERS, *TEXTS, "+svm,,-x2apic,=", "4g", "+,-"))
            )
            yield f"{choose.choice(SUITE_FIELDS)} = {option}"


SUITE_FIELDS = ("smp", "timeout", "arch", "groups", "check", "test_args", "qemu_params", "qemu_params", "extra_params", "other")


def saved_operations(choose: Choose) -> None:
    """What `fuzz --save` is said to have written, and did not."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "story")
        path.write_bytes("\n".join(choose.choices(TEXTS, k=4)).encode("utf-8", "surrogateescape"))
        refuses_or_reads(lambda: _again(path))
        if choose.random() < 0.2:
            path.write_text(a_list(choose))
            ends_well(["export", str(path), "--to", folder])


def a_list(choose: Choose) -> str:
    """One that makes sense line by line, or nearly so."""
    lines = ["# operations of shadowmmu", f"seed {choose.randrange(100)}", "roots special", "kernel 7.3", "modes pae 4-level npt-pae", ""]
    for _ in range(choose.randint(0, 12)):
        numbers = " ".join(choose.choice(("0x0", "0x1", "0x8", "0x2000", "0x7000", "0x80000031", "0x20", "0x900")) for _ in range(4))
        lines.append(f"vcpu {choose.randrange(2)} {choose.choice([kind.name.lower() for kind in Kind])} {numbers}")
    return "\n".join(lines) + "\n"


def corpus(choose: Choose) -> None:
    """What `fuzz --corpus` is said to have kept, lists and the seed to go on with."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, NEXT).write_bytes(choose.choice(TEXTS).encode("utf-8", "surrogateescape"))
        Path(folder, "a.ops").write_bytes("\n".join(choose.choices(TEXTS, k=4)).encode("utf-8", "surrogateescape"))
        refuses_or_reads(lambda: Corpus(Path(folder)).lists())
        Path(folder, NEXT).unlink()
        refuses_or_reads(lambda: Corpus(Path(folder)).lists())


PROPERTIES: dict[str, Property] = {
    "saved operations": saved_operations,
    "corpus": corpus,
    "format files": format_files,
    "suite": suite_tree,
    "capture file": capture_file,
    "kit folder": kit_folder,
    "TOML": description,
    "image": image,
    "bug": bug_file,
    "table of bugs": bug_table,
    "event text": event_text,
    "kernel's trace": kernel_trace,
    "arguments": arguments,
}
CHOICES = st.randoms(use_true_random=True)
