# SPDX-License-Identifier: GPL-2.0-only
"""shadowmmu: KVM's x86 shadow MMU, with special shadow pages, as Python that runs real guests."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shadowmmu.engine.face.config import VmConfig
    from shadowmmu.engine.face.guest_tables import GuestTables, Registers
    from shadowmmu.engine.face.types import (
        EngineError,
        Entry,
        EventRecord,
        GuestMemoryError,
        HostFault,
        HostRegion,
        Levels,
        Memslot,
        MemslotError,
        MmuView,
        NestedWalk,
        Outcome,
        OutOfPages,
        PageFaultException,
        RootInfo,
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
    "EventRecord",
    "GuestMemoryError",
    "GuestTables",
    "HostFault",
    "HostRegion",
    "Levels",
    "Memslot",
    "MemslotError",
    "MmuView",
    "NestedWalk",
    "OutOfPages",
    "Outcome",
    "PageFaultException",
    "Registers",
    "RootInfo",
    "ShadowPageView",
    "TripleFault",
    "Vcpu",
    "Vm",
    "VmConfig",
    "WalkStep",
]


_PLACES = {
    "ROOT_DESIGNS": "roots.designs", "Design": "roots.designs", "VmConfig": "face.config", "Vcpu": "face.vcpu", "Vm": "face.vm",
    "GuestTables": "face.guest_tables", "Registers": "face.guest_tables",
}  # fmt: skip
"""Modules of the engine; `face.types` has the other names."""


def __getattr__(name: str) -> object:
    """The engine is loaded when it is first asked for: the command line answers, and takes Ctrl-C, before."""
    if name == "__version__":  # pyproject.toml alone has it
        return import_module("importlib.metadata").version("shadowmmu")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"shadowmmu.engine.{_PLACES.get(name, 'face.types')}"), name)
    globals()[name] = value
    return value
