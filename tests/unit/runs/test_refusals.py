# SPDX-License-Identifier: GPL-2.0-only
"""Why walks are refused, by their entries; and what else a trace tells of where it was made."""

from __future__ import annotations

from pathlib import Path

import pytest

from shadowmmu.runs.explained.explanation import Explanation
from shadowmmu.runs.explained.refusals import why_refused
from shadowmmu.runs.explained.source import explain_file

ALL = 0x67
"""P, W, U, A, D."""
NX = 1 << 63


@pytest.mark.parametrize(
    ("entries", "code", "says"),
    [
        ([(4, ALL), (3, ALL), (2, ALL), (1, 0x161)], 3, "level-1 entry 161 lacks W, which binds the supervisor with CR0.WP alone"),
        ([(4, ALL), (3, 0x65), (2, ALL), (1, ALL)], 7, "level-3 entry 65 lacks W"),
        ([(4, ALL), (3, 0x63), (2, ALL), (1, ALL)], 5, "level-3 entry 63 lacks U"),
        ([(4, ALL), (3, ALL), (2, NX | ALL), (1, ALL)], 0x15, "level-2 entry 8000000000000067 has NX"),
        ([(4, ALL), (3, ALL), (2, ALL), (1, ALL)], 0x11, "only SMEP"),
        ([(4, ALL), (3, ALL), (2, ALL), (1, ALL)], 3, "only SMAP"),
        ([(4, ALL), (3, ALL), (2, ALL), (1, 5 << 59 | ALL)], 0x27, "protection key 5"),
        ([(3, 1), (2, ALL), (1, 5)], 7, "level-1 entry 5 lacks W"),
        ([(4, ALL), (3, 0xA3)], 9, "a 1 GiB page"),
        ([(4, ALL), (3, ALL), (2, 0x1E7 | 1 << 14)], 9, "bits 20 to 13"),
        ([(4, ALL | 0x80)], 9, "bit 7, which is reserved at this level"),
        ([(4, ALL | 0x100)], 9, "bit 8, which AMD reserves"),
        ([(4, ALL), (3, ALL | 1 << 46)], 9, "address bit 46"),
        ([(4, NX | ALL)], 9, "EFER.NXE"),
        ([(3, 3)], 9, "a PDPTE of PAE paging"),
        ([(3, 1), (2, ALL | 1 << 55)], 9, "bits 62 to 52"),
        ([(2, 0xE7 | 1 << 15)], 9, "PSE-36"),
        ([(4, ALL), (3, 0)], 0, ""),
        ([], 1, ""),
    ],
)
def test_the_entries_say_why(entries: list[tuple[int, int]], code: int, says: str) -> None:
    why = why_refused(entries, code)
    assert says in why if says else not why


def lines(tmp_path: Path, *told: str) -> Explanation:
    path = tmp_path / "trace.txt"
    path.write_text("".join(f" vm-{100 + vcpu} [000] ..... 1.{number:06}: {line}\n" for number, (vcpu, line) in enumerate(map(_of, told))))
    return explain_file(path)


def _of(line: str) -> tuple[int, str]:
    """`3> event`: of the thread 3 higher."""
    vcpu, _, rest = line.rpartition("> ")
    return int(vcpu or 0), rest


LARGE = "reason EPT_MISCONFIG rip 0x133025 info 0 0"


def test_a_walk_of_the_emulators_is_no_fault_and_its_reserved_bits_are_told(tmp_path: Path) -> None:
    walk = ("kvm_mmu_pagetable_walk: addr 133025 pferr 10 F", "kvm_mmu_paging_element: pte bf9023 level 4")
    told = lines(tmp_path, f"kvm_exit: {LARGE}", *walk, "kvm_mmu_paging_element: pte a3 level 3", "kvm_mmu_walker_error: pferr 9 P|RSVD")
    assert told.faults == 0 and not told.anomaly_count
    (answer,) = told.answers
    assert "reserved bits" in answer.what and "1 GiB" in answer.why and answer.first == 5


@pytest.mark.parametrize("reason", ["EXCEPTION_NMI", "exception", "PF excp", "npf", "EPT_VIOLATION", "exit_reason=78"])
def test_a_walk_behind_an_exit_that_may_be_a_page_fault_is_a_fault(reason: str, tmp_path: Path) -> None:
    told = lines(
        tmp_path, f"kvm_exit: reason {reason} rip 0x1 info 0 0", "kvm_mmu_pagetable_walk: addr 1000 pferr 0",
        "kvm_mmu_paging_element: pte 27 level 2", "kvm_mmu_paging_element: pte 0 level 1", "kvm_mmu_walker_error: pferr 0",
    )  # fmt: skip
    assert told.faults == 1


def test_a_write_that_the_emulator_may_not_do_is_told_with_the_bit(tmp_path: Path) -> None:
    told = lines(
        tmp_path, "kvm_exit: reason LDTR_TR rip 0xffffffff810551b8 info 0 0", "kvm_mmu_pagetable_walk: addr fffe201040 pferr 2 W",
        "kvm_mmu_paging_element: pte 292b063 level 4", "kvm_mmu_paging_element: pte 2b2f063 level 3",
        "kvm_mmu_paging_element: pte 2d31063 level 2", "kvm_mmu_paging_element: pte 2f3a161 level 1", "kvm_mmu_walker_error: pferr 3 P|W",
    )  # fmt: skip
    (answer,) = told.answers
    assert answer.what.startswith("a write by the emulator is refused") and "CR0.WP" in answer.why


def test_a_fault_repeated_says_which_bit_refuses_it(tmp_path: Path) -> None:
    once = ("kvm_mmu_pagetable_walk: addr 400000 pferr 6 W|U", "kvm_mmu_paging_element: pte 27 level 2",
            "kvm_mmu_paging_element: pte 5065 level 1", "kvm_mmu_walker_error: pferr 7 P|W|U", "kvm_entry: vcpu 0, rip 0x1")  # fmt: skip
    told = lines(tmp_path, *once * 4)
    assert any("Level-1 entry 5065 lacks W" in answer.why for answer in told.answers)


@pytest.mark.parametrize(
    ("reason", "leaves", "tells"),
    [
        ("EPT_VIOLATION", "vmx_handle_exit", "handle_ept_violation"),
        ("EXCEPTION_NMI", "vmx_handle_exit", "handle_exception_nmi"),
        ("ept_violation", "vmx_handle_exit", "handle_ept_violation"),
        ("exception", "vmx_handle_exit", "handle_exception_nmi"),
        ("npf", "svm_handle_exit", "npf_interception"),
        ("PF excp", "svm_handle_exit", "pf_interception"),
    ],
)
def test_functions_are_those_of_the_cpus_vendor(reason: str, leaves: str, tells: str, tmp_path: Path) -> None:
    told = lines(tmp_path, f"kvm_exit: vcpu 0 reason {reason} rip 0x1 info1 0x0 info2 0x0", "kvm_page_fault: address 1000 error_code 4")
    assert {rule.event: rule.kernel for rule in told.rules} == {"kvm_exit": leaves, "kvm_page_fault": tells}


def test_a_page_that_the_host_cannot_give(tmp_path: Path) -> None:
    told = lines(
        tmp_path, "kvm_exit: vcpu 1 reason EPT_VIOLATION rip 0x1 info1 0x181 info2 0x0", "kvm_page_fault: address 5000 error_code 181",
        "kvm_userspace_exit: reason error (14)",
    )  # fmt: skip
    assert "EFAULT" in told.shown[0].outcome


def test_vcpus_of_lower_numbers_may_come_later(tmp_path: Path) -> None:
    """Threads begin in the order of their vCPUs, and a trace with any of them."""
    told = lines(tmp_path, "7> kvm_entry: vcpu 7, rip 0x1", "4> kvm_entry: vcpu 4, rip 0x1", "0> kvm_entry: vcpu 0, rip 0x1")
    assert told.vms == 1 and told.vcpus == 3
    told = lines(tmp_path, "900> kvm_entry: vcpu 7, rip 0x1", "4> kvm_entry: vcpu 4, rip 0x1", "9> kvm_entry: vcpu 7, rip 0x1")
    assert told.vms == 2 and told.vcpus == 3


def test_a_request_alone_does_not_tell_the_mmu(tmp_path: Path) -> None:
    told = lines(
        tmp_path,
        "kvm_mmu_spte_requested: gfn fffff pfn 8be2171 level 1",
        "kvm_mmu_set_spte: gfn fffff spte 8be2171025 (r-xu) level 1 at 8a53b01ff8",
    )
    assert "of which MMU" in next(rule.situation for rule in told.rules if rule.event == "kvm_mmu_set_spte")
