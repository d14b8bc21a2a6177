# SPDX-License-Identifier: GPL-2.0-only
"""Audits between thorough ones find what a thorough one finds: most at once, all of it at the next that is thorough."""

from guest_tables import entries, pae_guest, touch
from hypothesis import given, settings
from hypothesis import strategies as st
from poke import poke_host

from shadowmmu import Outcome, ShadowPageView, Vm
from shadowmmu.check.audit import Audits, audit

EVERY = 8


def guest() -> Vm:
    vm = pae_guest()
    for gva in (0x1000, 0x2000, 0x40003000):
        assert touch(vm, gva) in (Outcome.FIXED, Outcome.SPURIOUS)
    return vm


def used(vm: Vm, page: ShadowPageView) -> list[int]:
    """The entries in which there is something."""
    return [index for index, entry in enumerate(entries(vm, page)) if entry]


def pages(vm: Vm) -> list[ShadowPageView]:
    return [page for page in vm.shadow_pages() if used(vm, page)]


@settings(max_examples=60)
@given(st.data())
def test_what_happens_to_an_entry_that_is_known_is_seen_at_once(data: st.DataObject) -> None:
    vm = guest()
    audits = Audits(vm, every=EVERY)
    assert audits() == []
    page = data.draw(st.sampled_from(pages(vm)))
    index = data.draw(st.sampled_from(used(vm, page)))
    bit = data.draw(st.sampled_from((0, 1, 11, 12, 13, 20, 57, 58, 63)))
    poke_host(vm, page.hpa + 8 * index, entries(vm, page)[index] ^ 1 << bit)
    assert audits() == audit(vm)


@settings(max_examples=40)
@given(st.data())
def test_an_entry_that_nothing_names_is_seen_by_the_next_thorough_one(data: st.DataObject) -> None:
    vm = guest()
    audits = Audits(vm, every=EVERY)
    assert audits() == []
    page, other = (data.draw(st.sampled_from(pages(vm))) for _ in range(2))
    index = data.draw(st.integers(0, 511).filter(lambda index: index not in used(vm, page)))
    value = entries(vm, other)[data.draw(st.sampled_from(used(vm, other)))]
    poke_host(vm, page.hpa + 8 * index, value)
    found = [audits() for _ in range(EVERY)]
    assert found[-1] == audit(vm) != []
    assert next(filter(None, found)) == found[-1], "whatever is found, all of it is"


def test_the_last_is_thorough_if_it_is_asked_to_be() -> None:
    vm = guest()
    audits = Audits(vm, every=EVERY)
    assert audits() == []
    page = pages(vm)[-1]
    poke_host(vm, page.hpa + 8 * 500, entries(vm, page)[used(vm, page)[0]])
    assert audits(thorough=True) == audit(vm) != []
