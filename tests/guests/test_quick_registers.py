# SPDX-License-Identifier: GPL-2.0-only
"""Registers that are read and written in the CPU's hook: model-specific ones, those of an x2APIC among them, and CR8; and hypercalls."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import msgspec
import pytest
from assembled import assembled
from designs import every_design
from two_runs import both

from shadowmmu.machine.loader import Guest, load_bytes
from shadowmmu.machine.loop.vcpu_loop import VcpuLoop
from shadowmmu.machine.machine import Machine
from shadowmmu.machine.seam import Exit, ExitKind

SOURCE = Path(__file__).with_name("registers.asm")
CODE = bytes.fromhex(
    "bc00900000b0ffe621c7050000010007100100c7050010010007200100c70500200100870000000f20e083c8200f22e0b8000001000f22d8b9800000"
    "c00f320d000100000f300f20c00d000000800f22c00f011578420000ea5f4000000800b8100000008ed88ed0bf0d000000b823420000e87b010000bf"
    "31000000b836420000e86c010000bf42000000b83f420000e85d0100000f011c257e420000b91b0000000f320d000c00000f3031d2b8ff010000b90f"
    "0800000f30b842000400b9320800000f30fbbd28000000b9100000000f32010425b442000005a861000083d200b9e00600000f30b80f000000440f22"
    "c031d2b831000000b93f0800000f30440f20c0010425b4420000b9080800000f32010425b4420000b9210800000f32010425b44200004889e883e001"
    "440f22c0b90808000031c00f3089e8be884200008b0eba000000000f3031c00f32010425b44200008d042883c60481feb442000072de65488b042500"
    "000000010425b4420000b9770200000f320f30b80b0000000f01d9010425b4420000b8630000000f01d9010425b4420000b9ff0800000f32b93f0800"
    "00b80001000031d20f30b9820000c0ba008000000f30ffcd0f8509ffffff833c25c04200000272f6833c25bc420000287516833c25b842000078750c"
    "b050e6e9b00ae6e9b010e6f4b011e6f4ebfac1e7046689870000020066c78702000200080066c78704000200008e66c78706000200000048c7870800"
    "020000000000c3ff0425b84200004883442408024883c40848cfff0425bc420000eb07ff0425c042000050515231c031d2b90b0800000f305a595848"
    "cf909090909090900000000000000000ffff0000009baf00ffff00000093cf00170060420000ff0f0000020000000000000100c0010100c0020100c0"
    "810000c0820000c0840000c0740100007501000076010000ff0200000002000000000000000000000000000000000000"
)
GUEST = Guest(name="registers", image="registers.asm", format="flat", memory_mib=4, load=0x4000, start="protected", platform="pc")
ROUNDS = 40


def test_the_program_is_its_source(tmp_path: Path) -> None:
    assert assembled(SOURCE, tmp_path) == CODE


@every_design
@pytest.mark.parametrize("features", [(), ("npt",)])
def test_registers(features: tuple[str, ...], roots: str) -> None:
    """What an access lets in comes before the next instruction, and what is illegal raises #GP, in both."""
    quick = both(msgspec.structs.replace(GUEST, features=features), CODE, roots=roots)
    assert (quick.result.reason.value, quick.result.output) == ("passed", "P\n"), quick.result.detail
    assert quick.served > 0.8 * quick.exits


def test_few_of_them_reach_python(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: Counter[ExitKind] = Counter()
    handle = VcpuLoop._handle

    def counted(loop: VcpuLoop, exit_: Exit) -> None:
        seen[exit_.kind] += 1
        handle(loop, exit_)

    monkeypatch.setattr(VcpuLoop, "_handle", counted)
    result = Machine(GUEST, loaded=load_bytes(GUEST, CODE)).run(max_exits=100_000)
    assert seen[ExitKind.MSR] < 4 * ROUNDS + 50 < 0.2 * result.exits["MSR"]
    assert max(seen[ExitKind.CR_READ], seen[ExitKind.CR_WRITE], seen[ExitKind.SVM]) < 10
    assert result.exits["CR write"] > 2 * ROUNDS and result.exits["SVM"] == 2 * ROUNDS
