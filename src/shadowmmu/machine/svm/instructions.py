# SPDX-License-Identifier: GPL-2.0-only
"""AMD-V as the guest sees it: its registers, and the instructions VMRUN, VMLOAD, VMSAVE, STGI, CLGI, INVLPGA, VMMCALL.

Entry of L2 and exit from it are in `world_switch`. Sources: APM vol. 2 chapter 15, vol. 3 (system instructions).
"""

from collections.abc import Callable

from shadowmmu.engine.face.types import GuestMemoryError
from shadowmmu.machine.emulator.plain import SVM_ADDRESS_SIZES
from shadowmmu.machine.memory.guest_tables import reported_fault
from shadowmmu.machine.memory.linear_memory import WRITE, GuestFault, NestedFault
from shadowmmu.machine.seam import Exit, Reg, State
from shadowmmu.machine.svm.world_switch import vmexit, vmrun
from shadowmmu.machine.vcpu.processor import Processor
from shadowmmu.machine.vcpu.svm_switch import vmload, vmsave
from shadowmmu.x86.control import Cr0, Efer, Rflags
from shadowmmu.x86.pferr import Pferr
from shadowmmu.x86.vectors import GP, UD
from shadowmmu.x86.vmcb import VMCB_SIZE, SvmExit


def svm_instruction(p: Processor, exit_: Exit) -> None:
    """One of the instructions, by its exit code. Exceptions come before L1's intercepts, but of VMMCALL, legal in all modes.

    SKINIT is not offered.
    """
    if exit_.number == SvmExit.SKINIT:
        raise GuestFault(UD)
    state = p.capture()
    if exit_.number != SvmExit.VMMCALL:
        _demand_protected_ring_0(p, state)
    if p.nested is not None and p.nested.wants(exit_.number):
        vmexit(p, exit_.number)
        return
    _INSTRUCTIONS[exit_.number](p, state)


def _demand_protected_ring_0(p: Processor, state: State) -> None:
    if not p.vcpu.efer & Efer.SVME or not p.vcpu.cr0 & Cr0.PE or state.rflags & Rflags.VM:
        raise GuestFault(UD)
    if state.cpl:
        raise GuestFault(GP)


def _operand(p: Processor, state: State) -> int:
    """The value of rAX, as wide as the instruction's address size."""
    return state.gpr[Reg.RAX] & (1 << 8 * SVM_ADDRESS_SIZES[p.fetcher.decode(state, SVM_ADDRESS_SIZES).code]) - 1


def _vmcb_address(p: Processor, state: State, access: int) -> int:
    """L1 physical address of the VMCB that rAX names. #GP: not the start of a page, or no memory there.

    L2, where L1 lets it, names a physical address of its own.
    """
    address = _operand(p, state)
    if address % VMCB_SIZE or address >> p.vcpu.vm.maxphyaddr:
        raise GuestFault(GP)
    gpa: int | None = p.vcpu.translate_gpa(address, access)
    if gpa is None:
        raise NestedFault(address, reported_fault(p.vcpu).error_code | int(Pferr.GUEST_FINAL))
    return gpa


def read_page(p: Processor, gpa: int) -> bytes:
    """A VMCB; #GP where there is no memory, as KVM does."""
    try:
        return bytes(p.vcpu.vm.read_guest(gpa, VMCB_SIZE))
    except GuestMemoryError:
        raise GuestFault(GP) from None


def _vmrun(p: Processor, state: State) -> None:
    gpa = _vmcb_address(p, state, 0)
    page = read_page(p, gpa)
    state.rip = p.next_rip(state)
    vmrun(p, state, gpa, page)


def _vmload(p: Processor, state: State) -> None:
    p.advance(vmload(p.svm, state, read_page(p, _vmcb_address(p, state, 0))))


def _vmsave(p: Processor, state: State) -> None:
    gpa = _vmcb_address(p, state, WRITE)
    p.memory.store_physical(gpa, vmsave(p.svm, state, read_page(p, gpa)))
    p.advance(state)


def _stgi(p: Processor, state: State) -> None:
    p.gif = True
    p.advance(state)


def _clgi(p: Processor, state: State) -> None:
    p.gif = False
    p.advance(state)


def _invlpga(p: Processor, state: State) -> None:
    """As KVM does: whatever the ASID, the address is dropped here; every VMRUN drops all of L2's."""
    p.vcpu.invlpg(_operand(p, state))
    p.advance(state)


def _undefined(_p: Processor, _state: State) -> None:
    """VMMCALL that nobody intercepts."""
    raise GuestFault(UD)


_INSTRUCTIONS: dict[int, Callable[[Processor, State], None]] = {
    SvmExit.VMRUN: _vmrun,
    SvmExit.VMLOAD: _vmload,
    SvmExit.VMSAVE: _vmsave,
    SvmExit.STGI: _stgi,
    SvmExit.CLGI: _clgi,
    SvmExit.INVLPGA: _invlpga,
    SvmExit.VMMCALL: _undefined,
}
