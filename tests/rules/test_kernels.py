# SPDX-License-Identifier: GPL-2.0-only
"""Rules of kernels: each has one reader, a row in the docs, and where there is a witness a capture that tells the answers apart."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
from engine_source import ENGINE

from shadowmmu import Vm
from shadowmmu.captures.find import find
from shadowmmu.check.replay.replay import Replay
from shadowmmu.check.rerun.rerun import rerun
from shadowmmu.engine.face.kernels import DEFAULT_KERNEL, KERNELS, RULES, kernel_of_release, rules_of
from shadowmmu.errors import BadInput
from shadowmmu.trace.forms import FORMS
from shadowmmu.trace.origins.later import LATER, function_on

ROOT = Path(__file__).resolve().parents[2]
WITNESSES = {
    "6.12": {
        "ignores_self_change": "linux_6_12/p64_owntables",
        "nonpresent_bit_63": "linux_6_12/p32_marks",
        "nx_marks_nonpaging": "linux_6_12_nx/np32_execute",
        "retries_zapped": "linux_6_12_tdp0/pae_rotable",
        "short_mmio_gen": "linux_6_12/pae_marks",
        "sync_keeps_accessed": "linux_6_12/pae_syncaccessed",
        "hides_pdpte": "linux_6_12/pae_pdptnowhere",
        "hides_root": "linux_6_12/p64_nowhere",
        "invlpg_syncs": "linux_6_12/pae_invlpg",
        "nx_keeps_marked": "linux_6_12_nx/np32_dirty",
        "sregs_flush": "linux_6_12/p32_nowhere",
        "sync_keeps": "linux_6_12/pae_syncdirty",
        "wide_error_code": "linux_6_12_nested_tdp0/n32_l2pg",
        "wp_needs_paging": "linux_6_12/np32_wp",
        "flushes_write_alone": "linux_6_12/p32_big",
        "vmrun_drops_lma": "linux_6_12_nested/n64_lma",
        "vmrun_reloads_pdptes": "linux_6_12_nested/npae_pdptes",
        "zaps_slot_alone": "linux_6_12/pae_slotalone",
    },
    "7.3": {
        "ignores_self_change": "linux_7_3/p64_owntables",
        "nonpresent_bit_63": "linux_7_3/p32_marks",
        "nx_marks_nonpaging": "linux_7_3_nx/np32_execute",
        "retries_zapped": "linux_7_3_tdp0/pae_rotable",
        "short_mmio_gen": "linux_7_3/pae_marks",
        "zaps_written_child": "linux_7_3_nested/n32_child",
        "dirties_writable": "linux_7_3/pae_slots",
        "hides_pdpte": "linux_7_3/pae_pdptnowhere",
        "hides_root": "linux_7_3/p64_nowhere",
        "invlpg_syncs": "linux_7_3/pae_invlpg",
        "npt_role_plain": "linux_7_3_nested/n32_l2pg",
        "nx_keeps_marked": "linux_7_3_nx/np32_dirty",
        "smep_in_role": "linux_7_3/pae_smep",
        "sregs_flush": "linux_7_3/p32_nowhere",
        "sync_keeps": "linux_7_3/pae_syncdirty",
        "zaps_slot_alone": "linux_7_3/pae_slotalone",
    },
}
CASES = [(kernel, rule, capture) for kernel, rules in WITNESSES.items() for rule, capture in rules.items()]


WITHOUT = {
    "masks_root_gfn": "only a CPU with LAM has CR3 bits there, and QEMU's has none; a nested CR3 with such bits is refused at VMRUN",
    "lifts_no_ept": "a host of Intel's, of which QEMU's CPU has nothing",
    "moved_ept_bits": "the same",
    "ad_bits_always": "the same",
    "retries_tables": "the emulator's: pae_seldom, run again as code",
    "unprotects_late": "a delivery's: p64_invlpg, run again as code",
    "mmio_loads_walk": "the emulator's: pae_slots, run again as code",
}
"""Rules that no replay can show."""


APART = {
    "p32_nowhere": "hides_root", "p64_nowhere": "hides_root", "pae_pdptnowhere": "hides_pdpte",
    **dict.fromkeys(("p32_invlpg", "pae_invlpg", "p64_invlpg"), "invlpg_syncs"),
    **dict.fromkeys(("p32_syncdirty", "pae_syncdirty", "p64_syncdirty"), "sync_keeps"), "np32_wp": "wp_needs_paging",
}  # fmt: skip
"""The kit's set `apart`, and the rule that each is about; of pae_nowhere the MOV CR3 is a #GP on every kernel."""
MACHINE_WITNESSES = [
    ("unprotects_late", "linux_6_12/p64_invlpg"), ("mmio_loads_walk", "linux_7_3/pae_slots"),
    ("retries_tables", "linux_6_12/pae_seldom"), ("retries_tables", "linux_7_3/pae_seldom"),
]  # fmt: skip
"""Captures that tell the answers apart when their guests are run again."""


def functions(text: str) -> list[str]:
    return re.split(r"^ *(?:def |cdef inline )", text, flags=re.MULTILINE)[1:]


@pytest.mark.parametrize("rule", sorted(RULES))
def test_a_rule_is_read_in_one_function(rule: str) -> None:
    sources = [path.read_text() for path in sorted([*ENGINE.rglob("*.py"), *ENGINE.rglob("*.pxd")])]
    readers = [body for text in sources for body in functions(text) if re.search(rf"\.rules\.{rule}\b", body)]
    assert len(readers) == 1


def test_the_struct_holds_the_rules_of_the_table() -> None:
    declared = (ENGINE / "arena" / "state.pxd").read_text().split("cdef struct Rules:")[1].split("ctypedef")[0]
    assert set(re.findall(r"^    u8 (\w+)", declared, re.MULTILINE)) == RULES.keys()


def test_no_kernel_is_asked_for_by_its_version() -> None:
    for path in sorted([*ENGINE.rglob("*.py"), *ENGINE.rglob("*.pxd")]):
        if path.name != "kernels.py":
            assert not re.search(r"LINUX_\d|version\s*[<>=]|[\"'](6\.1|6\.12|7\.3)[\"']", path.read_text()), path


def test_docs_have_a_row_for_each_rule() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (?:6\.12|7\.3|if asked) \|", (ROOT / "docs" / "kernels.md").read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(RULES)


def test_docs_name_the_functions_of_each_kernel() -> None:
    names = {tuple(function_on(name, kernel) for kernel in KERNELS) for names in LATER.values() for name in names}
    rows = re.findall(r"^\| `(\S+)` \| `(\S+)` \| `(\S+)` \|$", (ROOT / "docs" / "kernels.md").read_text(), re.MULTILINE)
    assert {row for row in names if len(set(row)) > 1} == set(rows)


@pytest.mark.parametrize(("kernel", "rule", "name"), CASES)
def test_a_witness_diverges_under_the_other_answer(kernel: str, rule: str, name: str) -> None:
    capture = find(name)[0].load()
    assert capture.setup.series == kernel
    assert Replay(capture).run().ok
    has = rules_of(capture.setup.cpu_and_host["kernel"])
    setup = msgspec.structs.replace(capture.setup, changed=f"-{rule}" if rule in has else f"+{rule}")
    assert Replay(msgspec.structs.replace(capture, setup=setup)).run().divergence is not None


@pytest.mark.parametrize("kernel", ["6.12", "7.3"])
@pytest.mark.parametrize(("guest", "rule"), APART.items())
def test_directed_guests_tell_later_kernels_from_the_first(guest: str, rule: str, kernel: str) -> None:
    capture = find(f"linux_{kernel.replace('.', '_')}/{guest}")[0].load()
    assert Replay(capture).run().ok
    setup = msgspec.structs.replace(capture.setup, changed=f"-{rule}")
    assert Replay(msgspec.structs.replace(capture, setup=setup)).run().divergence is not None


def test_every_rule_has_a_witness_or_a_reason() -> None:
    assert {rule for rules in WITNESSES.values() for rule in rules} | WITHOUT.keys() == RULES.keys()


@pytest.mark.parametrize(("rule", "name"), MACHINE_WITNESSES)
def test_a_witness_of_the_machine_diverges_run_again(rule: str, name: str) -> None:
    capture = find(name)[0].load()
    assert rerun(capture).ok
    setup = msgspec.structs.replace(capture.setup, changed=f"-{rule}")
    assert not rerun(msgspec.structs.replace(capture, setup=setup)).ok


def test_releases_are_known_by_their_series() -> None:
    assert FORMS.keys() == KERNELS.keys()
    assert [kernel_of_release(release) for release in ("6.1.0-50-amd64", "6.12.117+deb12-amd64", "7.3")] == ["6.1", "6.12", "7.3"]
    for release in ("6.11.2", "6.120.1", "", "6"):
        with pytest.raises(ValueError, match=r"known are 6\.1, 6\.12, 7\.3"):
            kernel_of_release(release)


def test_an_unknown_kernel_is_refused_by_name() -> None:
    capture = find("linux_7_3/np32_wp")[0].load()
    setup = msgspec.structs.replace(capture.setup, kernel="Linux host 5.10.0-8 #1")
    with pytest.raises(BadInput, match=r"Linux 5\.10\.0-8 is not known here"):
        Replay(msgspec.structs.replace(capture, setup=setup))
    with pytest.raises(ValueError, match=r"kernel is .5\.10."):
        Vm(kernel="5.10")


def test_rules_can_be_changed_one_by_one() -> None:
    assert rules_of("6.1+sync_keeps") == {"sync_keeps"}
    assert rules_of("7.3-smep_in_role-hides_root") == KERNELS["7.3"] - {"smep_in_role", "hides_root"}
    for wrong in ("7.3-smep", "7.3-", "5.10+sync_keeps", "+sync_keeps"):
        with pytest.raises(ValueError, match=r"^kernel is "):
            Vm(kernel=wrong)


def test_default_is_the_newest() -> None:
    assert Vm(memory_mib=0).config.kernel == DEFAULT_KERNEL == list(KERNELS)[-1]
