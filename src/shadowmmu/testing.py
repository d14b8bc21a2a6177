# SPDX-License-Identifier: GPL-2.0-only
"""A pytest plugin that audits every VM of a test: `pytest -p shadowmmu.testing`, or `pytest_plugins = ["shadowmmu.testing"]`.

Each `Vm` that a test makes, by itself or in a `Machine`, is audited when the test's body is over; a test whose VM breaks an invariant
fails with the invariant's number. `@pytest.mark.unaudited` leaves a test out that breaks one on purpose.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from typing import Any

import pytest

from shadowmmu.check.audit import audit
from shadowmmu.engine.face.vm import Vm as VM

MARK = "unaudited"


class _StandsForVm(type):
    """`Vm` cannot be derived from: this makes one when it is called, and is `Vm` in all else."""

    def __call__(cls, *arguments: Any, **options: Any) -> VM:
        vm = VM(*arguments, **options)
        MADE.append(vm)
        return vm

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, VM)

    def __getattr__(cls, name: str) -> Any:
        return getattr(VM, name)


class AuditedVm(metaclass=_StandsForVm):
    """A `Vm` that is remembered until it has been audited."""


MADE: list[VM] = []
"""VMs of the test that runs."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"{MARK}: the VMs of this test are not audited by shadowmmu.testing")


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Around the test's body, without its fixtures."""
    if pyfuncitem.get_closest_marker(MARK) is not None:
        return (yield)
    MADE.clear()
    with pytest.MonkeyPatch.context() as patch:
        for module in list(sys.modules.values()):
            if getattr(module, "__dict__", {}).get("Vm") is VM and module.__name__ != VM.__module__:
                patch.setattr(module, "Vm", AuditedVm)
        result = yield
    found = [violation for vm in MADE for violation in audit(vm)]
    MADE.clear()
    if found:
        pytest.fail("\n".join(str(violation) for violation in found[:10]), pytrace=False)
    return result
