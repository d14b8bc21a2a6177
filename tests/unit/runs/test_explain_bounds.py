# SPDX-License-Identifier: GPL-2.0-only
"""A trace may name something new in each line: what is remembered of it stays as small, and it is said that some was forgotten."""

from __future__ import annotations

import gc
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from shadowmmu.errors import BadInput
from shadowmmu.runs.explained import answers, explain, pages, source, vms, walks
from shadowmmu.runs.explained.commonest import keep_commonest
from shadowmmu.runs.explained.explain import CROWDED, FORGOTTEN, RARE, Explainer
from shadowmmu.runs.explained.source import count_file
from shadowmmu.trace.ftrace.guess import said
from shadowmmu.trace.ftrace.reader import LineReader
from shadowmmu.trace.text import read_text

FRONT = " qemu-{pid} [000] .... 1.0: "
PAGE = "sp gen 0 gfn {n:x} l1 8-byte q0 wux nxe ad root 1 sync"
FAULT = "kvm_page_fault: vcpu 0 rip 0x1 address 0x1000 error_code 0x2"
WALK = "kvm_mmu_pagetable_walk: addr 1000 pferr 0 "
LINES: dict[str, tuple[list[str], str]] = {
    "names": (["kvm_e{n}: x"], RARE),
    "exits": (["kvm_exit: vcpu 0 reason r{n} rip 0x1 info1 0x0 info2 0x0"], RARE),
    "roots": (["kvm_cr: cr_write 3 = 0x{n:x}", "kvm_mmu_sync_page: sp gen 0 gfn 1 l1 8-byte q0 wux nxe ad root 0 unsync"], RARE),
    "pages": ([f"kvm_mmu_get_page: {PAGE} new"], FORGOTTEN),
    "pages that were there": ([f"kvm_mmu_get_page: {PAGE} existing"], FORGOTTEN),
    "zaps": ([f"kvm_mmu_prepare_zap_page: {PAGE}"], FORGOTTEN),
    "zaps of invalid pages": ([f"kvm_mmu_prepare_zap_page: {PAGE.replace('wux', 'wux invalid')}"], ""),
    "roles": (["kvm_mmu_get_page: gfn=0x1 role={n} mmu_valid_gen=0 root_count=0 unsync=0 created=0"], FORGOTTEN),
    "faults": (["kvm_page_fault: vcpu 0 rip 0x1 address 0x{n:x}000 error_code 0x2"], FORGOTTEN),
    "entries": (["kvm_mmu_set_spte: gfn {n:x}000 spte 3 (rwx) level 1 at 1000"], FORGOTTEN),
    "tables": ([WALK, "kvm_mmu_paging_element: pte {n:x}001 level 3"], FORGOTTEN),
    "tables below one": ([WALK, "kvm_mmu_paging_element: pte 7001 level 3", "kvm_mmu_paging_element: pte {n:x}001 level 2"], FORGOTTEN),
    "modes": ([FAULT, WALK, "kvm_mmu_paging_element: pte 7001 level 2", f"kvm_mmu_get_page: {PAGE} existing"], FORGOTTEN),
    "vCPUs": (["kvm_entry: vcpu {n}, rip 0x1"], CROWDED),
    "threads": (["kvm_entry: vcpu 0, rip 0x1"], CROWDED),
    "long names": (["kvm_" + "e" * 5_000 + "{n}: x"], ""),
    "marks": (["tracing_mark_write: {n} " + "x" * 5_000], ""),
    "levels": (["kvm_mmu_set_spte: gfn {n:x} spte 3 (rwx) level 4000000000 at 1000"], ""),
}


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bounds, a thousandth of them."""
    for module in (explain, pages, answers, source, vms):
        for name, value in (("KINDS", 10), ("REMEMBERED", 300), ("WEIGHED", 64), ("VCPUS", 20), ("VMS", 10)):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(pages, "MOST_GONE", 100)
    monkeypatch.setattr(walks, "MOST_TABLES", 600)


def lines(kind: str, until: int) -> Iterator[str]:
    for n in range(1, until):
        for text in LINES[kind][0]:
            yield (FRONT + text).format(n=n, pid=n if kind in ("threads", "vCPUs") else 7)


@pytest.mark.parametrize("kind", LINES)
@pytest.mark.usefixtures("narrow")
def test_what_is_remembered_does_not_grow_with_the_trace(kind: str) -> None:
    explainer, reader = Explainer(said((6, 1))), LineReader(said((6, 1)), False)
    held = []
    tracemalloc.start()
    try:
        for event in reader.read(lines(kind, 4000)):
            explainer.read([event])
            if not reader.lines % 500:
                gc.collect()
                held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert max(held[1:]) < held[0] + 200_000
    note = LINES[kind][1]
    assert (note in explainer.explanation().notes) == bool(note)


def test_names_are_counted_in_as_little(narrow: None, tmp_path: Path) -> None:
    path = tmp_path / "trace"
    with path.open("w") as file:
        for n in range(100_000):
            file.write(f" qemu-7 [000] .... 1.0: kvm_entry: vcpu 0\n qemu-7 [000] .... 1.0: kvm_e{n}: {'x' * 40}\n")
    told = count_file(path)
    assert told.notes == [RARE] and len(told.names) <= 20
    assert next(iter(told.names.items())) == ("kvm_entry", 100_000) and told.events == 200_000 and told.lines >= 200_000


def test_the_commonest_are_kept() -> None:
    counts = Counter({n: n for n in range(21)})
    assert not keep_commonest(counts, 11) and len(counts) == 21
    assert keep_commonest(counts, 10) and counts == Counter({n: n for n in range(11, 21)})


def test_a_number_longer_than_the_kernel_s_is_refused() -> None:
    with pytest.raises(BadInput, match="gfn has 5000 digits"):
        list(read_text(f"kvm_mmu_set_spte gfn={'f' * 5000} spte=1 level=1 sptep=0"))
