# SPDX-License-Identifier: GPL-2.0-only
"""A replay must find every sort of difference, at its place: captures are changed on purpose."""

import msgspec
import pytest

from shadowmmu.captures.capture import Capture, Dump, TableEntry
from shadowmmu.captures.find import find
from shadowmmu.check.replay.replay import replay
from shadowmmu.trace import events as e

BASIC, DIRTY, PERM = "shadow/p32_basic", "shadow/p64_dirty", "shadow/pae_perm"


def load(name: str) -> Capture:
    return find(name)[0].load()


def nth(capture: Capture, kind: type, number: int, **fields: object) -> int:
    """Index of the `number`th event of a kind behind the first guest entry, with these field values."""
    start = next(i for i, event in enumerate(capture.events) if isinstance(event, e.VmEntry))
    found = [
        i
        for i, event in enumerate(capture.events)
        if i > start and isinstance(event, kind) and all(getattr(event, k) == v for k, v in fields.items())
    ]
    return found[number]


def diverges(capture: Capture, index: int | None, said: str) -> None:
    result = replay(capture)
    assert result.divergence is not None, "nothing was found"
    assert said in result.divergence.what
    if index is not None:
        assert result.divergence.index == index
    assert result.divergence.operation


def changed(capture: Capture, index: int, **fields: object) -> Capture:
    events = list(capture.events)
    events[index] = msgspec.structs.replace(events[index], **fields)
    return msgspec.structs.replace(capture, events=events)


@pytest.mark.parametrize(
    ("kind", "field", "change"),
    [
        (e.GetPage, "role", lambda v: v ^ 0x2000),
        (e.GetPage, "gfn", lambda v: v + 1),
        (e.GetPage, "created", lambda v: not v),
        (e.PagingElement, "pte", lambda v: v ^ 4),
        (e.PagingElement, "level", lambda v: v + 1),
        (e.SetAccessedBit, "gpa", lambda v: v + 4),
        (e.SetSpte, "spte", lambda v: v ^ 2),
        (e.SetSpte, "spte", lambda v: v + 0x1000),
        (e.SetSpte, "sptep", lambda v: v + 8),
        (e.SetSpte, "level", lambda v: v + 1),
        (e.SpteRequested, "pfn", lambda v: v + 1),
        (e.UnsyncPage, "gfn", lambda v: v + 1),
        (e.SyncPage, "unsync", lambda v: not v),
        (e.WalkerError, "pferr", lambda v: v ^ 1),
        (e.MmuPageFaultRet, "ret", lambda v: 0),
        (e.Invlpg, "gva", lambda v: v + 0x1000),
    ],
)
def test_field(kind, field, change):
    capture = load(BASIC)
    index = nth(capture, kind, 0)
    value = change(getattr(capture.events[index], field))
    if kind is e.Invlpg:  # an input: what follows from it differs
        diverges(changed(capture, index, gva=value), index + 1, "invalidate_gva differs in gva")
        return
    diverges(changed(capture, index, **{field: value}), index, f"{kind.__struct_config__.tag} differs in {field}")


def test_entry_of_another_table():
    capture = load(BASIC)
    index = nth(capture, e.SetSpte, 5)
    diverges(changed(capture, index, sptep=capture.events[index].sptep ^ 0x1000), index, "kvm_mmu_set_spte differs in sptep")


def test_swapped():
    capture = load(BASIC)
    first = nth(capture, e.SetAccessedBit, 0)
    events = list(capture.events)
    assert isinstance(events[first + 1], e.SetAccessedBit)
    events[first], events[first + 1] = events[first + 1], events[first]
    diverges(msgspec.structs.replace(capture, events=events), first, "kvm_mmu_set_accessed_bit differs in gpa")


def test_missing():
    capture = load(BASIC)
    index = nth(capture, e.GetPage, 0)
    events = capture.events[:index] + capture.events[index + 1 :]
    diverges(msgspec.structs.replace(capture, events=events), index, "the engine kvm_mmu_get_page")


def test_surplus():
    capture = load(BASIC)
    index = nth(capture, e.SetSpte, 3)
    events = [*capture.events[: index + 1], capture.events[index], *capture.events[index + 1 :]]
    diverges(msgspec.structs.replace(capture, events=events), index + 1, "the kernel does kvm_mmu_set_spte, the engine")


def test_other_fault():
    capture = load(PERM)
    index = nth(capture, e.InjException, 0, exception=14)
    diverges(changed(capture, index, error_code=0x13), index, "gives the guest a #PF with error code 13")


def test_value_read():
    capture = load(BASIC)
    index = next(i for i, event in enumerate(capture.events) if isinstance(event, e.Marker) and " val=da7a0000" in event.text)
    text = capture.events[index].text.replace("da7a0000", "da7a0001")
    diverges(changed(capture, index, text=text), index, "the guest read da7a0001")


def test_dirty_log():
    capture = load(DIRTY)
    index = next(i for i, event in enumerate(capture.events) if isinstance(event, e.Marker) and event.text.startswith("H dirty gfn"))
    events = capture.events[:index] + capture.events[index + 1 :]
    diverges(msgspec.structs.replace(capture, events=events), None, "dirty log of slot 3")


def test_counter():
    capture = load(BASIC)
    counters = [msgspec.structs.replace(c, values={**c.values, "pf_fixed": 1}) if c.tag == "final" else c for c in capture.counters]
    diverges(msgspec.structs.replace(capture, counters=counters), None, "pf_fixed 1 in the kernel, 22 here")


def with_dump(capture: Capture, number: int, change) -> Capture:
    """One dump with one entry changed by `change(entry) -> entry or None`."""
    dumps = list(capture.dumps)
    old: Dump = dumps[number]
    entries = [new for new in map(change, old.entries) if new is not None]
    dumps[number] = msgspec.structs.replace(old, entries=entries)
    return msgspec.structs.replace(capture, dumps=dumps)


@pytest.mark.parametrize("flip", [0x2, 0x400, 0x800, 0x1000, 1 << 63])
def test_dumped_leaf(flip):
    capture = load(BASIC)

    def change(entry: TableEntry) -> TableEntry:
        return msgspec.structs.replace(entry, value=entry.value ^ flip) if (entry.level, entry.index) == (1, 8) else entry

    diverges(with_dump(capture, 5, change), None, "dump before-op-5: level 1 entry 008")


def test_dumped_link():
    """Two tables change places: each entry is plausible, the graph is not."""
    capture = load(BASIC)
    old = capture.dumps[5]
    links = [entry for entry in old.entries if entry.level == 2]
    assert len(links) >= 2
    swap = {links[0].value: links[1].value, links[1].value: links[0].value}

    def change(entry: TableEntry) -> TableEntry:
        return msgspec.structs.replace(entry, value=swap.get(entry.value, entry.value))

    diverges(with_dump(capture, 5, change), None, "is another one here")


def test_dumped_entry_missing():
    capture = load(BASIC)
    diverges(with_dump(capture, 5, lambda entry: None if (entry.level, entry.index) == (1, 8) else entry), None, "is 0 in the kernel")


def test_cpu_bits_do_not_matter():
    """Accessed and dirty bits of shadow entries are the CPU's."""
    capture = load(BASIC)
    assert replay(with_dump(capture, 5, lambda entry: msgspec.structs.replace(entry, value=entry.value | 0x20))).ok


def test_addresses_do_not_matter():
    """Another host has the tables and the guest's memory elsewhere: the renaming finds out."""
    capture = load(BASIC)
    away = 1 << 35
    names = {e.SetSpte: ("spte", "sptep"), e.LoadPgd: ("root",), e.InvalidateGva: ("root",)}
    events = []
    for event in capture.events:
        fields = {name: getattr(event, name) + away for name in names.get(type(event), ()) if getattr(event, name) < 1 << 63}
        if isinstance(event, e.SpteRequested):
            fields["pfn"] = event.pfn + (away >> 12)
        events.append(msgspec.structs.replace(event, **fields) if fields else event)
    dumps = [
        msgspec.structs.replace(
            dump,
            root=dump.root + away,
            entries=[TableEntry(x.level, x.table + away, x.index, x.value + away) for x in dump.entries],
        )
        for dump in capture.dumps
    ]
    frames = [(slot, gfn, pfn + (away >> 12), count) for slot, gfn, pfn, count in capture.frames]
    assert replay(msgspec.structs.replace(capture, events=events, dumps=dumps, frames=frames)).ok
