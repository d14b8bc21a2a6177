# SPDX-License-Identifier: GPL-2.0-only
"""What may be written to CR0 and CR4 beside what the MMU has a say in. Source: APM vol. 2 section 3.1; SDM vol. 3 section 2.5.

False: #GP, and nothing has changed.
"""

import cython
from cython.cimports.libc.stdint import uint64_t
from cython.cimports.shadowmmu.engine.arena.state import KvmVcpuPtr
from cython.cimports.shadowmmu.engine.cpu.registers import set_cr0, set_cr4
from cython.cimports.shadowmmu.engine.face.vcpu import Vcpu
from cython.cimports.shadowmmu.x86.control import Cr0, Efer

CR0_KNOWN = cython.declare(uint64_t, 0xE005003F)


def load_cr0(vcpu: KvmVcpuPtr, value: uint64_t, in_64_bit_code: cython.bint, cs_is_long: cython.bint) -> cython.bint:
    """Paging cannot be turned off under 64-bit code, nor long mode on with CS.L set."""
    if value >> 32:
        return False
    value &= CR0_KNOWN
    if (value ^ vcpu.cr0) & Cr0.PG and (in_64_bit_code or (value & Cr0.PG and vcpu.efer & Efer.LME and cs_is_long)):
        return False
    return set_cr0(vcpu, value)


def load_cr4(vcpu: KvmVcpuPtr, value: uint64_t, offered: uint64_t) -> cython.bint:
    """Only what CPUID offers."""
    return not value & ~offered and set_cr4(vcpu, value)


def write_cr0(vcpu: Vcpu, value: uint64_t, in_64_bit_code: cython.bint, cs_is_long: cython.bint):
    """`load_cr0`, for the loop."""
    return bool(load_cr0(vcpu.vcpu, value, in_64_bit_code, cs_is_long))


def write_cr4(vcpu: Vcpu, value: uint64_t, offered: uint64_t):
    """`load_cr4`, for the loop."""
    return bool(load_cr4(vcpu.vcpu, value, offered))
