# SPDX-License-Identifier: GPL-2.0-only
# cython: binding=False, embedsignature=True, embedsignature.format=clinic
# Without a binding a method sees whom it is called on: `Vcpu.enter(vm)` is a TypeError, and no crash.
"""`Vcpu`: one virtual CPU for Python users. It is made by its `Vm`."""

import cython
from cython.cimports.cpython.bytes import PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cython.cimports.shadowmmu.engine.arena.state import (
    PAGE_SIZE,
    GuestException,
    GuestExceptionPtr,
    Hpa,
    KvmPtr,
    KvmVcpuPtr,
    PfRet,
    gpa_t,
    p_u8,
    p_u64,
    u64,
)
from cython.cimports.shadowmmu.engine.cpu.legal import NestedPaging, is_valid_l2
from cython.cimports.shadowmmu.engine.cpu.nested import nested_enter, nested_exit, nested_exit_at_entry
from cython.cimports.shadowmmu.engine.cpu.registers import set_cr0, set_cr3, set_cr4, set_efer, set_smm, set_sregs
from cython.cimports.shadowmmu.engine.cpu.requests import prepare_entry
from cython.cimports.shadowmmu.engine.entries.mmio import mmio_info_in_cache
from cython.cimports.shadowmmu.engine.face.arguments import word
from cython.cimports.shadowmmu.engine.face.nested_walk import walk_nested
from cython.cimports.shadowmmu.engine.face.outside import raise_fault, raise_no_root
from cython.cimports.shadowmmu.engine.face.views import kept_roots, view_mmu
from cython.cimports.shadowmmu.engine.fault.fault import inject_page_fault, mmu_page_fault
from cython.cimports.shadowmmu.engine.fault.invlpg import kvm_invlpg
from cython.cimports.shadowmmu.engine.fault.retry import begin_emulation, retry_failed, retry_instruction, unprotect_in_delivery
from cython.cimports.shadowmmu.engine.guest.mmu import create_mmus, guest_level, init_mmu, root_level
from cython.cimports.shadowmmu.engine.guest.walker import gva_to_gpa, permission_fault, translate_gpa
from cython.cimports.shadowmmu.engine.memory.guest_memory import read_guest
from cython.cimports.shadowmmu.engine.pages.tracking import write_emulated
from cython.cimports.shadowmmu.x86.control import Cr0
from cython.cimports.shadowmmu.x86.pferr import Pferr

from shadowmmu.engine.face.arguments import check_range, check_within_page
from shadowmmu.engine.face.types import EngineError, Entry, Levels, MmuView, NestedWalk, Outcome, PageFaultException, RootInfo

_MADE_BY_VM = object()
_OUTCOMES = {int(outcome): outcome for outcome in Outcome}


@cython.final
@cython.cclass
class Vcpu:
    """One virtual CPU: its registers as far as paging needs them, and its MMU.

    It is number `id` of its VM `vm`, which makes it.
    """

    def __cinit__(self, key: object = None):
        if key is not _MADE_BY_VM:
            raise TypeError("a vCPU is made by its VM: take one of Vm(...).vcpus")

    def __repr__(self) -> str:
        vcpu: KvmVcpuPtr = self.vcpu
        running: str = "L2" if vcpu.nested.guest_mode else "L1" if vcpu.kvm.tdp else "guest"
        root: str = "no root" if self.root is None else f"root {self.root:#x}"
        registers: str = f"cr0 {vcpu.cr0:#x} cr3 {vcpu.cr3:#x} cr4 {vcpu.cr4:#x} efer {vcpu.efer:#x}"
        return f"<Vcpu {self.id}: {running} {registers}, {guest_level(vcpu.mmu)} levels on {root_level(vcpu.mmu)}, {root}>"

    # --- registers

    def set_sregs(self, cr0: int, cr3: int, cr4: int, efer: int) -> bool:
        """Take all paging registers at once, as KVM_SET_SREGS does.

        False: no CPU can have them together, and nothing has changed; or they were taken, and a PAE CR3 has bad PDPTEs.
        """
        return set_sregs(self.vcpu, word("cr0", cr0), word("cr3", cr3), word("cr4", cr4), word("efer", efer))

    def set_cr0(self, value: int) -> bool:
        """MOV to CR0, or LMSW or CLTS; False: the CPU raises #GP(0) and nothing has changed (SDM vol. 3 section 2.5)."""
        return set_cr0(self.vcpu, word("value", value))

    def set_cr3(self, value: int) -> bool:
        """MOV to CR3: what the guest may have cached is dropped, but for a PCID's own with bit 63; False: #GP(0), nothing has changed."""
        return set_cr3(self.vcpu, word("value", value))

    def set_cr4(self, value: int) -> bool:
        """MOV to CR4; False: #GP(0), nothing has changed."""
        return set_cr4(self.vcpu, word("value", value))

    def set_efer(self, value: int) -> bool:
        """WRMSR to EFER; False: #GP(0), nothing has changed."""
        return set_efer(self.vcpu, word("value", value))

    @property
    def cr0(self) -> int:
        """Of L2 while it runs; so the other registers."""
        return self.vcpu.cr0

    @property
    def cr2(self) -> int:
        """The address of the last #PF, which its deliverer stores here: the engine does not."""
        return self.vcpu.cr2

    @cr2.setter
    def cr2(self, value: int):
        self.vcpu.cr2 = word("cr2", value)

    @property
    def cr3(self) -> int:
        """Setting it is not a MOV to CR3: the hardware wrote it without an exit, as with nested paging, and the MMU is not told."""
        return self.vcpu.cr3

    @cr3.setter
    def cr3(self, value: int):
        if not self.vcpu.kvm.tdp:
            raise EngineError(f"vCPU {self.id}: without nested paging each write of CR3 exits; use set_cr3")
        self.vcpu.cr3 = word("cr3", value)

    @property
    def cr4(self) -> int:
        """Control-register bits are `x86.control.Cr4`."""
        return self.vcpu.cr4

    @property
    def efer(self) -> int:
        """`x86.control.Efer` bits; LMA follows CR0.PG."""
        return self.vcpu.efer

    @property
    def pkru(self) -> int:
        """Rights of the guest's protection keys, two bits each."""
        return self.vcpu.pkru

    @pkru.setter
    def pkru(self, value: int):
        self.vcpu.pkru = word("pkru", value)

    @property
    def ac(self) -> bool:
        """EFLAGS.AC of the guest, which lifts SMAP."""
        return bool(self.vcpu.ac)

    @ac.setter
    def ac(self, value: bool):
        self.vcpu.ac = value

    @property
    def smm(self) -> bool:
        """In system-management mode: memory is what the memslots of address space 1 say. Registers stay; the caller sets those of SMM."""
        return bool(self.vcpu.smm)

    @smm.setter
    def smm(self, value: bool):
        self.must_run(1)
        if bool(value) != bool(self.vcpu.smm):
            set_smm(self.vcpu, bool(value))

    @property
    def pdptrs(self) -> tuple[int, int, int, int]:
        """The PDPTE registers, as the last load of a PAE CR3 found them (SDM vol. 3 section 4.4.1)."""
        p: p_u64 = self.vcpu.walk_mmu.pdptrs
        return (p[0], p[1], p[2], p[3])

    # --- running

    def enter(self) -> Entry:
        """Serve pending requests and have a root: call before every guest entry.

        Raises TripleFault if the guest's root leads outside memory, OutOfPages if no root can be made.
        """
        result: cython.int = prepare_entry(self.vcpu)
        if result:
            raise_no_root(self.vcpu, result)
        gvas: tuple = ()
        if self.vcpu.flush_gva_count:
            gvas = tuple([self.vcpu.flush_gva[i] for i in range(self.vcpu.flush_gva_count)])
        entry = Entry(self.vcpu.mmu.root.hpa, root_level(self.vcpu.mmu), bool(self.vcpu.flush_hw_all), gvas)
        self.vcpu.flush_hw_all = False
        self.vcpu.flush_gva_count = 0
        return entry

    def page_fault(self, gva: int, error_code: int) -> Outcome:
        """Handle a #PF exit (or a nested page fault: then a guest physical address) with its error code, `Pferr` bits.

        Raises HostFault if the host cannot give the page, OutOfPages if no shadow page is left.

        In the kernel: kvm_handle_page_fault.
        """
        address: u64 = word("gva", gva)
        return self.outcome(address, mmu_page_fault(self.vcpu, address, word("error_code", error_code)))

    @cython.cfunc
    def outcome(self, address: u64, result: cython.int) -> object:
        """What the MMU made of a fault; the host's own failures are raised."""
        if result < 0:
            raise_fault(self.vcpu, address, result)
        return _OUTCOMES[result]

    def touch_range(self, gva: int, count: int, step: int, error_code: int) -> int:
        """Handle up to 2**24 page faults at addresses `step` bytes apart, without Python in between; how many were FIXED."""
        check_range("count", count, 0, 1 << 24)
        address: u64 = word("gva", gva)
        stride: u64 = word("step", step)
        code: u64 = word("error_code", error_code)
        number: u64 = count
        fixed: u64 = 0
        i: u64
        for i in range(number):
            if mmu_page_fault(self.vcpu, address + i * stride, code) == PfRet.RET_PF_FIXED:
                fixed += 1
        return fixed

    @property
    def exception(self) -> PageFaultException | None:
        """The fault to deliver after INJECT, or after `gva_to_gpa` gave None."""
        e: GuestExceptionPtr = cython.address(self.vcpu.exception)
        if not e.pending:
            return None
        return PageFaultException(14, e.error_code, e.address, bool(e.nested_page_fault), e.exit_qualification)

    @property
    def writes_own_table(self) -> bool:
        """The last fault was a write to a table on the way to the written address (the kernel: EMULTYPE_WRITE_PF_TO_SP)."""
        return bool(self.vcpu.write_fault_to_shadow_pgtable)

    def invlpg(self, gva: int) -> None:
        """The guest executed INVLPG."""
        kvm_invlpg(self.vcpu, word("gva", gva))

    # --- nesting

    def may_vmrun(self, cr0: int, cr4: int, efer: int, ncr3: int | None = None) -> bool:
        """Whether VMRUN takes these registers of an L2, before it changes anything; its CR3 and PDPTEs are looked at as it loads them."""
        self.must_have_vmrun(ncr3)
        paging: NestedPaging = NestedPaging.NESTED_NONE if ncr3 is None else NestedPaging.NESTED_NPT
        root: u64 = 0 if ncr3 is None else word("ncr3", ncr3)
        return is_valid_l2(self.vcpu, word("cr0", cr0), word("cr4", cr4), word("efer", efer), paging, root)

    def nested_vmrun(self, cr0: int, cr3: int, cr4: int, efer: int, ncr3: int | None = None) -> bool:
        """L1 executed VMRUN for an L2 with these registers, on the NPT at `ncr3` (None: nested paging off).

        False: an illegal L2 state, L1 gets VMEXIT_INVALID (call `nested_vmexit`).
        """
        self.must_have_vmrun(ncr3)
        paging: NestedPaging = NestedPaging.NESTED_NONE if ncr3 is None else NestedPaging.NESTED_NPT
        root: u64 = 0 if ncr3 is None else word("ncr3", ncr3)
        return nested_enter(self.vcpu, word("cr0", cr0), word("cr3", cr3), word("cr4", cr4), word("efer", efer), paging, root, False, 3)

    def nested_vmentry(self, cr0: int, cr3: int, cr4: int, efer: int, eptp: int, *, exec_only: bool = True, huge_level: int = 3) -> bool:
        """L1 executed VMLAUNCH or VMRESUME with EPT at `eptp`; `exec_only` and `huge_level` are what L1 was promised.

        Every entry syncs and flushes, as VMRUN does, so INVEPT between two entries has nothing left to do.
        False: an EPT pointer or an L2 state that VM entry refuses, L1 gets the failure (call `nested_vmexit`).
        """
        self.must_run(1)
        check_range("huge_level", huge_level, 1, 3)
        if not self.vcpu.kvm.ept:
            raise EngineError(f"vCPU {self.id}: this VM offers no EPT; make it with vendor='vmx' and tdp=True")
        words: u64[5] = [word("cr0", cr0), word("cr3", cr3), word("cr4", cr4), word("efer", efer), word("eptp", eptp)]
        return nested_enter(self.vcpu, words[0], words[1], words[2], words[3], NestedPaging.NESTED_EPT, words[4], exec_only, huge_level)

    def nested_vmexit(self, *, at_entry: bool = False) -> bool:
        """Back to L1 with the registers it had at entry; False: its CR3 has become illegal, L1 shuts down.

        A vCPU that has shut down keeps the MMU of its L2: reset it (`set_sregs`) before it enters again.

        `at_entry`: L2 was being entered (an exception that L1 takes was to be delivered), so requests have been served.
        """
        self.must_run(2)
        return nested_exit_at_entry(self.vcpu) if at_entry else nested_exit(self.vcpu)

    @cython.cfunc
    def must_have_vmrun(self, ncr3: object) -> object:
        """Raise EngineError unless L1 runs, on a CPU that has a nested CR3 if there is one."""
        self.must_run(1)
        if ncr3 is not None and self.vcpu.kvm.vmx:
            raise EngineError(f"vCPU {self.id}: an Intel CPU has no nested CR3; use nested_vmentry")
        return None

    @cython.cfunc
    def must_run(self, level: cython.int) -> object:
        """Raise EngineError unless L1 (1) or L2 (2) runs."""
        if self.vcpu.nested.guest_mode != level - 1:
            raise EngineError(f"vCPU {self.id}: L{3 - level} runs; {'nested_vmexit' if level == 1 else 'enter an L2'} first")
        return None

    @property
    def guest_mode(self) -> bool:
        """L2 is running."""
        return bool(self.vcpu.nested.guest_mode)

    @property
    def mmu_name(self) -> str:
        """Which MMU builds the tables in use: "root", or "guest" while L2 runs on a shadow of L1's NPT or EPT."""
        return "guest" if self.vcpu.mmu.is_guest_mmu else "root"

    @property
    def ncr3(self) -> int | None:
        """L1's nested CR3 or EPT pointer while L2 runs with nested paging; None otherwise."""
        return self.vcpu.nested.ncr3 if self.vcpu.nested.npt else None

    def nested_walk(self, gpa: int) -> NestedWalk | None:
        """The way of an L2 physical address through L1's tables, looked at without setting A or D; None without nested paging."""
        address: u64 = word("gpa", gpa)
        return walk_nested(self.vcpu, address) if self.vcpu.nested.npt else None

    def translate_gpa(self, gpa: int, access: int) -> int | None:
        """L1 physical address of an L2 physical one, as an access (Pferr bits) would find it; None: `exception` is for L1.

        Without nested paging addresses are L1 physical already.
        """
        fault: GuestExceptionPtr = cython.address(self.vcpu.exception)
        found: gpa_t = translate_gpa(self.vcpu, self.vcpu.walk_mmu, word("gpa", gpa), word("access", access), fault)
        if found == Hpa.INVALID_PAGE:
            self.vcpu.exception.pending = True
            return None
        return found

    # --- for an emulator

    def gva_to_gpa(self, gva: int, access: int) -> int | None:
        """Translate as an access (Pferr WRITE, USER, FETCH bits) would; None: `exception` says why it faults.

        Sets A and D in the guest's tables, as the CPU does.
        """
        fault: GuestExceptionPtr = cython.address(self.vcpu.exception)
        gpa: gpa_t = gva_to_gpa(self.vcpu, self.vcpu.walk_mmu, word("gva", gva), word("access", access), fault)
        if gpa == Hpa.INVALID_PAGE:
            self.vcpu.exception.pending = True
            return None
        return gpa

    def mmio_gpa(self, gva: int, access: int) -> int | None:
        """Where `gva` leads if that is where the last fault found no memory (vcpu_mmio_gva_to_gpa); None: walk the tables."""
        address: u64 = word("gva", gva)
        code: u64 = word("access", access)
        if not mmio_info_in_cache(self.vcpu, address, False):
            return None
        if self.vcpu.cr0 & Cr0.PG:
            # Where reading is a right of its own, the noted ones are without it.
            if not code & Pferr.WRITE and self.vcpu.kvm.rules.mmio_loads_walk:
                return None
            if permission_fault(self.vcpu, self.vcpu.walk_mmu, self.vcpu.mmio_access, 0, code):
                return None
        return self.vcpu.mmio_gfn << 12 | address & 0xFFF

    def is_mmio_gpa(self, gpa: int) -> bool:
        """The last fault found no memory at this page (vcpu_match_mmio_gpa): KVM's emulator does not look for any."""
        return bool(mmio_info_in_cache(self.vcpu, word("gpa", gpa), True))

    def begin_emulation(self, rip: int, address: int, user: bool) -> None:
        """The fault on `address`, linear or with nested paging physical, is to be emulated, by the instruction at `rip`."""
        begin_emulation(self.vcpu, word("rip", rip), word("address", address), user)

    def retry_instruction(self, writes_tables: bool) -> bool:
        """True: the guest does that instruction again, as what stood in its way is shadowed no longer. Asked before it is emulated;
        `writes_tables`: guests write their tables by it (x86_page_table_writing_insn)."""
        return retry_instruction(self.vcpu, writes_tables)

    def retry_failed(self) -> bool:
        """The same where it cannot be fetched, or not be emulated."""
        return retry_failed(self.vcpu)

    def unprotect_in_delivery(self, gva: int, user: bool, faulted: bool) -> bool:
        """A fault on `gva` while an event is delivered, before it is served and, if it is to be emulated, once more behind (`faulted`).
        True: a table stood in its way that is shadowed no longer, and the delivery is tried again."""
        return unprotect_in_delivery(self.vcpu, word("gva", gva), user, faulted)

    def inject(self) -> None:
        """The fault that `gva_to_gpa` reported goes to the guest: drop the shadow of that address first."""
        fault: GuestException = self.vcpu.exception
        inject_page_fault(self.vcpu, cython.address(fault))

    def read_emulated(self, gpa: int, size: int) -> bytes | None:
        """Read up to 64 bytes within one page; None: no memory there (MMIO)."""
        data: cython.uchar[64]
        check_within_page("gpa", gpa, size, 64)
        if not read_guest(self.vcpu.kvm, self.vcpu.smm, gpa, data, size):
            return None
        return PyBytes_FromStringAndSize(cython.cast(cython.p_char, data), size)

    def write_emulated(self, gpa: int, data: bytes) -> bool:
        """Store within one page and let shadowed tables follow; False: no writable memory there (MMIO)."""
        check_within_page("gpa", gpa, len(data), PAGE_SIZE)
        return write_emulated(self.vcpu, gpa, cython.cast(p_u8, PyBytes_AS_STRING(data)), len(data))

    # --- looking at the MMU

    @property
    def root(self) -> int | None:
        """Host physical address of the loaded root; None while there is none."""
        return None if self.vcpu.mmu.root.hpa == Hpa.INVALID_PAGE else self.vcpu.mmu.root.hpa

    @property
    def prev_roots(self) -> tuple[RootInfo, ...]:
        """The cached roots, the most recently used first."""
        return kept_roots(self.vcpu.mmu)

    @property
    def levels(self) -> Levels:
        """Levels of the guest's tables and of the shadow tables, of the MMU in use."""
        return Levels(guest_level(self.vcpu.mmu), root_level(self.vcpu.mmu))

    @property
    def root_role(self) -> int:
        """The role word of the roots of the MMU in use (`engine.arena.role.Role`)."""
        return self.vcpu.mmu.root_role

    @property
    def mmus(self) -> tuple[MmuView, ...]:
        """The root MMU, and the guest MMU once L1 has run an L2 with nested paging: its roots outlive the L2."""
        root: object = view_mmu(self.vcpu, cython.address(self.vcpu.root_mmu))
        if not self.vcpu.guest_mmu.root_role:
            return (root,)
        return (root, view_mmu(self.vcpu, cython.address(self.vcpu.guest_mmu)))

    @property
    def requests(self) -> int:
        """Pending requests, as `engine.arena.state.Request` bits."""
        return self.vcpu.requests


@cython.cfunc
def make_vcpu(vm: object, kvm: KvmPtr, id: cython.int) -> Vcpu:
    """vCPU `id` of `vm`, without paging."""
    made: Vcpu = Vcpu.__new__(Vcpu, _MADE_BY_VM)
    made.vm = vm
    made.id = id
    made.vcpu = cython.address(kvm.vcpus[id])
    made.vcpu.kvm = kvm
    made.vcpu.id = id
    made.vcpu.cr0 = Cr0.ET
    create_mmus(made.vcpu)
    init_mmu(made.vcpu)
    return made
