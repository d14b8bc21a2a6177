# SPDX-License-Identifier: GPL-2.0-only
"""What a processor does in 64-bit code and the CPU back end does not by itself: on shadow tables and on nested ones."""

from pathlib import Path

import pytest
from assembled import assembled

from shadowmmu.machine.loader import Guest, load_bytes
from shadowmmu.machine.machine import Machine

SOURCE = Path(__file__).with_name("long.asm")
CODE = bytes.fromhex(
    "bc00900000c7050000010007100100c7050010010007200100c7050020010087000000c705f807010007300100c705f83f010007400100c705f84f01"
    "0007500100c705f85f010007600100c705fc6f0100900f01d9c70500a005000df00d600f20e083c8200f22e0b8000001000f22d8b9800000c00f320d"
    "000100000f300f20c00d000000800f22c00f0115e9410000ea974000000800b8100000008ed88ed08ee8b9010100c0b800a0050031d20f30bf010000"
    "00b8b2410000e8d6000000bf0c000000b8c1410000e8c7000000bf0d000000b8c5410000e8b80000000f011c25f341000048bd000000000000001049"
    "bffd40000000000000488b450049bf144100000000000048b90000000000000010488b012ef19c48810c24000100009df449bf3e4100000000000048"
    "c7c0ffffffff48b9fcffffffff7f0000ffe149bf50410000000000000f011425fd41000049bf62410000000000000f011c25fd4100006a2368009000"
    "0068023000006a1b687741000048cfb05565813c25000000000df00d607402b058e6e9b00ae6e9b010e6f4ebfec1e7046689870000020066c7870200"
    "0200080066c78704000200008ec3b044e6e94881642410fffeffff48cfb053eb02b047e6e948b8000000000080000048394424087504b045e6e94c89"
    "7c24084883c40848cf27000742000000000000ff0f0000020000000000ff0f00000000000000100000000000000000ffff0000009baf00ffff000000"
    "93cf00ffff000000fbaf00ffff000000f3cf00"
)


def test_the_program_is_its_source(tmp_path: Path) -> None:
    assert assembled(SOURCE, tmp_path) == CODE


@pytest.mark.parametrize("features", [(), ("npt",), ("la57",)])
def test_exceptions_are_those_of_a_processor(features: tuple[str, ...]) -> None:
    guest = Guest(
        name="long", image="long.asm", format="flat", memory_mib=4, load=0x4000, start="protected", platform="pc", features=features
    )
    result = Machine(guest, loaded=load_bytes(guest, CODE)).run(max_exits=1000, max_quiet=10_000_000)
    assert (result.reason.value, result.output) == ("passed", "SGDDGEGGU\n"), result.detail
