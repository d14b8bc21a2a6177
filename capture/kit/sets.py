# SPDX-License-Identifier: GPL-2.0-only
"""The sets: which guests there are, and on which hosts they are captured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from kit import apart, edits, memslots, nested, new_rules, rights, roots
from kit.by_seed import BySeed
from kit.errors import KitError
from kit.guest import FLAT, P32, P57, P64, PAE32, REAL, Guest, Mode, Paged
from kit.random_guest import RandomGuest
from kit.random_l2 import RandomNested, RandomWithoutNpt
from kit.run import Host
from kit.svm import Hypervisor
from kit.wild_guest import WildGuest
from kit.wild_turns import WildTurns

PAGED = (P32, PAE32, P64)
SHADOW = {
    "basic": rights.basic, "perm": rights.perm, "wp": rights.wp, "big": edits.big, "cr3": edits.cr3, "pde": edits.pde,
    "flood": edits.flood, "mmio": memslots.mmio, "slots": memslots.slots, "dirty": memslots.dirty, "ctl": rights.ctl,
    "smep": rights.smep,
}  # fmt: skip
EXTRA = {"flood2": edits.flood2, "unsync2": edits.unsync2, "recycle": edits.recycle}
UNPAGED = {"basic": memslots.flat_basic, "mmio": memslots.mmio, "slots": memslots.slots, "dirty": memslots.dirty}

APART = {"nowhere": apart.nowhere, "invlpg": apart.invlpg, "syncdirty": apart.sync_dirty}
NESTED = {
    "basic": nested.basic, "high": nested.high, "big": nested.big, "ncr3": nested.ncr3, "slots": nested.slots, "l2pg": nested.l2pg,
}  # fmt: skip
L2_PAGED = frozenset({"l2pg", "pdptes", "lma"})
"""Scenarios whose L2 has tables of its own."""
TAGS, TAGS_57 = {mode: mode.tag for mode in PAGED}, {P57: P57.tag}
L1_TAGS = {P32: "n32", PAE32: "npae", P64: "n64"}
WITHOUT_NPT_TAGS = {mode: f"s{L1_TAGS[mode]}" for mode in (P32, PAE32)}


def _about(play: Callable[..., None]) -> str:
    return " ".join((play.__doc__ or "").split())


def paged(mode: Mode, name: str, play: Callable[[Paged], None]) -> Paged:
    """A guest with tables, played through a scenario."""
    guest = Paged(f"{mode.tag}_{name}", mode, _about(play), wp=name != "wp")
    play(guest)
    return guest


def unpaged(mode: Mode, name: str, play: Callable[[Guest], None]) -> Guest:
    guest = Guest(f"{mode.tag}_{name}", mode, _about(play))
    play(guest)
    return guest


def shadow() -> Iterator[Guest]:
    for mode in PAGED:
        for name, play in SHADOW.items():
            yield paged(mode, name, play)
    for name, flat in UNPAGED.items():
        yield unpaged(FLAT, name, flat)
    yield unpaged(REAL, "basic", memslots.real_basic)


def extra() -> Iterator[Guest]:
    for mode in PAGED:
        for name, play in EXTRA.items():
            yield paged(mode, name, play)


def p57() -> Iterator[Guest]:
    for name in ("basic", "cr3", "big", "perm"):
        yield paged(P57, name, SHADOW[name])
    for name in ("basic", "cr3"):
        yield paged(P64, name, SHADOW[name])


def hypervisor(mode: Mode, name: str, play: Callable[[Hypervisor], None]) -> Hypervisor:
    """An L1 with nested paging: n32_, npae_, n64_NAME."""
    guest = Hypervisor(f"{L1_TAGS[mode]}_{name}", mode, _about(play), l2_paging=name in L2_PAGED)
    play(guest)
    return guest


def hypervisor_without_npt(mode: Mode, name: str, play: Callable[[Hypervisor], None]) -> Hypervisor:
    guest = Hypervisor(f"s{L1_TAGS[mode]}_{name}", mode, _about(play), nested_paging=False, l2_paging=name == "paged")
    play(guest)
    return guest


def all_nested() -> Iterator[Guest]:
    for mode in PAGED:
        for name, play in NESTED.items():
            yield hypervisor(mode, name, play)


def nestedsp() -> Iterator[Guest]:
    for mode in PAGED:
        if mode is not P64:  # QEMU's CPU hangs in an L2 with 32-bit paging below a 64-bit L1
            yield hypervisor_without_npt(mode, "paged", nested.paged)
        yield hypervisor_without_npt(mode, "flat", nested.flat)


def late() -> Iterator[Guest]:
    for mode in PAGED:
        yield paged(mode, "late", memslots.late)


def two() -> Iterator[Guest]:
    for mode in (P32, PAE32):
        for name, play in roots.TWO.items():
            yield paged(mode, name, play)
    for name, flat in roots.UNPAGED_TWO.items():
        yield unpaged(FLAT, name, flat)


def beyond() -> Iterator[Guest]:
    for mode in (P32, PAE32):
        guest = Hypervisor(f"{L1_TAGS[mode]}_beyond", mode, _about(roots.beyond), l2_paging=True)
        roots.beyond(guest)
        yield guest


def kernels_apart() -> Iterator[Guest]:
    for mode in PAGED:
        for name, play in APART.items():
            yield paged(mode, name, play)
    yield paged(PAE32, "pdptnowhere", apart.pdpt_nowhere)
    yield unpaged(FLAT, "wp", apart.flat_wp)


def new_kernel_rules() -> Iterator[Guest]:
    for mode in PAGED:
        for name, play in new_rules.PAGED.items():
            yield paged(mode, name, play)
        for name, nested_play in new_rules.NESTED.items():
            yield hypervisor(mode, name, nested_play)
    for name, mode, one in new_rules.ONE_MODE:
        yield paged(mode, name, one)
    for name, flat in new_rules.UNPAGED.items():
        yield unpaged(FLAT, name, flat)


def played(guest: Callable[[str, Mode, int], BySeed], what: str, tags: dict[Mode, str]) -> Callable[[range], Iterator[BySeed]]:
    """Guests of these modes, each with each of the seeds."""
    return lambda seeds: (guest(f"{tag}_{what}{seed}", mode, seed).play() for mode, tag in tags.items() for seed in seeds)


FIXED: dict[str, Callable[[], Iterator[Guest]]] = {
    "shadow": shadow, "extra": extra, "p57": p57, "nested": all_nested, "nestedsp": nestedsp, "two_roots": two,
    "beyond": beyond, "late": late, "apart": kernels_apart, "rules": new_kernel_rules,
}  # fmt: skip
BY_SEED: dict[str, Callable[[range], Iterator[BySeed]]] = {
    "random": played(RandomGuest, "random", TAGS), "random_la57": played(RandomGuest, "random", TAGS_57),
    "random_nested": played(RandomNested, "random", L1_TAGS),
    "random_nestedsp": played(RandomWithoutNpt, "random", WITHOUT_NPT_TAGS),
    "wild": played(WildGuest, "wild", TAGS), "wild_la57": played(WildGuest, "wild", TAGS_57),
    "wild_two": played(WildTurns, "wildtwo", TAGS),
}  # fmt: skip


class Run(NamedTuple):
    """A set of captures: guests of a set, on one host."""

    guests: str
    host: Host
    only: str = ""
    """A pattern for the guests' names; those that do not match cannot run, or add nothing, on this host."""


NPT, NPT_LA57, NPT_LEGACY = Host(npt=True), Host(npt=True, la57=True), Host(npt=True, tdp_mmu=False)
RUNS = {
    "shadow": Run("shadow", Host()),
    "extra": Run("extra", Host()),
    "p57": Run("p57", Host(la57=True)),
    "nested": Run("nested", NPT),
    "nested_la57": Run("nested", NPT_LA57),
    "nested_tdp0": Run("nested", NPT_LEGACY),
    "nestedsp": Run("nestedsp", Host()),
    "shadow_npt1_tdp0": Run("shadow", NPT_LEGACY, r"^(np32|real)_|_(slots|dirty|mmio)$"),
    "two_roots": Run("two_roots", Host()),
    "late": Run("late", Host()),
    "beyond": Run("beyond", NPT),
    "beyond_la57": Run("beyond", NPT_LA57),
    "apart": Run("apart", Host()),
    "rules": Run("rules", Host(), r"^(p32|pae|p64|np32)_(?!rotable|slotalone)"),
    "rules_slot": Run("rules", Host(), "_slotalone$"),
    "rules_nested": Run("rules", NPT, r"^(n32|npae|n64)_(?!pdptes|lma)"),
    "rules_window": Run("rules", NPT, "_(pdptes|lma)$"),
    "rules_tdp0": Run("rules", NPT_LEGACY, "_rotable$"),
    "rules_nx": Run("rules", Host(parameters=("nx_huge_pages=force",)), "^np32_"),
    "random": Run("random", Host()),
    "random_la57": Run("random_la57", Host(la57=True)),
    "random_nested": Run("random_nested", NPT),
    "random_nested_la57": Run("random_nested", NPT_LA57),
    "random_nested_tdp0": Run("random_nested", NPT_LEGACY),
    "random_nestedsp": Run("random_nestedsp", Host()),
    "wild": Run("wild", Host()),
    "wild_la57": Run("wild_la57", Host(la57=True)),
    "wild_two": Run("wild_two", Host()),
}
"""By the captures' folder, which has the name of the guests' folder or begins with it."""


def run_of(name: str) -> Run:
    if name not in RUNS:
        raise KitError(f"there is no set {name}: give one of {', '.join(RUNS)}, or a folder of guests of your own")
    return RUNS[name]


def guests_of(name: str, seeds: range) -> list[Guest]:
    """All guests of a guests' set; `seeds` are those of the random ones."""
    if name in FIXED:
        return list(FIXED[name]())
    return list(BY_SEED[name](seeds))
