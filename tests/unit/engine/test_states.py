# SPDX-License-Identifier: GPL-2.0-only
"""Whole states: what `save` gave comes back to the byte, and nothing else is let in."""

from __future__ import annotations

import gc

import pytest
from guest_tables import pae_guest, touch
from hypothesis import given, settings
from hypothesis import strategies as st

from shadowmmu import ROOT_DESIGNS, Vm
from shadowmmu.check.audit import audit


@pytest.mark.parametrize("roots", ROOT_DESIGNS)
def test_a_state_comes_back_and_the_vm_goes_on_from_there_alike(roots: str) -> None:
    vm = pae_guest(roots)
    touch(vm, 0x1000)
    before, pages = vm.save(), vm.shadow_pages()
    then = []
    for _ in range(2):
        touch(vm, 0x40003000)
        vm.unmap_hva(0x100000, 0x2000)
        touch(vm, 0x1000)
        then.append(vm.save())
        vm.restore(before)
        assert vm.save() == before and vm.shadow_pages() == pages
    assert then[0] == then[1] != before
    assert audit(vm) == []


VM = pae_guest(memory_mib=1)
STATE = VM.save()


@settings(max_examples=80)
@given(at=st.integers(0, len(STATE) - 1) | st.integers(0, 0x4000), flip=st.integers(1, 255), run=st.integers(1, 64))
def test_a_state_of_which_any_byte_has_changed_is_refused_and_the_vm_stays_as_it_is(at: int, flip: int, run: int) -> None:
    changed = bytearray(STATE)
    for i in range(at, min(at + run, len(STATE))):
        changed[i] ^= flip
    with pytest.raises(ValueError, match=r"^a state "):
        VM.restore(bytes(changed))
    assert VM.save() == STATE


@pytest.mark.parametrize("cut", [0, 1, 31, 32, 4096])
def test_a_state_of_another_length_is_refused(cut: int) -> None:
    with pytest.raises(ValueError, match=f"^a state of this VM has {len(STATE)} bytes, not "):
        VM.restore(STATE[: len(STATE) - cut - 1])


def test_a_state_of_a_vm_made_alike_at_the_same_place_is_refused() -> None:
    """Memory that one VM gave back the next one gets: all pointers are right, and yet it is another's state."""
    for _ in range(3):
        vm = Vm(memory_mib=1)
        state = vm.save()
        del vm
        gc.collect()
        with pytest.raises(ValueError, match=r"^a state.* of another VM"):
            Vm(memory_mib=1).restore(state)
