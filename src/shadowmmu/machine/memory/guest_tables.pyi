# SPDX-License-Identifier: GPL-2.0-only
from typing import NamedTuple, final

from shadowmmu.engine.face.types import PageFaultException
from shadowmmu.engine.face.vcpu import Vcpu
from shadowmmu.hardware.walk import Paging, Tables

PAGE_SIZE: int
GUEST_FINAL: int
GUEST_PAGE: int

class Path(NamedTuple):
    entries: tuple[int, ...]
    gpa: int | None

def paging_of(vcpu: Vcpu) -> Paging: ...
def reported_fault(vcpu: Vcpu) -> PageFaultException: ...
def l1_physical(vcpu: Vcpu, gpa: int) -> int | None: ...
def read_physical(vcpu: Vcpu, gpa: int, size: int) -> bytes | None: ...
def path_of(vcpu: Vcpu, gva: int) -> Path: ...
def locate_fault(vcpu: Vcpu, gva: int, gpa: int) -> tuple[int, int]: ...

@final
class OwnTables(Tables):
    def __init__(self, vcpu: Vcpu) -> None: ...
    def load(self, pa: int, size: int) -> int: ...

@final
class GuestTables:
    def __init__(self, vcpu: Vcpu) -> None: ...
