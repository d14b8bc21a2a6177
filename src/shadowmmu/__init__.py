"""shadowmmu: KVM's x86 shadow MMU, with special shadow pages, as Python that runs real guests."""

from shadowmmu.engine.face import (
    EngineError,
    Entry,
    GuestMemoryError,
    HostFault,
    MemslotError,
    Outcome,
    OutOfPages,
    PageFaultException,
    ShadowPageView,
    TripleFault,
)
from shadowmmu.engine.vm import ROOT_DESIGNS, Vcpu, Vm

__all__ = [
    "ROOT_DESIGNS",
    "EngineError",
    "Entry",
    "GuestMemoryError",
    "HostFault",
    "MemslotError",
    "OutOfPages",
    "Outcome",
    "PageFaultException",
    "ShadowPageView",
    "TripleFault",
    "Vcpu",
    "Vm",
]
