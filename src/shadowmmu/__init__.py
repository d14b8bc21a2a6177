"""shadowmmu: KVM's x86 shadow MMU, with special shadow pages, as Python that runs real guests."""

from shadowmmu.engine.face.config import VmConfig
from shadowmmu.engine.face.types import (
    EngineError,
    Entry,
    GuestMemoryError,
    HostFault,
    Memslot,
    MemslotError,
    MmuView,
    NestedWalk,
    Outcome,
    OutOfPages,
    PageFaultException,
    ShadowPageView,
    TripleFault,
    WalkStep,
)
from shadowmmu.engine.face.vcpu import Vcpu
from shadowmmu.engine.face.vm import Vm
from shadowmmu.engine.roots.designs import ROOT_DESIGNS, Design

__all__ = [
    "ROOT_DESIGNS",
    "Design",
    "EngineError",
    "Entry",
    "GuestMemoryError",
    "HostFault",
    "Memslot",
    "MemslotError",
    "MmuView",
    "NestedWalk",
    "OutOfPages",
    "Outcome",
    "PageFaultException",
    "ShadowPageView",
    "TripleFault",
    "Vcpu",
    "Vm",
    "VmConfig",
    "WalkStep",
]
