# SPDX-License-Identifier: GPL-2.0-only
"""The tree of watched addresses: which entries of which tables a walk of any of them uses, as one paging mode cuts addresses.

Compiled with its types alone, as `translations` goes along it at each flush; they stand in the .pxd.
"""

from __future__ import annotations

from shadowmmu.hardware.walk import Paging


class Node:
    """What a walk of watched addresses comes to at one of its steps: tables, whose entries `children` are used. `above`: the
    bits of the addresses that lie above those that index them."""

    def __init__(self, number: int, above: int) -> None:
        self.number, self.above = number, above
        self.children: tuple[Child, ...] = ()


class Child:
    """The entry `at` of the tables of one node: below it lie the watched `pages`, by number, and the node `below`, if there is one."""

    def __init__(self, number: int, step: int, at: int, below: Node | None, pages: tuple[int, ...]) -> None:
        self.number, self.step, self.at, self.below, self.pages = number, step, at, below, pages


class Shape:
    """The tree of watched addresses, cut as one mode cuts addresses. `tops`: one node, of PAE paging one for each PDPTE."""

    def __init__(self, mode: Paging, watched: tuple[int, ...]) -> None:
        nodes: dict[tuple[int, int], Node] = {}
        pages: dict[tuple[int, int], list[int]] = {}  # step, address down to its index -> numbers of the watched pages
        for number, page in enumerate(watched):
            for i, step in enumerate(mode.steps):
                above = 0 if i == 0 and mode.levels != 3 else page << 12 >> step.shift + step.mask.bit_length()
                nodes.setdefault((i, above), Node(len(nodes), above))
                pages.setdefault((i, page << 12 >> step.shift), []).append(number)
        children: list[Child] = []
        for (i, address), numbers in pages.items():
            step = mode.steps[i]
            child = Child(len(children), i, address & step.mask, nodes.get((i + 1, address)), tuple(numbers))
            above = 0 if i == 0 and mode.levels != 3 else address >> step.mask.bit_length()
            nodes[i, above].children = (*nodes[i, above].children, child)
            children.append(child)
        self.tops = tuple(node for (i, _), node in nodes.items() if i == 0)
        self.nodes, self.children = tuple(nodes.values()), tuple(children)
