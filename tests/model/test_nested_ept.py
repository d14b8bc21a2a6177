# SPDX-License-Identifier: GPL-2.0-only
"""Random episodes of an L1 that edits extended page tables, and the judge that holds its L2s to what they allow."""

from __future__ import annotations

from typing import Any

import pytest
from designs import every_design

from shadowmmu import Vm
from shadowmmu.check.fuzz import fuzz
from shadowmmu.engine.face.kernels import KERNELS


@every_design
@pytest.mark.parametrize("levels", [4, 5])
def test_random_ept(levels: int, roots: str) -> None:
    report = fuzz(seed=levels, operations=9_000, modes=(f"ept-{levels}-level",), roots=roots, kernel="any")
    assert report.failure is None, f"{report.failure.message}\n{report.failure.command}"
    for kind in ("read", "write", "fetch"):
        assert report.coverage[f"access {kind} completed"] > 50 and report.coverage[f"access {kind} injected"] > 50, report.coverage
    assert report.coverage["ept_run with A/D"] > 50 and report.coverage["ept_run without A/D"] > 50
    assert report.coverage["l1_store completed"] > 20 and report.coverage["l1_store emulated"] > 20, report.coverage
    assert report.coverage["dirty some"] > 5 and report.coverage["zap_all done"] > 5


class Entered:
    """An entry at which nothing is flushed."""

    def __init__(self, entry: Any) -> None:
        self.root, self.level = entry.root, entry.level
        self.flush_all, self.flush_gvas = False, tuple[int, ...]()


class Forgetful:
    """A vCPU whose flushes do not happen."""

    def __init__(self, vcpu: Any) -> None:
        self.vcpu = vcpu

    def __getattr__(self, name: str) -> Any:
        return getattr(self.vcpu, name)

    def enter(self) -> Entered:
        return Entered(self.vcpu.enter())


class ForgetfulVm:
    """A VM of such vCPUs."""

    def __init__(self, **how: Any) -> None:
        self.vm = Vm(**how)
        self.vcpus = [Forgetful(vcpu) for vcpu in self.vm.vcpus]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.vm, name)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_flush_not_done_is_seen(kernel: str) -> None:
    """Soon, on each kernel."""
    report = fuzz(seed=1, operations=500, modes=("ept-4-level",), kernel=kernel, audit_every=0, make_vm=ForgetfulVm)
    assert report.failure is not None and "I11" in report.failure.message
