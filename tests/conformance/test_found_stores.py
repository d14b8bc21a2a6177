# SPDX-License-Identifier: GPL-2.0-only
"""Guests without a list of what they store: a replay does what the VMM has found."""

import msgspec
import pytest

from shadowmmu.captures.find import find
from shadowmmu.check.replay.replay import Replay
from shadowmmu.trace.events import Marker

HANDLERS = ("image/handlers32", "image/handlers64")
"""They map what is missing, count, and load CR3 in handlers of #PF, INT n, INT3 and SYSCALL, which no exit shows."""
IMAGES = ("image/np32_basic", "image/pae_cr3", "image/p64_pde", "image/real16", *HANDLERS)


def is_store(event):
    return isinstance(event, Marker) and event.text.startswith("H stored ")


def is_operand(event):
    return isinstance(event, Marker) and event.text.startswith("H operand ")


@pytest.mark.parametrize("roots", ["legacy", "special", "prefilled"])
@pytest.mark.parametrize("name", IMAGES)
def test_every_store_that_was_found_is_done(name, roots):
    capture = find(name)[0].load()
    assert capture.guest.ops == []
    result = Replay(capture, roots, judged=True).run()
    assert result.ok, result.divergence
    assert result.stores == sum(map(is_store, capture.events)) > 0


def test_a_store_that_is_left_out_is_missed():
    """An entry of the guest's tables, which the kernel's next sync reads."""
    capture = find("image/pae_cr3")[0].load()
    events = [event for event in capture.events if not is_store(event)]
    found = Replay(msgspec.structs.replace(capture, events=events)).run().divergence
    assert found is not None and found.what.startswith("dump before-op-37: level 1 entry 000")


def test_a_store_that_our_tables_do_not_allow_is_found():
    capture = find("image/np32_basic")[0].load()
    at = next(at for at, event in enumerate(capture.events) if is_store(event))
    events = list(capture.events)
    events[at] = Marker(text="H stored va=7ff000 gpa=7ff000 len=4 cpl=0 val=1")
    found = Replay(msgspec.structs.replace(capture, events=events)).run().divergence
    assert found is not None and found.what == "the guest stored to 7ff000 without a fault, but our tables do not allow it"


@pytest.mark.parametrize("name", HANDLERS)
def test_what_a_handler_stores_is_told_before_what_it_does_next(name):
    """Told where the handler leaves the guest, it is too late: the kernel has read the entry when CR3 was loaded."""
    capture = find(name)[0].load()
    events = list(capture.events)
    load = next(at for at, event in enumerate(events) if is_operand(event))
    stores = [at for at in range(load) if is_store(events[at])]
    late = [event for at, event in enumerate(events[: load + 12]) if at not in stores] + [events[at] for at in stores] + events[load + 12 :]
    found = Replay(msgspec.structs.replace(capture, events=late)).run().divergence
    assert found is not None


@pytest.mark.parametrize("name", HANDLERS)
def test_what_a_register_gives_to_cr3_the_vmm_tells(name):
    capture = find(name)[0].load()
    untold = [event for event in capture.events if not is_operand(event)]
    found = Replay(msgspec.structs.replace(capture, events=untold)).run().divergence
    assert found is not None and "no operation of the guest tells the value" in found.what
