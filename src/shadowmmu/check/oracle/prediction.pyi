# SPDX-License-Identifier: GPL-2.0-only
from typing import NamedTuple

from typing_extensions import disjoint_base

from shadowmmu.check.oracle.guest_tlb import GuestTlb
from shadowmmu.check.oracle.present import Present
from shadowmmu.check.oracle.watched_guest import WatchedGuest
from shadowmmu.hardware.two_dimensional import L2
from shadowmmu.hardware.walk import Translation

class Prediction(NamedTuple):
    gva: int
    access: int
    result: Translation | int
    address: int
    nested: bool
    two_dimensions: bool = False

class NotJudged(Exception): ...

@disjoint_base
class PredictingTlb(GuestTlb):
    def __init__(self, oracle: WatchedGuest, name: str) -> None: ...
    l2: L2 | None
    prediction: Prediction | None
    present: Present
    def before_walk(self, gva: int, access: int, ac: bool, emulated: bool = False) -> None: ...
