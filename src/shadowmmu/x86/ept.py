"""Bits of EPT entries (`Ept`) and of the EPT pointer (`Eptp`); see ``ept.pxd``."""
