# SPDX-License-Identifier: GPL-2.0-only
"""Shadow pages found by the index as in the kernel's hash: the same page, the same count of collisions. And what a VM costs."""

from __future__ import annotations

import random
from collections import defaultdict
from pathlib import Path

import pytest
from guest_tables import LONG, PG_WP, READ, put

from shadowmmu import Vm
from shadowmmu.check.audit import audit
from shadowmmu.engine.arena.events import Event

PAGE = 4096
DIRECTORY = 0x3000
TABLES = range(0x1000, 0x10000)  # gfns that the tables of level 1 may have
KIB_A_PAGE = 8.3
CREATED = 1 << 9  # in an event's state word


def bucket(gfn: int) -> int:
    """hash_64(gfn, 12)"""
    return gfn * 0x61C8864680B583EB % (1 << 64) >> 52


def crowded(count: int) -> list[int]:
    """Gfns, `count` each, of a few of the kernel's buckets."""
    by_bucket = defaultdict(list)
    for gfn in TABLES:
        by_bucket[bucket(gfn)].append(gfn)
    fullest = sorted(by_bucket.values(), key=len)[-4:]
    return [gfn for gfns in fullest for gfn in gfns[:count]]


class Hash:
    """The kernel's buckets, newest page first, as the events tell of pages; and the most collisions of any look-up."""

    def __init__(self) -> None:
        self.buckets: dict[int, list[tuple[int, int]]] = defaultdict(list)
        self.most = 0

    def hear(self, kind: int, gfn: int, role: int, created: bool) -> None:
        pages = self.buckets[bucket(gfn)]
        if kind == Event.KVM_MMU_PREPARE_ZAP_PAGE:
            pages.remove((gfn, role))
        elif kind == Event.KVM_MMU_GET_PAGE:
            passed = pages if created else pages[: pages.index((gfn, role))]
            self.most = max(self.most, sum(other != gfn for other, _ in passed))
            if created:
                pages.insert(0, (gfn, role))


def long_mode_guest(**options: int) -> Vm:
    """CR3 0x1000, with one directory, DIRECTORY, and no tables below it yet."""
    vm = Vm(memory_mib=256, **options)
    put(vm, 0x1000, 0x2007)
    put(vm, 0x2000, DIRECTORY | 7)
    assert vm.vcpus[0].set_sregs(PG_WP, 0x1000, 0x20, LONG)
    vm.vcpus[0].enter()
    return vm


@pytest.mark.parametrize("seed", range(4))
def test_look_ups_collide_as_in_the_kernels_buckets(seed: int) -> None:
    """Tables, of which many share a bucket, are linked with changing rights, so that a gfn has pages of several roles, and zapped."""
    rng = random.Random(seed)
    vm = long_mode_guest(shadow_pages=400)
    vcpu = vm.vcpus[0]
    gfns = crowded(12)
    for gfn in gfns:
        put(vm, gfn * PAGE, 0x4067)
    model = Hash()
    vm.start_trace(1 << 16)
    for _ in range(600):
        gfn, entry = rng.choice(gfns), rng.randrange(64)
        if rng.random() < 0.1:
            vm.unprotect_page(gfn)
        else:
            vcpu.write_emulated(DIRECTORY + 8 * entry, (gfn * PAGE | rng.choice((5, 7))).to_bytes(8, "little"))
            vcpu.enter()
            vcpu.page_fault(entry << 21, READ)
    assert vm.lost_events == 0
    for record in vm.records():
        if record.kind in (Event.KVM_MMU_GET_PAGE, Event.KVM_MMU_PREPARE_ZAP_PAGE):
            gfn, role, state = record.fields[:3]
            model.hear(record.kind, gfn, role, bool(state & CREATED))
    assert vm.counters()["max_mmu_page_hash_collisions"] == model.most > 8
    assert audit(vm) == []


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def test_a_large_vm_takes_no_memory_before_it_is_used() -> None:
    before = resident()
    vm = Vm(memory_mib=16384)
    assert resident() - before < 4 << 20
    vm.write_guest(0x1000, b"\1")
    assert vm.read_guest((16384 << 20) - PAGE, 1) == b"\0"


def test_what_a_shadow_page_takes() -> None:
    """Its table, its translations, its header, and its part of hash and index; the guest's own tables are touched before."""
    count = 512 * 8
    vm = long_mode_guest(shadow_pages=count + 100)
    for directory in range(8):
        put(vm, 0x2000 + 8 * directory, 0x10000 + directory * PAGE | 7)
    for number in range(count):
        put(vm, 0x10000 + 8 * number, 0x1000000 + number * PAGE | 7)
        put(vm, 0x1000000 + number * PAGE, 0x4067)
    vm.vcpus[0].touch_range(0, 8, 1 << 30, READ)
    before = resident()
    vm.vcpus[0].touch_range(0, count, 1 << 21, READ)
    assert resident() - before < KIB_A_PAGE * 1024 * count
    assert vm.counters()["n_used_mmu_pages"] == count + 8 + 2
