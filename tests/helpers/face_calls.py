# SPDX-License-Identifier: GPL-2.0-only
"""Hostile calls of the face, made up from what its classes have: every public method with arguments by the names of its parameters."""

from __future__ import annotations

import inspect
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from face_child import Answer, Call, Symbol
from hypothesis import strategies as st

from shadowmmu import ROOT_DESIGNS, Vcpu, Vm, VmConfig
from shadowmmu.engine.face.kernels import KERNELS

MIB, HIGH, MEMORY = 1 << 20, 1 << 32, 4 << 20
EDGES = (0, 1, 7, 8, 64, 0xFFF, 0x1000, 0x1FF8, MEMORY - 1, MEMORY, HIGH, (1 << 40) - 1, 1 << 48, 1 << 52, (1 << 64) - 1, -1, 1 << 64)
NUMBER = st.one_of(st.sampled_from(EDGES), st.integers(0, MEMORY), st.integers(0, (1 << 64) - 1))
SMALL = st.integers(-1, 9)
PAGE = st.integers(0, 1024).map(lambda page: page << 12)
GVA = st.integers(0, 0x3F).map(lambda page: page << 12) | st.sampled_from((0x200000, 0x40001000, 0x8000201000)) | NUMBER
HPA = (
    st.tuples(st.just("entry"), st.integers(0, 20), st.integers(0, 511)).map(lambda at: Symbol(*at))
    | st.integers(0, MEMORY).map(lambda at: HIGH + at)
    | NUMBER
)
SIZE = st.sampled_from((0, 8, 0x1000, 0x2000, 0x3000, 0x200000, 0x400000)) | NUMBER
CR0 = st.sampled_from((0x10, 0x11, 0x80000011, 0x80010011, 0x80000000, 0xE0000011, 1 << 40 | 1, (1 << 64) - 1))
CR3 = st.sampled_from((0, 0x1000, 0x1020, 0x3000, 0x5007, MEMORY, 1 << 40, (1 << 64) - 1))
CR4 = st.sampled_from((0, 0x10, 0x20, 0xA0, 0x1020, 0x300020, 0x20020, 0x400020, (1 << 64) - 1))
EFER = st.sampled_from((0, 0x500, 0xD00, 0x800, 0x100, 0x400, (1 << 64) - 1))
CODE = st.integers(0, 31) | st.sampled_from((1 << 32 | 6, 1 << 33 | 7)) | NUMBER
BYTES = st.binary(max_size=16)
FLIPS = st.lists(st.tuples(st.integers(0, 1 << 24), st.integers(1, 255)), max_size=3).map(tuple)
STATE = st.tuples(st.just("state"), st.integers(0, 4), st.integers(0, 1), FLIPS).map(lambda given: Symbol(*given))
ARGUMENTS: dict[str, st.SearchStrategy[Any]] = {
    "access": CODE,
    "address": GVA,
    "rip": GVA,
    "user": st.booleans(),
    "faulted": st.booleans(),
    "writes_tables": st.booleans(),
    "address_space": st.integers(0, 2),
    "at_entry": st.booleans(),
    "capacity": st.sampled_from((0, 1, 64)) | NUMBER,
    "count": SMALL | NUMBER,
    "cr0": CR0,
    "cr3": CR3,
    "cr4": CR4,
    "data": BYTES,
    "efer": EFER,
    "eptp": st.just(0x101E) | st.integers(0, 0xFF).map(lambda low: 0x1000 | low) | NUMBER,
    "error_code": CODE,
    "exec_only": st.booleans(),
    "gfn": st.integers(0, 1024) | NUMBER,
    "gpa": PAGE | NUMBER,
    "gva": GVA,
    "hpa": HPA,
    "huge_level": SMALL,
    "bitmap": st.just(bytes(range(8))) | BYTES,
    "event": SMALL,
    "first_page": st.sampled_from((0, 64)) | NUMBER,
    "initially_set": st.booleans(),
    "manual": st.booleans(),
    "pages": st.sampled_from((64, 1)) | NUMBER,
    "hva": PAGE | st.sampled_from((0, 0x200000)) | NUMBER,
    "level": SMALL,
    "limit": st.integers(60, 200) | NUMBER,
    "log_dirty": st.booleans(),
    "ncr3": st.sampled_from((0x1000, 0x3000, 0x101F, 0x7FFFFFE0)) | NUMBER | st.none(),
    "point": SMALL,
    "readonly": st.booleans(),
    "size": SIZE,
    "unused": st.sampled_from((0, 1 << 63)) | NUMBER,
    "slot": SMALL,
    "state": STATE | BYTES,
    "step": st.sampled_from((8, 0x1000, 1 << 30)) | NUMBER,
    "value": NUMBER,
    "writable": st.booleans(),
    "write": st.booleans(),
}
SPECIAL: dict[str, list[st.SearchStrategy[tuple[Any, ...]]]] = {
    "Vcpu.set_cr0": [st.tuples(CR0)],
    "Vcpu.set_cr3": [st.tuples(CR3)],
    "Vcpu.set_cr4": [st.tuples(CR4)],
    "Vcpu.set_efer": [st.tuples(EFER)],
    "Vm.write_host": [st.tuples(st.integers(0, 20), st.integers(0, 511)).map(lambda at: (Symbol("entry", *at), Symbol("marked", *at)))],
    "Vm.write_guest": [
        st.tuples(st.integers(0, 0xFFF), st.integers(0, 8)).map(lambda at: (8 * at[0], (at[1] << 12 | 0x67).to_bytes(8, "little")))
    ],
    "Vm.set_memslot": [
        st.tuples(st.just(1), st.sampled_from((0x3FE00000, 0x400000, 0x401000)), st.sampled_from((0, 0x200000)), st.just(0x200000)),
        st.tuples(st.just(0), st.just(0), st.sampled_from((MEMORY, MEMORY, 0))),
    ],
    "Vm.set_host_page_level": [st.tuples(st.sampled_from((0, 0x200000)), st.just(0x200000), st.integers(1, 2))],
}
OPTIONS: dict[str, st.SearchStrategy[Any]] = {
    "memory_mib": st.sampled_from((4, 4, 4, 0, 1)),
    "vcpus": st.integers(1, 2),
    "maxphyaddr": st.sampled_from((40, 32, 51)),
    "cr4_reserved": st.sampled_from((0, 0x20, 0x1000)),
    "efer_reserved": st.sampled_from((0, 0x800)),
    "pages_1g": st.booleans(),
    "guest_vendor": st.sampled_from(("host", "svm", "vmx")),
    "mmio_caching": st.booleans(),
    "eager_page_split": st.booleans(),
    "vendor": st.sampled_from(("svm", "vmx")),
    "tdp": st.booleans(),
    "host_levels": st.sampled_from((4, 5, 3)),
    "host_maxphyaddr": st.sampled_from((46, 52, 36)),
    "user_mib": st.sampled_from((0, 4, 8)),
    "roots": st.sampled_from(ROOT_DESIGNS),
    "kernel": st.sampled_from(sorted(KERNELS)),
    "max_huge_level": st.integers(1, 3),
    "nx_huge_pages": st.booleans(),
    "shadow_pages": st.sampled_from((0, 0, 64, 1)),
    "table_pages": st.sampled_from((0, 0, 150, 1)),
}
OFTEN = {
    "Vcpu.enter": 12,
    "Vcpu.page_fault": 12,
    "Vcpu.set_sregs": 3,
    "Vcpu.nested_vmrun": 4,
    "Vcpu.nested_vmentry": 4,
    "Vcpu.nested_vmexit": 2,
    "Vm.set_memslot": 4,
    "Vm.write_guest": 4,
}


def public(kind: type) -> Iterator[str]:
    return (name for name in dir(kind) if not name.startswith("_"))


def keywords_of(strategies: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[tuple[tuple[str, Any], ...]]:
    return st.fixed_dictionaries({}, optional=strategies).map(lambda given: tuple(given.items()))


def calls_of(kind: type, name: str, targets: tuple[str, ...]) -> st.SearchStrategy[Call]:
    """Calls of one method; of a property, reading it and storing into it. A parameter that `ARGUMENTS` does not know is a KeyError."""
    found, where = getattr(kind, name), st.sampled_from(targets)
    if not callable(found):
        return st.tuples(where, st.just(name), st.just(()) | st.tuples(NUMBER | st.booleans())).map(lambda call: Call(*call))
    parameters = [p for p in inspect.signature(found).parameters.values() if p.name != "self"]
    needed = st.tuples(*(ARGUMENTS[p.name] for p in parameters if p.default is p.empty))
    optional = keywords_of({p.name: ARGUMENTS[p.name] for p in parameters if p.default is not p.empty})
    shaped = SPECIAL.get(f"{kind.__name__}.{name}", ())
    return st.tuples(where, st.just(name), st.one_of(needed, *shaped), optional).map(lambda call: Call(*call))


def ways() -> list[st.SearchStrategy[Call]]:
    """A strategy for each public name, for some of them several times."""
    found = []
    for kind, targets in ((Vcpu, ("vcpu 0", "vcpu 0", "vcpu 1", "other vcpu 0")), (Vm, ("vm", "vm", "vm", "other vm"))):
        for name in public(kind):
            found += [calls_of(kind, name, targets)] * OFTEN.get(f"{kind.__name__}.{name}", 1)
    return found


WAYS = ways()


@st.composite
def any_call(draw: st.DrawFn) -> Call:
    return draw(WAYS[draw(st.integers(0, len(WAYS) - 1))])


MODES = st.sampled_from(
    (
        (0x11, 0, 0, 0),
        (0x80010011, 0x1000, 0x10, 0),
        (0x80010011, 0x1000, 0x20, 0x800),
        (0x80010011, 0x1000, 0x20, 0xD00),
        (0x80000011, 0x1000, 0x1020, 0x500),
    )
)
"""Registers that are legal together: without paging, and of 2, 3, 4 and 5 levels."""


@st.composite
def any_calls(draw: st.DrawFn) -> list[Call]:
    """In any case some calls; most often after a guest runs in a mode of its own, and L2 in another."""
    calls = draw(st.lists(any_call(), min_size=5, max_size=50))
    if draw(st.booleans()):
        entry = draw(st.sampled_from(("nested_vmrun", "nested_vmentry")))
        calls.insert(0, Call("vcpu 0", entry, (*draw(MODES), draw(ARGUMENTS["ncr3" if entry == "nested_vmrun" else "eptp"]))))
    if draw(st.integers(0, 3)):
        calls.insert(0, Call("vcpu 0", "set_sregs", draw(MODES)))
    return calls


def any_options() -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({field.name: OPTIONS[field.name] for field in fields(VmConfig)})


class Child:
    """The process in which the calls are made, made anew when it has died."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as the child)

    def ask(self, options: dict[str, Any], calls: list[Call]) -> Answer:
        if self._process is None:
            self._errors.seek(0)
            self._errors.truncate()
            command = [sys.executable, "-c", "from face_child import serve; serve()"]
            path = [str(Path(__file__).parent), *sys.path]  # the engine that is tested, be it a sanitizer's build
            where = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
            self._process = subprocess.Popen(command, env=where, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors)
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            pickle.dump((options, calls), self._process.stdin)
            self._process.stdin.flush()
            answer: Answer = pickle.load(self._process.stdout)
        except (EOFError, BrokenPipeError):
            return Answer(f"the process died of signal {-self.close()}\n{self._last_words()}", frozenset())
        return answer

    def _last_words(self) -> str:
        self._errors.seek(0)
        return self._errors.read()[-2000:].decode(errors="replace")

    def close(self) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        process.communicate()
        return process.returncode
