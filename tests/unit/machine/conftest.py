# SPDX-License-Identifier: GPL-2.0-only
"""What hypervisors do is tried twice: with exits served by the loop, and in the CPU's hook."""

from __future__ import annotations

import pytest
from nested_bench import Bench


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.module.__name__.rpartition(".")[2].startswith("test_nested"):
        metafunc.fixturenames.append("served_by")
        metafunc.parametrize("served_by", ["loop", "hook"], indirect=True)


@pytest.fixture
def served_by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bench, "audits_each", request.param == "loop")
