# SPDX-License-Identifier: GPL-2.0-only
"""The event grammar: every event survives its text and its binary form; both sources give the same structs."""

import pytest

from shadowmmu import EventRecord, Vm
from shadowmmu.captures.find import find
from shadowmmu.check.compare.rename import Renaming
from shadowmmu.engine.arena.events import Event as Kind
from shadowmmu.errors import BadInput
from shadowmmu.trace import engine, events
from shadowmmu.trace.binary import read_binary, write_binary
from shadowmmu.trace.kernel import from_kernel, physical
from shadowmmu.trace.text import from_text, read_text, text_lines, to_text

SAMPLES = ["shadow/p32_flood", "nested/npae_slots", "nestedsp/sn32_paged", "shadow_npt1_tdp0/np32_dirty"]


@pytest.mark.parametrize("name", SAMPLES)
def test_forms_keep_everything(name):
    trace = find(name)[0].load().events
    assert list(read_text("\n".join(text_lines(trace)))) == trace
    assert read_binary(write_binary(trace)) == trace


def test_text_has_the_kernels_words():
    event = from_kernel({
        "ev": "kvm_mmu_get_page", "sys": "kvmmmu", "mmu_valid_gen": 0, "gfn": 0x18, "role": {"word": 0x3712},
        "root_count": 0, "unsync": 0, "created": 1, "ts": 5,
    })  # fmt: skip
    line = to_text(event)
    assert line.startswith("kvm_mmu_get_page gfn=18 role=3712 mmu_valid_gen=0 root_count=0 unsync=0 created=1   # l2 4-byte q0 wux")
    assert from_text(line) == event
    assert from_text("# a comment") is None


def test_unknown_tracepoints_are_kept():
    event = from_kernel({"ev": "kvm_pio", "sys": "kvm", "port": 0xE0, "val": 1, "ts": 1})
    assert event == events.Other(ev="kvm_pio", fields={"port": 0xE0, "val": 1})
    assert from_text(to_text(event)) == event


def test_direct_map_pointers_become_addresses():
    assert physical(0xFFFF_8880_0F81_9040) == 0x0F81_9040
    assert physical(0xFF11_0000_0F81_9040) == 0x0F81_9040
    assert physical(0x0F81_9040) == 0x0F81_9040


def test_every_record_of_the_engine_is_read():
    for kind in Kind:
        assert engine.from_record(EventRecord(int(kind), 0, (1, 2, 3, 4, 5, 6))).name


def test_records_of_a_vm():
    vm = Vm(memory_mib=4, roots="legacy")
    vm.start_trace()
    vcpu = vm.vcpus[0]
    vcpu.set_sregs(0x80010031, 0x1000, 0x10, 0)
    vm.write_guest(0x1000, (0x2007).to_bytes(4, "little"))
    vm.write_guest(0x2004, (0x3007).to_bytes(4, "little"))
    vcpu.enter()
    vcpu.page_fault(0x1000, 2)
    trace = engine.from_records(vm.records())
    assert events.PagingElement(pte=0x3007, level=1) in trace
    leaf = next(event for event in trace if isinstance(event, events.SetSpte))
    assert (leaf.gfn, leaf.level, leaf.spte & 0xFFF) == (3, 1, 0xE67)


def test_broken_files_are_named():
    with pytest.raises(BadInput, match="no trace"):
        read_binary(b"nonsense")
    with pytest.raises(BadInput, match="no capture is named"):
        find("shadow/none_such")


def test_renaming_is_one_to_one():
    names = Renaming()
    assert names.agree(1, 10)
    assert names.agree(2, 20)
    assert not names.agree(1, 20)
    assert not names.agree(3, 10)
    names.forget(10)
    assert names.agree(3, 10)
    assert names.agree(1, 11)
