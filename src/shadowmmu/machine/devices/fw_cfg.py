# SPDX-License-Identifier: GPL-2.0-only
"""QEMU's firmware configuration device, as far as a guest asks for the size of its machine. Source: QEMU, docs/specs/fw_cfg.rst."""

FW_CFG = 0x510
_SIGNATURE, _ID, _RAM_SIZE, _CPUS, _MAX_CPUS, _FILES = 0x00, 0x01, 0x03, 0x05, 0x0F, 0x19


class FwCfg:
    """Port +0 selects an item, port +1 reads it byte by byte; beyond its end are zeroes."""

    def __init__(self, memory: int, vcpus: int) -> None:
        self._items = {
            _SIGNATURE: b"QEMU",
            _ID: (1).to_bytes(4, "little"),
            _RAM_SIZE: memory.to_bytes(8, "little"),
            _CPUS: vcpus.to_bytes(2, "little"),
            _MAX_CPUS: vcpus.to_bytes(2, "little"),
            _FILES: bytes(4),
        }
        self._item, self._at = b"", 0

    def read(self, offset: int, size: int) -> int:
        if offset == 0:
            return 0
        byte = self._item[self._at : self._at + 1]
        self._at += 1
        return byte[0] if byte else 0

    def write(self, offset: int, size: int, value: int) -> None:
        if offset == 0:
            self._item, self._at = self._items.get(value, b""), 0
