# SPDX-License-Identifier: GPL-2.0-only
"""A kernel's trace as text: page texts of all kernels, role words of all layouts, what mails and tools do to lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from shadowmmu.errors import BadInput
from shadowmmu.trace import events as e
from shadowmmu.trace.ftrace.access import access_of, access_of_ept
from shadowmmu.trace.ftrace.format_files import kernel_of_formats
from shadowmmu.trace.ftrace.guess import guess, plugin_is_right, said
from shadowmmu.trace.ftrace.hierarchy import Hierarchies
from shadowmmu.trace.ftrace.page_text import read_page
from shadowmmu.trace.ftrace.reader import Broken, LineReader, Told
from shadowmmu.trace.layouts import LAYOUTS, describe, fixed_and_spurious, layout_of

PAGES = {
    "existing sp gfn 3a22e 1/4 q3 direct --x !pge !nxe root 6 sync": (1, "l1 8-byte q3 direct --x", False),
    "sp gfn 3a22e 2/2 q1 wux pge !nxe root 0 unsync": (1, "l2 4-byte q1 wux", None),
    "sp gfn 3a22e 1 pae q0 wux !nxe root 0 sync": (2, "l1 8-byte q0 wux", None),
    "sp gfn 3a22e 1 q1 -ux nxe root 0 sync new": (2, "l1 4-byte q1 -ux efer_nx", True),
    "sp gen 1f gfn 3a22e 4 pae q0 direct wux invalid !nxe root 1 sync": (3, "l4 8-byte q0 direct wux invalid", None),
    "sp gen a1 gfn 3a22e l1 pae q0 w-x nxe !ad root 0 unsync existing": (4, "l1 8-byte q0 w-x efer_nx ad_disabled", False),
    "sp gen 1 gfn 3a22e l2 4-byte q3 wux nxe ad root 0 sync new": (6, "l2 4-byte q3 wux efer_nx", True),
    "sp gen 1 gfn 3a22e l2 8-byte q0 --u- nxe ad root 0 sync new": (7, "l2 8-byte q0 -u- efer_nx no-read", True),
    "new sp gfn 0 4 q0 direct wux pae !nxe wp root 0 sync": (8, "l4 4-byte q0 direct wux cr0_wp", True),
}


@pytest.mark.parametrize("text", PAGES)
def test_a_page_in_each_of_its_forms(text: str) -> None:
    page = read_page(text)
    assert page is not None
    assert (page.form, describe(page.role), page.created) == PAGES[text]
    assert page.unsync == ("unsync" in text) and page.gfn in (0x3A22E, 0)


def test_the_plugin_is_wrong_for_newer_kernels_and_right_for_older() -> None:
    text = "kvm_mmu_get_page: new sp gfn 0 4 q0 direct wux {}pae !nxe !wp root 0 sync"
    for sign, right in (("", True), ("!", False)):
        assert plugin_is_right(text.format(sign), guess(text.format(sign))) is right
    assert plugin_is_right("", said((5, 4))) and not plugin_is_right("", said((6, 1)))


WORDS = {
    "2.6.3x": (2 | 1 << 4 | 1 << 8 | 7 << 17 | 1 << 22, "l1 4-byte q1 wux efer_nx"),
    "3.0 to 3.19": (1 | 1 << 4 | 1 << 13 | 6 << 14 | 1 << 18 | 1 << 19, "l1 8-byte q0 direct wu- efer_nx cr0_wp"),
    "4.0 to 5.0": (2 | 3 << 5 | 7 << 8 | 1 << 12 | 1 << 17, "l2 4-byte q3 wux efer_nx guest_mode"),
    "5.1 to 5.16": (1 | 1 << 4 | 7 << 8 | 1 << 14, "l1 8-byte q0 wux smep_andnot_wp"),
    "5.17 to 6.12": (1 | 1 << 4 | 1 << 5 | 7 << 8 | 1 << 18, "l1 4-byte q1 wux passthrough"),
    "6.13 to 7.1": (5 | 1 << 7 | 7 << 8 | 1 << 19, "l5 8-byte q0 direct wux mirror"),
    "7.2 and later": (3 | 0b1010 << 8 | 1 << 13 | 1 << 20 | 1 << 24, "l3 8-byte q0 w-x efer_nx smm=1 no-read smep"),
}


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.kernels)
def test_a_role_word_in_each_layout(layout: object) -> None:
    word, words = WORDS[layout.kernels]  # type: ignore[attr-defined]
    assert describe(layout.role(word)) == words  # type: ignore[attr-defined]


def test_versions_choose_layouts_and_numbers() -> None:
    assert [layout_of(v).kernels for v in ((2, 6), (3, 10), (4, 18), (5, 15), (6, 1), (6, 18), (7, 3))] == [one.kernels for one in LAYOUTS]
    assert [fixed_and_spurious(v) for v in ((5, 16), (6, 1), (6, 12))] == [(3, 4), (4, 5), (5, 6)]


LINES = [
    " qemu-kvm-1004  [001] d...  99.1: {}",
    " CPU 0/KVM-1004  [001]  99.1: {}",
    "       <...>-1004  (1000) [001] d..1.  99.1: {}",
    " CPU 0/KVM  1004/1009 [001]  99.100000:          kvmmmu:{}",
    ">> > CPU 0/KVM-1004  [001] ....  99.1: {}",
    "{}",
    "  > {}",
]


@pytest.mark.parametrize("line", LINES)
def test_what_stands_around_an_event(line: str) -> None:
    text = "kvm_mmu_set_spte: gfn 41d spte 10041d867 (rwxu) level 1 at 1020a8808"
    (told,) = read([line.format(text)])
    assert told.event == e.SetSpte(gfn=0x41D, spte=0x10041D867, level=1, sptep=0x1020A8808)
    assert told.front.pid == (1004 if "99.1" in line else 0)


def test_folded_quoted_and_counted_lines() -> None:
    told = read([
        "> qemu-kvm-1004  [001] ....  99.1:",
        "> kvm_mmu_get_page: sp gen 1 gfn 3a22e l1 8-byte q0 wux nxe",
        "> ad root 0 sync new",
        "   6123 kvm_mmu_pagetable_walk: addr 7f00 pferr 2 W",
        " => kvm_mmu_get_page",
        "<stack trace>",
        "kvm_mmu_set_spte: gfn=3D0x41d spte=3D0x10041d867 sptep=3D0x0 lev=",
        "el=3D0x1",
        "some words about kvm_mmu_get_page: it is called twice",
    ])  # fmt: skip
    assert [one.event and one.event.name for one in told] == ["kvm_mmu_get_page", "kvm_mmu_pagetable_walk", "kvm_mmu_set_spte"]
    assert told[0].event.created and told[0].front.cpu == 1 and told[1].front.count == 6123  # type: ignore[union-attr]


FRONTS = {
    " qemu-kvm-1234    [001] d..2 238476823746: {}": 238476823746.0,
    "qemu-kvm-1234      3d..1   12us+: {}": 12e-6,
    "[  123.456791] CPU 0/KV-1234      3d..1. 98765432us : {}": 98.765432,
}


@pytest.mark.parametrize("line", FRONTS)
def test_clocks_without_a_point_and_the_dump_of_an_oops(line: str) -> None:
    (told,) = read([line.format("kvm_entry: vcpu 1, rip 0xfff0")])
    assert told.event == e.VmEntry(vcpu=1, rip=0xFFF0)
    assert (told.front.pid, told.front.time) == (1234, FRONTS[line])


def test_what_is_left_of_counted_lines() -> None:
    """With the names of events alone, or without them."""
    told = read([
        "6123451 kvm_mmu_pagetable_walk", "      1 kvm_exit:", "  6,123,451      kvm:kvm_entry  ",
        "     12 sp gen 0 gfn 1a l1 8-byte q0 wux nxe ad root 0 sync", "     77 reason EPT_VIOLATION rip 0xffffffff81063ec6 info 184 0",
        "      3 addr 7f12000 pferr 2 W", "      4 gfn 41d pfn 10041d level 1", "      5 gfn 41d spte 10041d867 (rwxu) level 1",
    ])  # fmt: skip
    assert [one.front.count for one in told] == [6123451, 1, 6123451, 12, 77, 3, 4, 5]
    assert [one.name for one in told] == [
        "kvm_mmu_pagetable_walk", "kvm_exit", "kvm_entry", "kvm_mmu_get_page", "kvm_exit", "kvm_mmu_pagetable_walk",
        "kvm_mmu_spte_requested", "kvm_mmu_set_spte",
    ]  # fmt: skip
    assert all(one.event is not None for one in told)


def test_stack_traces_are_no_gap() -> None:
    reader = LineReader(said((6, 1)), True)
    front = " <...>-3312    [005] ...1.  2214.446183: "
    lines = [
        f"{front}<stack trace>",
        " => kvm_zap_obsolete_pages",
        f"{front}kernel_stack:  <stack trace >",
        "=> kvm_set_memslot (ffffffffc0a1b2c3)",
    ]
    assert list(reader.read(lines)) == [] and reader.stack == 4 and not reader.prose


def test_what_plugins_and_kernels_print_now_and_then() -> None:
    told = read([
        "kvm_exit: [FAILED TO PARSE] exit_reason=44 guest_rip=0xc01185ed",
        "kvm_entry:             vcpu_id=0x1 rip=0xfff0",
        "fast_page_fault: vcpu 0 gva 7f12000 error_code  sptep           (null) old 0x0 new 0 spurious 0 fixed 0",
        "kvm_nested_vmrun: rip: 0x1 vmcb: 0x2000 nrip: 0x3000 int_ctl: 0x0 event_inj: 0x0 npt: on",
        " qemu-kvm-1004  [001] ....  99.1: kvm_mmu_set_spte: gfn 41d spte=20", "10041d867 (rwxu) level 1 at 1020a8808",
    ])  # fmt: skip
    assert [one.event for one in told] == [
        e.Exit(exit_reason=44, guest_rip=0xC01185ED, info1=0, info2=0), e.VmEntry(vcpu=1, rip=0xFFF0),
        e.FastPageFault(cr2_or_gpa=0x7F12000, error_code=0, sptep=0, old_spte=0, new_spte=0, spurious=False, fixed=False),
        e.NestedVmenter(rip=1, vmcb=0x2000, nested_rip=0x3000), e.SetSpte(gfn=0x41D, spte=0x10041D867, sptep=0x1020A8808, level=1),
    ]  # fmt: skip


def test_a_known_event_in_an_unknown_form_is_told_as_such() -> None:
    (told,) = read([" qemu-kvm-1 [000] .... 1.0: kvm_mmu_paging_element: other words"])
    assert told.event is None and told.text == "other words"


def test_lost_events_are_a_gap() -> None:
    reader = LineReader(said((6, 1)), True)
    (gap,) = reader.read(["CPU:2 [LOST 1234 EVENTS]"])
    assert isinstance(gap, Broken) and gap.lost == 1234


def test_raw_fields_by_version() -> None:
    line = "kvm_mmu_get_page: gfn=0x3a role=5906 root_count=0 unsync=0 created=1"
    older, newer = (next(iter(LineReader(said(v), True).read([line]))) for v in ((5, 4), (6, 1)))
    assert describe(older.event.role) == "l2 8-byte q0 wux efer_nx" and describe(newer.event.role) == "l2 4-byte q0 wux efer_nx"  # type: ignore[union-attr]
    fast = "fast_page_fault: vcpu_id=0 cr2_or_gpa=0x1000 error_code=0x2 sptep=0x10 old_spte=0x1 new_spte=0x3 ret=5"
    spurious, fixed = (next(iter(LineReader(said(v), True).read([fast]))).event for v in ((6, 1), (6, 12)))  # type: ignore[union-attr]
    assert spurious.spurious and not spurious.fixed and fixed.fixed and not fixed.spurious  # type: ignore[union-attr]


TRACE_CMD = {
    "kvm_mmu_pagetable_walk:  addr=801b pferr=10": e.Walk(addr=0x801B, pferr=0x10),
    "kvm_mmu_paging_element:  pte=19027 level=2": e.PagingElement(pte=0x19027, level=2),
    "kvm_mmu_set_spte:      gfn=18 spte=29bce67 sptep=e8430c0 level=1 r=1 x=1 u=1": e.SetSpte(
        gfn=0x18, spte=0x29BCE67, sptep=0xE8430C0, level=1
    ),
    "kvm_mmu_get_page:      mmu_valid_gen=0 gfn=29 role=132882 root_count=0 unsync=0 created=1": e.GetPage(
        gfn=29, role=132882, mmu_valid_gen=0, root_count=0, unsync=False, created=True
    ),
    "kvm_exit:              exit_reason=1024 guest_rip=0x8000 isa=2 info1=0x1 info2=0x0000000000019020 vcpu_id=0": e.Exit(
        exit_reason=1024, guest_rip=0x8000, info1=1, info2=0x19020
    ),
    "kvm_emulate_insn:      rip=801b csbase=0 len=2 insn=ARRAY[0f, 30, b8, 01] flags=5 failed=0": e.EmulateInsn(
        rip=0x801B, csbase=0, len=2, insn=b"\x0f\x30", flags=5, failed=0
    ),
    "kvm_emulate_insn:     0:801b: 0f 30": e.EmulateInsn(rip=0x801B, csbase=0, len=2, insn=b"\x0f\x30", flags=0, failed=0),
    "kvm_inj_exception:    [FAILED TO PARSE] exception=14 has_error=1 error_code=0 reinjected=1": e.InjException(
        exception=14, has_error=1, error_code=0, reinjected=1
    ),
    "kvm_inj_exception: #PF (0x0) [reinjected]": e.InjException(exception=14, has_error=1, error_code=0, reinjected=1),
    "kvm_nested_vmexit:    <CANT FIND FIELD rip>vcpu 0 reason npf rip 0x200000 info1 0x1": e.NestedVmexit(
        exit_reason=0, guest_rip=0x200000
    ),
    "mmu_page_fault_ret:   (ffffffffc02b9eb0 <- ffffffffc028e45b) ret=1": e.MmuPageFaultRet(ret=1),
    "print:                 ip=0xffffffff811c36bd buf=H create vm": e.Marker(text="H create vm"),
    "print:                0xffffffff811c36bd: H create vm": e.Marker(text="H create vm"),
}
"""As trace-cmd 3.1.6 prints a trace.dat of Linux 6.1: numbers as the `print fmt` has them, if it is understood."""


@pytest.mark.parametrize("line", TRACE_CMD)
def test_trace_cmd_of_a_trace_dat(line: str) -> None:
    (told,) = read([f"           <...>-279   [000]     4.052720: {line}"])
    assert told.event == TRACE_CMD[line]  # type: ignore[comparison-overlap]


def test_a_page_without_a_name_is_an_event_of_no_page() -> None:
    reader = LineReader(said((6, 1)), True)
    lines = [
        "cpus=1",
        "kvm_mmu_prepare_zap_page: 1 q0 wux pae !nxe !wp root 0 sync",
        "kvm_mmu_unsync_page:  1 q0 direct wux !pae nxe wp root 0 sync",
    ]
    assert [one.event for one in reader.read(lines) if isinstance(one, Told)] == [
        e.Other(ev="kvm_mmu_prepare_zap_page"), e.Other(ev="kvm_mmu_unsync_page"),
    ]  # fmt: skip
    assert reader.unnamed == 2 and not reader.prose


def test_walks_of_the_kernels_log() -> None:
    seen = Hierarchies()
    lines = (
        "get_mmio_spte: reserved bits set on MMU-present spte, addr 0x7f1000, hierarchy:",
        "------ spte = 0x10a2b4907 level = 4, rsvd bits = 0x0",
        "------ spte = 0x8000000a2b4987 level = 3, rsvd bits = 0x80", "detect reserved bits on spte, addr 0x10, dump hierarchy:",
        "------ spte 0x123 level 1.",
    )  # fmt: skip
    assert all(seen.line(number, line) for number, line in enumerate(lines))
    assert [[(s.level, s.spte, s.reserved) for s in one.steps] for one in seen.seen] == [
        [(4, 0x10A2B4907, 0), (3, 0x8000000A2B4987, 0x80)], [(1, 0x123, -1)],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "kernel"),
    [
        ("kvm_mmu_get_page: sp gen 1f gfn 1 l1 pae q0 wux !nxe ad root 0 sync new", "4.13 to 5.0"),
        (
            "kvm_mmu_get_page: sp gen 0 gfn 1 l1 8-byte q0 wux !nxe ad root 0 sync new\nfast_page_fault: vcpu 0 gva 0 error_code W",
            "5.1 to 5.15",
        ),
        ("kvm_mmu_get_page: sp gen 0 gfn 1 l1 8-byte q0 rwux !nxe ad root 0 sync new", "7.2 to 7.3"),
        ("kvm_page_fault: vcpu 0 rip 0x0 address 0x0 error_code 0x2", "5.19 to 7.3"),
    ],
)
def test_the_kernel_is_guessed(text: str, kernel: str) -> None:
    assert guess(text).words == kernel


def read(lines: list[str]) -> list[Told]:
    return [one for one in LineReader(said((6, 1)), True).read(lines) if isinstance(one, Told)]


@pytest.mark.parametrize(
    ("fmt", "kernel"),
    [
        ("role.has_4_byte_gpte ? 4 : 8 REC->ret == 4, REC->ret == 5", "5.19 to 6.11"),
        ("role.gpte_is_8_bytes ? 8 : 4", "5.1 to 5.16"),
        ('role.has_4_byte_gpte ? 4 : 8 "rwux"', "7.2 to 7.3"),
        ("role.cr4_pae sp gen %lx", "3.11 to 5.0"),
    ],
)
def test_format_files_tell_the_kernel(fmt: str, kernel: str, tmp_path: Path) -> None:
    (tmp_path / "kvm_mmu_get_page").mkdir()
    (tmp_path / "kvm_mmu_get_page" / "format").write_text(f"name: kvm_mmu_get_page\nprint fmt: {fmt}\n")
    assert kernel_of_formats(tmp_path).words == kernel
    assert kernel_of_formats(tmp_path / "kvm_mmu_get_page" / "format").words == kernel


def test_what_is_no_format_file_is_refused(tmp_path: Path) -> None:
    for named in (tmp_path, tmp_path / "none"):
        with pytest.raises(BadInput):
            kernel_of_formats(named)


def test_accesses_in_words() -> None:
    assert access_of(0x2_0000_0006) == "write, not present, in the guest's own table walk"
    assert access_of(0x15) == "fetch by user code, present"
    assert access_of_ept(0x1A) == "write, the entry allows rw-" and access_of_ept(0x181) == "read, not present"


@pytest.mark.parametrize(
    "line",
    [
        " => kvm_mmu_get_page", "runner-1 [000] 1.0: kernel_stack: <stack trace >", "      7f0c48feb main+0x3b (/usr/bin/qemu)",
        "\tffffffffc0266905 __traceiter_kvm_apicv_inhibit_changed+0x35 ([kernel.kallsyms])", "\t           1f20 do_vm+0x0 (/runner)",
        "\t4d565f4554414552 [unknown] ([unknown])", "\t 5f3a std::map<int, long>::at(int const&)+0x1 (/usr/lib/libx.so (deleted))",
    ],
)  # fmt: skip
def test_lines_of_call_chains_are_no_gap(line: str) -> None:
    fault = " q 283 [000] 12.347614:  kvm:kvm_page_fault: vcpu 0 rip 0x1 address 0x8000 error_code 0x10"
    reader = LineReader(said((6, 1)), inverted=True)
    assert [type(told) for told in reader.read([fault, line, fault])] == [Told, Told]
    assert reader.prose == 0
