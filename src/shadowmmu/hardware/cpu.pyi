# SPDX-License-Identifier: GPL-2.0-only
from collections.abc import Callable, Sequence
from enum import Enum
from random import Random
from typing import NamedTuple, Protocol

from typing_extensions import disjoint_base

from shadowmmu.hardware.controller import Controller
from shadowmmu.hardware.held import Held
from shadowmmu.hardware.host_memory import HostMemory
from shadowmmu.hardware.tlb import Tlb
from shadowmmu.hardware.walk import Features, Paging

IMPLICIT: int
RETRY_LIMIT: int

def real_paging(cr0: int, cr4: int, efer: int, features: Features) -> Paging: ...
def nested_paging(levels: int, features: Features) -> Paging: ...

class Done(Enum):
    COMPLETED = "completed"
    EMULATED = "emulated"
    INJECTED = "injected"
    L2_FAULT = "faulted in L2"

class AccessResult(NamedTuple):
    how: Done
    value: int | None
    exits: tuple[str, ...]

class Observer(Protocol):
    def completed(self, gva: int, access: int, ac: bool, hpa: int) -> None: ...
    def stored(self, hpa: int, size: int) -> None: ...
    def emulated_store(self, gpa: int, size: int) -> None: ...
    def before_walk(self, gva: int, access: int, ac: bool, emulated: bool = False) -> None: ...
    def after_walk(self, outcome: str, gpa: int | None, exception: tuple[object, ...] | None) -> None: ...

@disjoint_base
class ModelCpu:
    def __init__(
        self,
        vcpu: Controller,
        memory: HostMemory,
        features: Features,
        observer: Observer,
        random: Random | None = None,
        npt_levels: int = 0,
    ) -> None: ...
    vcpu: Controller
    memory: HostMemory
    features: Features
    observer: Observer
    npt_levels: int
    instruction: tuple[int, bool] | None
    tlb: Tlb
    root: int
    tag: int
    mode: Paging
    pdptes: tuple[int, ...] | None
    held: Held | None
    entered: Callable[[], None] | None
    def enter(self) -> None: ...
    def translate(self, gva: int, access: int, ac: bool) -> int: ...
    def flush(self) -> None: ...
    def forget(self, gva: int) -> None: ...
    def access(self, gva: int, access: int, ac: bool, size: int, value: int | None = None, where: int = ...) -> AccessResult: ...
    def find(self, gva: int, access: int, ac: bool, exits: list[str], where: int) -> int | str: ...
    def finish(self, hpa: int, size: int, value: int | None, exits: Sequence[str]) -> AccessResult: ...
    def emulate(
        self, gva: int, access: int, ac: bool, size: int, value: int | None, exits: tuple[str, ...] = (), implicit: bool = False
    ) -> AccessResult: ...
