# SPDX-License-Identifier: GPL-2.0-only
"""The texts of all events but those of shadow pages: a pattern for each, as the kernels of 2.6.31 to 2026 print them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from shadowmmu.trace import events
from shadowmmu.trace.events import AnyEvent
from shadowmmu.trace.kernel import CLASSES, physical

e: Any = events
"""The events, made of plain numbers: which field holds what is said once, by the patterns."""
Reader = Callable[[str], AnyEvent | None]
X = r"(?:0x)?([0-9a-f]{1,16})\b"
D = r"(\d{1,10})"
"""A hexadecimal number, and a decimal one."""
_ERROR_BITS = {"P": 1, "W": 2, "U": 4, "RSVD": 8, "F": 16, "PK": 32, "SS": 64, "SGX": 1 << 15}


def _reads(pattern: str, make: Callable[..., Any]) -> Reader:
    """A reader for texts of this pattern; `make` gets its groups."""
    matches: Any = re.compile(r"\s*" + pattern).match

    def read(text: str) -> AnyEvent | None:
        found = matches(text)
        return None if found is None else make(*found.groups())

    return read


def _hex(cls: Any, *names: str) -> Callable[..., Any]:
    """A maker of events all of whose fields are hexadecimal numbers, in this order; "vcpu" and names after "=" are decimal."""

    def make(*words: str) -> Any:
        return cls(**{name: int(word or "0", 16) for name, word in zip(names, words, strict=True)})

    return make


def _walk(addr: str, pferr: str) -> Any:
    return e.Walk(addr=int(addr, 16), pferr=int(pferr, 16))


def _element(pte: str, level: str) -> Any:
    return e.PagingElement(pte=int(pte, 16), level=int(level))


def _set_spte(gfn: str, spte: str, level: str, sptep: str | None) -> Any:
    return e.SetSpte(gfn=int(gfn, 16), spte=int(spte, 16), level=int(level), sptep=int(sptep or "0", 16))


def _requested(gfn: str, pfn: str, level: str) -> Any:
    return e.SpteRequested(gfn=int(gfn, 16), pfn=int(pfn, 16), level=int(level))


def error_code(words: str) -> int:
    """The number behind P|W|U, or behind digits."""
    if re.fullmatch(r"(?:0x)?[0-9a-f]{1,16}", words):
        return int(words, 16)
    return sum(_ERROR_BITS.get(word, 0) for word in words.split("|"))


def _fast(gva: str, code: str, sptep: str, old: str, new: str, spurious: str, fixed: str) -> Any:
    return e.FastPageFault(
        cr2_or_gpa=int(gva, 16), error_code=error_code(code), sptep=physical(int(sptep, 16)), old_spte=int(old, 16),
        new_spte=int(new, 16), spurious=spurious == "1", fixed=fixed == "1",
    )  # fmt: skip


def _fault(vcpu: str | None, rip: str | None, address: str, code: str) -> Any:
    return e.PageFault(
        vcpu=int(vcpu or "0"), guest_rip=int(rip or "0", 16), fault_address=int(address, 16), error_code=int(code, 16)
    )  # fmt: skip


def _exit(vcpu: str | None, reason: str, rip: str, info1: str | None, info2: str | None) -> Any:
    return e.Exit(
        vcpu=int(vcpu or "0"), exit_reason=EXIT_CODES.get(reason.strip(), 0), guest_rip=int(rip, 16), info1=int(info1 or "0", 16),
        info2=int(info2 or "0", 16),
    )  # fmt: skip


EXIT_CODES = {"shutdown": 0x7F}
"""Reasons that rules ask for, by the words that SVM's exits have in a trace; others have no number here."""


def _entry(vcpu: str | None, rip: str | None) -> Any:
    return e.VmEntry(vcpu=int(vcpu or "0"), rip=int(rip or "0", 16))


def _emulate(csbase: str, rip: str, insn: str, _mode: str | None, failed: str | None) -> Any:
    return e.EmulateInsn(
        csbase=int(csbase, 16), rip=int(rip, 16), insn=bytes.fromhex(insn), len=len(insn.split()), flags=0, failed=int(failed is not None)
    )  # fmt: skip


def _tdp(as_id: str, gfn: str, level: str, old: str, new: str) -> Any:
    return e.TdpMmuSpteChanged(
        as_id=int(as_id), gfn=int(gfn, 16), level=int(level), old_spte=int(old, 16), new_spte=int(new, 16)
    )  # fmt: skip


def _split(gfn: str, spte: str, level: str, errno: str) -> Any:
    return e.SplitHugePage(gfn=int(gfn, 16), spte=int(spte, 16), level=int(level), errno=int(errno))


def _cr(how: str, cr: str, val: str) -> Any:
    return e.Cr(rw=int(how == "write"), cr=int(cr), val=int(val, 16))


def _exception(name: str, code: str | None, again: str | None) -> Any:
    number = _EXCEPTIONS.get(name, 255)
    return e.InjException(
        exception=number, has_error=int(code is not None), error_code=int(code or "0", 16), reinjected=int(again is not None)
    )  # fmt: skip


_EXCEPTIONS = {"#DE": 0, "#DB": 1, "#BP": 3, "#OF": 4, "#BR": 5, "#UD": 6, "#NM": 7, "#DF": 8, "#TS": 10, "#NP": 11, "#SS": 12, "#GP": 13,
               "#PF": 14, "#MF": 16, "#AC": 17, "#MC": 18}  # fmt: skip

TEXTS: dict[str, Reader] = {
    "kvm_mmu_pagetable_walk": _reads(rf"addr {X} pferr {X}", _walk),
    "kvm_mmu_paging_element": _reads(rf"pte {X} level {D}", _element),
    "kvm_mmu_set_accessed_bit": _reads(rf"gpa {X}", _hex(e.SetAccessedBit, "gpa")),
    "kvm_mmu_set_dirty_bit": _reads(rf"gpa {X}", _hex(e.SetDirtyBit, "gpa")),
    "kvm_mmu_walker_error": _reads(rf"pferr {X}", _hex(e.WalkerError, "pferr")),
    "mark_mmio_spte": _reads(rf"sptep:{X} gfn {X} access {X}(?: gen {X})?", _hex(e.MarkMmioSpte, "sptep", "gfn", "access", "gen")),
    "handle_mmio_page_fault": _reads(rf"addr:{X} gfn {X} access {X}", _hex(e.HandleMmioPageFault, "addr", "gfn", "access")),
    "check_mmio_spte": _reads(rf"spte {X} kvm_gen {X} spte-gen {X}", _hex(e.CheckMmioSpte, "spte", "kvm_gen", "spte_gen")),
    "fast_page_fault": _reads(
        rf"(?:vcpu \d+ )?gva {X} error_code ([A-Z|a-fx0-9]{{0,40}}) "
        rf"sptep\s+(?:0x)?([0-9a-f]{{1,16}}|\(null\)) old {X} new {X} spurious (\d) fixed (\d)",
        lambda gva, code, sptep, *rest: _fast(gva, code or "0", "0" if sptep == "(null)" else sptep, *rest),
    ),
    "kvm_mmu_zap_all_fast": _reads(rf"kvm-mmu-valid-gen {X}(?: used_pages {X})?", _hex(e.ZapAllFast, "mmu_valid_gen", "mmu_used_pages")),
    "kvm_mmu_set_spte": _reads(rf"gfn {X} spte {X} \([-rwxu]*\) level {D}(?: at {X})?", _set_spte),
    "kvm_mmu_spte_requested": _reads(rf"gfn {X} pfn {X} level {D}", _requested),
    "kvm_tdp_mmu_spte_changed": _reads(rf"as id {D} gfn {X} level {D} old_spte {X} new_spte {X}", _tdp),
    "kvm_mmu_split_huge_page": _reads(rf"gfn {X} spte {X} level {D} errno (-?\d{{1,10}})", _split),
    "kvm_page_fault": _reads(rf"(?:vcpu {D} )?(?:rip {X} )?address {X} error_code {X}", _fault),
    "kvm_exit": _reads(rf"(?:vcpu {D} )?(?:reason )?(\S.*?) rip {X}(?: info1? {X}(?: info2 | ){X})?", _exit),
    "kvm_entry": _reads(rf"(?:vcpu {D})?(?:,? rip {X})?", _entry),
    "kvm_emulate_insn": _reads(rf"{X}:{X}:\s*((?:[0-9a-f]{{2}} ?){{0,16}})(?:\((\w+)\))?( failed)?", _emulate),
    "kvm_cr": _reads(rf"cr_(read|write) {D} = {X}", _cr),
    "kvm_inj_exception": _reads(rf"(#\w+)(?: \({X}\))?( \[reinjected\])?", _exception),
    "kvm_nested_vmenter": _reads(rf".*?rip: {X} \w+: {X} n(?:ested_)?rip: {X}", _hex(e.NestedVmenter, "rip", "vmcb", "nested_rip")),
    "kvm_nested_vmexit": _reads(
        rf"(?:.{{0,40}}?vcpu \d+ reason .*? )?rip:? {X}", lambda rip: e.NestedVmexit(exit_reason=0, guest_rip=int(rip, 16))
    ),
    "kvm_nested_vmexit_inject": _reads(
        r"(?:vcpu \d+ )?reason:? ", lambda: e.NestedVmexitInject(exit_code=0, exit_info1=0, exit_info2=0)
    ),
    "vcpu_match_mmio": _reads(
        rf"gva {X} gpa {X} (Write|Read) (GPA|GVA)",
        lambda gva, gpa, write, which: e.MatchMmio(gva=int(gva, 16), gpa=int(gpa, 16), write=write == "Write", gpa_match=which == "GPA"),
    ),
    "kvm_mmio": _reads(
        rf"mmio (unsatisfied-read|read|write) len {D} gpa {X}(?: val {X})?",
        lambda kind, size, gpa, val: e.Mmio(
            type=("unsatisfied-read", "read", "write").index(kind), len=int(size), gpa=int(gpa, 16), val=int(val or "0", 16)
        ),
    ),
    "kvm_msr": _reads(
        rf"msr_(read|write) {X} = {X}( \(#GP\))?",
        lambda how, ecx, data, wrong: e.Msr(write=how == "write", ecx=int(ecx, 16), data=int(data, 16), exception=wrong is not None),
    ),
}  # fmt: skip
"""By the kernel's name of the event."""

_ARGUMENT = re.compile(r"\b(\w+)=(0x[0-9a-f]{1,16}|-?\d{1,19})\b")
PROBES = frozenset(
    ("mmu_load", "mmu_unload", "new_pgd", "load_pgd", "free_roots", "reset_context", "sync_roots", "sync_prev_roots", "invlpg",
     "invalidate_gva", "pte_write", "unprotect_page", "mmu_page_fault", "mmu_page_fault_ret", "zap_oldest", "slot_remove_write",
     "write_protect_pt_masked", "zap_collapsible", "guest_tlb_flush")
)  # fmt: skip
"""Probes on the MMU's entry points, as the capture kit sets them."""


_WANTED = {name: [field for field in CLASSES[name].__struct_fields__ if field != "vcpu"] for name in PROBES}


def read_probe(name: str, text: str) -> AnyEvent | None:
    """An event of a kprobe: `(function+0x0/0x1c0 [kvm]) roots=0x1`."""
    wanted = _WANTED[name]
    told = {field: int(value, 16 if value.startswith("0x") else 10) for field, value in _ARGUMENT.findall(text)} if wanted else {}
    try:
        return CLASSES[name](**{field: told[field] for field in wanted})  # type: ignore[return-value]
    except KeyError:
        return None
