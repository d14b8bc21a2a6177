# SPDX-License-Identifier: GPL-2.0-only
from collections import OrderedDict
from typing import NamedTuple

class Design(NamedTuple):
    name: str
    ops: int
    says: str
    bare: bool
    kernel: str
    differences: str
    more: dict[str, str]

ROOT_DESIGNS: OrderedDict[str, Design]

def find_design(name: str) -> Design: ...
