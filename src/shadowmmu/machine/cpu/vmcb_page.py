# SPDX-License-Identifier: GPL-2.0-only
"""Fields of a VMCB, the machine's own and those of guests. Layout: `x86.vmcb_layout`."""

import cython
from cython.cimports.libc.stdint import uint8_t, uint32_t, uint64_t
from cython.cimports.libc.string import memcpy
from cython.cimports.shadowmmu.engine.arena.state import p_u8
from cython.cimports.shadowmmu.x86.vmcb_layout import Vmcb


def get_u8(page: p_u8, at: cython.int) -> uint8_t:
    return page[at]


def put_u8(page: p_u8, at: cython.int, value: uint8_t) -> cython.void:
    page[at] = value


def get_u32(page: p_u8, at: cython.int) -> uint32_t:
    value: uint32_t = 0
    memcpy(cython.address(value), page + at, 4)
    return value


def get_u64(page: p_u8, at: cython.int) -> uint64_t:
    value: uint64_t = 0
    memcpy(cython.address(value), page + at, 8)
    return value


def put_u32(page: p_u8, at: cython.int, value: uint32_t) -> cython.void:
    memcpy(page + at, cython.address(value), 4)


def put_u64(page: p_u8, at: cython.int, value: uint64_t) -> cython.void:
    memcpy(page + at, cython.address(value), 8)


def get_segment(page: p_u8, at: cython.int, into: RegisterPtr) -> cython.void:
    both: uint32_t = get_u32(page, at)
    into.selector, into.attr = both & 0xFFFF, both >> 16
    into.limit, into.base = get_u32(page, at + 4), get_u64(page, at + 8)


def put_segment(page: p_u8, at: cython.int, segment: RegisterPtr) -> cython.void:
    put_u32(page, at, segment.attr << 16 | (segment.selector & 0xFFFF))
    put_u32(page, at + 4, segment.limit)
    put_u64(page, at + 8, segment.base)


def get_table(page: p_u8, at: cython.int, into: TablePtr) -> cython.void:
    into.limit, into.base = get_u32(page, at + 4), get_u64(page, at + 8)


def put_table(page: p_u8, at: cython.int, table: TablePtr) -> cython.void:
    put_u32(page, at, 0)
    put_u32(page, at + 4, cython.cast(uint32_t, table.limit))
    put_u64(page, at + 8, table.base)


def get_intercepts(page: p_u8, into: InterceptedPtr) -> cython.void:
    memcpy(into, page + Vmcb.CR_READ_INTERCEPTS, cython.sizeof(Intercepted))


def put_intercepts(page: p_u8, intercepts: InterceptedPtr) -> cython.void:
    memcpy(page + Vmcb.CR_READ_INTERCEPTS, intercepts, cython.sizeof(Intercepted))


def put_hidden(page: p_u8, registers: RegistersPtr) -> cython.void:
    """What VMLOAD loads beside segments, as far as the CPU keeps it."""
    put_u64(page, Vmcb.STAR, registers.star)
    put_u64(page, Vmcb.KERNEL_GS_BASE, registers.kernel_gs_base)
    put_u64(page, Vmcb.SYSENTER_CS, registers.sysenter_cs)
    put_u64(page, Vmcb.SYSENTER_ESP, registers.sysenter_esp)
    put_u64(page, Vmcb.SYSENTER_EIP, registers.sysenter_eip)
