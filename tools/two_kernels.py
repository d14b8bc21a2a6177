# SPDX-License-Identifier: GPL-2.0-only
"""The same guests on two real kernels, with bare roots and with special ones: what each kernel did, and what the guests saw.

Example: python tools/two_kernels.py build/capture/6.1 shadow extra nested_tdp0
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from shadowmmu.captures.capture import Capture
from shadowmmu.captures.kit import EVENTS, read_capture
from shadowmmu.errors import BadInput
from shadowmmu.trace import events as e
from shadowmmu.trace.events import AnyEvent, Marker

LETTERS: dict[str, tuple[str, Callable[[AnyEvent], bool]]] = {
    "faults": ("a", lambda ev: isinstance(ev, e.MmuPageFault)),
    "root loads": ("d e", lambda ev: isinstance(ev, e.MmuLoad)),
    "level-2 look-ups": ("a", lambda ev: isinstance(ev, e.GetPage) and ev.role & 15 == 2),
    "pages made": ("a b", lambda ev: isinstance(ev, e.GetPage) and ev.created),
    "zaps": ("b d", lambda ev: isinstance(ev, e.PrepareZapPage)),
    "zaps of a held page": ("b", lambda ev: isinstance(ev, e.PrepareZapPage) and ev.root_count > 0),
    "roots freed": ("d e", lambda ev: isinstance(ev, e.FreeRoots)),
    "syncs": ("a", lambda ev: isinstance(ev, e.SyncPage)),
}
"""What is counted, and the letters of docs/rules.md by which it may differ."""


def lived(capture: Capture) -> list[AnyEvent]:
    """Its events until the VM is closed."""
    end = next((at for at, ev in enumerate(capture.events) if isinstance(ev, Marker) and ev.text == "H closing"), None)
    return capture.events[:end]


def heard(events: Iterable[AnyEvent]) -> list[str]:
    """All that the guest told its host, and what the host told of dirty pages."""
    told = (ev.text for ev in events if isinstance(ev, Marker))
    return [text for text in told if text.startswith(("G ", "H dirty"))]


def count(events: Iterable[AnyEvent]) -> Counter[str]:
    return Counter(name for ev in events for name, (_, is_one) in LETTERS.items() if is_one(ev))


def compare(kit: Path, name: str) -> tuple[int, int, Counter[str], Counter[str]]:
    """Guests, those that told another thing, and the counts of the legacy and of the special kernel."""
    legacy, special = kit / "captures" / name, kit / "captures" / f"{name}_special"
    guests = sorted(path.name.removesuffix(EVENTS) for path in special.glob("*" + EVENTS) if (legacy / path.name).is_file())
    if not guests:
        raise BadInput(f"{kit} has no set {name} of both kernels: capture.py run {name}, and again with --edit special")
    counts, differ = (Counter[str](), Counter[str]()), 0
    for guest in guests:
        both = [lived(read_capture(folder, guest)) for folder in (legacy, special)]
        for counted, events in zip(counts, both, strict=True):
            counted.update(count(events))
        if heard(both[0]) != heard(both[1]):
            differ += 1
            print(f"{name}/{guest} told another thing", file=sys.stderr)
    return len(guests), differ, *counts


def main(arguments: list[str]) -> int:
    """Exit code 1 if a guest could tell the kernels apart."""
    kit, *names = arguments
    guests = differ = 0
    total: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
    for name in names:
        number, apart, *counts = compare(Path(kit), name)
        guests, differ = guests + number, differ + apart
        for summed, counted in zip(total, counts, strict=True):
            summed.update(counted)
    print(f"{guests} guests on both kernels, {differ} could tell them apart")
    print(f"{'':20} {'legacy':>9} {'special':>9}  letters")
    for name, (letters, _) in LETTERS.items():
        print(f"{name:20} {total[0][name]:9,} {total[1][name]:9,}  {letters}")
    return int(differ > 0)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]) if len(sys.argv) > 2 else "usage: two_kernels.py KIT SET...")
    except BadInput as error:
        print(f"two_kernels.py: {error}", file=sys.stderr)
        sys.exit(2)
