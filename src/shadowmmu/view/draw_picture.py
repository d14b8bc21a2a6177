# SPDX-License-Identifier: GPL-2.0-only
"""Draws a `Picture` as trees: what each entry means on the left, the guest's entry and the shadow entry on the right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from rich.console import Group, RenderableType
from rich.text import Text
from rich.tree import Tree

from shadowmmu.look.entries import CLEAN, STALE
from shadowmmu.look.picture import BARE, PASSTHROUGH, SPECIAL, KeptRoot, Link, Mmio, MmuPicture, Pages, Picture, Row, Table, VcpuPicture

WIDTH = 100
COLUMN = 17
"""Width of each of the two columns of entries."""
ROWS = 8
"""A table with more rows of pages than this is summed up."""
LEGEND = {
    SPECIAL: "★ special: a shadow page of this vCPU only, not hashed, not tracked",
    BARE: "bare: a root table that is no shadow page",
    PASSTHROUGH: "passthrough: a level above L1's nested tables, which have none so high; its one entry leads to their root",
    "direct": "direct: maps gfns in a row, shadows no guest table",
    "unsync": "unsync: the guest may have changed its table since",
    CLEAN: "clean: the guest's D bit is 0, so that its first write faults and sets it",
    "entries": "rwxu: read, write, execute, user · wux after a table: what the levels above allow",
}


class Scattered(NamedTuple):
    """Rows of pages, or of MMIO marks, of one sort."""

    rows: list[Pages] | list[Mmio]


def draw_picture(picture: Picture, root_only: bool = False) -> RenderableType:
    """All vCPUs; with `root_only` each root and what hangs directly below it."""
    parts: list[RenderableType] = []
    for vcpu in picture.vcpus:
        parts.append(_heading(picture, vcpu))
        for mmu in vcpu.mmus:
            if len(vcpu.mmus) > 1:
                parts.append(_mmu_heading(mmu))
            parts += [_tree(mmu, root_only), *(_kept(mmu, kept) for kept in mmu.kept), Text()]
    parts.append(Text(f"shadow pages: {_counts(picture.tables)}"))
    if picture.elsewhere:
        parts.append(Text(f"not below these roots: {_counts(picture.elsewhere)}"))
    drawn = [mmu.root for vcpu in picture.vcpus for mmu in vcpu.mmus if mmu.root]
    words = {word for root in drawn for word in _words_used(root)}
    parts += [Text(line, style="dim") for word, line in LEGEND.items() if word in words or word == "entries"]
    return Group(*parts)


def _counts(tables: dict[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in tables.items()) or "none"


def _words_used(table: Table) -> Iterator[str]:
    """The words of the legend that the table and those below it need."""
    yield table.kind
    if table.direct:
        yield "direct"
    if table.unsync or table.unsync_children:
        yield "unsync"
    for row in table.rows:
        if isinstance(row, Link):
            yield from _words_used(row.table)
        elif isinstance(row, Pages):
            yield row.note


def _heading(picture: Picture, vcpu: VcpuPicture) -> Text:
    """Who runs. If the vCPU has only one MMU, what that shadows, too."""
    mmu = vcpu.mmu
    words = f"{mmu.mode} {'L2, no nested paging' if vcpu.guest_mode else 'guest' if len(vcpu.mmus) == 1 else 'L1'}"
    if vcpu.ncr3 is not None:
        words = f"L2 on the {mmu.mode} nested tables of L1 at {vcpu.ncr3:x}"
    if len(vcpu.mmus) == 1:
        words += f", {mmu.shadow_levels} shadow levels"
    words += f", {picture.roots} roots · CR3 {vcpu.cr3:x}"
    if len(vcpu.mmus) == 1:
        words += f" · {_flags(mmu)}"
    return Text.assemble((f"vCPU {vcpu.vcpu}", "bold"), f" · {words}")


def _mmu_heading(mmu: MmuPicture) -> Text:
    """Of one of two MMUs: which, what it shadows, and the chain of its root."""
    shadows = "direct" if mmu.direct else f"{mmu.mode} {'nested' if mmu.name == 'guest' else 'own'} tables"
    if mmu.name == "guest" and mmu.root is not None:
        shadows += f" at {mmu.pgd:x}"
    words = f" · {shadows} · {_flags(mmu)}"
    if mmu.root is not None:
        words += f" · {' → '.join(_place_words(table) for table in root_chain(mmu.root))}"
    return Text.assemble((f"{mmu.name} MMU", "bold"), ", in use" if mmu.in_use else ", waits", words)


def _flags(mmu: MmuPicture) -> str:
    """The flags of its roots that the heading does not say in other words."""
    return " ".join(flag for flag in mmu.root_flags if flag not in ("guest_mode", "passthrough"))


def root_chain(root: Table) -> list[Table]:
    """The tables from the root down to level 2, by the first link of each: which of them are special, bare or passthrough."""
    chain = [root]
    while chain[-1].level > 2:
        links = [row.table for row in chain[-1].rows if isinstance(row, Link)]
        if not links:
            break
        chain.append(links[0])
    return chain


def _place_words(table: Table) -> str:
    """A table by level and kind."""
    star, kind = "★ " if table.kind == SPECIAL else "", f" {table.kind}" if table.kind in (BARE, PASSTHROUGH) else ""
    return f"{star}l{table.level}{kind}"


def _kept(mmu: MmuPicture, kept: KeptRoot) -> Text:
    """A root kept for later. Direct ones serve any CR3."""
    what = "L1" if mmu.direct else f"{'nested tables at' if mmu.name == 'guest' else 'CR3'} {kept.pgd:x}"
    return Text(f"kept for {what}: ", style="dim").append_text(_table_words(kept.table))


def _tree(mmu: MmuPicture, root_only: bool) -> RenderableType:
    root = mmu.root
    if root is None:
        return Text("no root is loaded; the next entry makes one", style="dim")
    head = _table_words(root)
    head.truncate(WIDTH - 2 * COLUMN, pad=True)
    head.append(f"{'nested entry' if mmu.name == 'guest' else 'guest entry':>{COLUMN}}{'shadow entry':>{COLUMN}}", "dim not bold")
    tree = Tree(head, guide_style="dim")
    _grow(tree, root, 1, 1 if root_only else root.level)
    return tree


def _grow(branch: Tree, table: Table, depth: int, levels: int) -> None:
    """Add the rows of `table`, and those of the tables up to `levels` below it."""
    for row in sum_up(table.rows):
        if isinstance(row, int):
            branch.add(Text(f"… {row} more line{'s' if row > 1 else ''} like these (--json has all)", style="dim"))
        elif isinstance(row, Link):
            words = _index(row.index, row.index).append("→ ").append_text(_table_words(row.table))
            below = branch.add(_line(words, row, depth))
            if levels > 1:
                _grow(below, row.table, depth + 1, levels - 1)
        elif isinstance(row, Scattered):
            branch.add(_index(row.rows[0].first, row.rows[-1].last).append_text(_scattered_words(row)))
        else:
            branch.add(_line(_index(row.first, row.last).append_text(_memory_words(row)), row, depth))


def sum_up(rows: Sequence[Row]) -> Iterator[Row | Scattered | int]:
    """What to draw of a table's rows. If they are many: one line for neighbours of a sort, ROWS lines, and how many more."""
    if sum(not isinstance(row, Link) for row in rows) <= ROWS:
        yield from rows
        return
    shown = left_out = 0
    for _, neighbours in groupby(rows, _sort):
        same = list(neighbours)
        if isinstance(same[0], Link):
            yield from same
        elif shown == ROWS:
            left_out += 1
        else:
            shown += 1
            yield same[0] if len(same) == 1 else Scattered(same)  # type: ignore[arg-type]
    if left_out:
        yield left_out


def _sort(row: Row) -> tuple[str, ...]:
    return ("pages", row.rights, row.note, row.size) if isinstance(row, Pages) else (type(row).__name__,)


def _line(words: Text, row: Row, depth: int) -> Text:
    """`words`, then both entries in their columns."""
    words.truncate(WIDTH - 4 * depth - 2 * COLUMN, overflow="ellipsis", pad=True)
    guest = "·" if row.guest is None else f"{row.guest.value:x}"
    return words.append(f"{guest:>{COLUMN}}{row.entry:{COLUMN}x}", "dim")


def _index(first: int, last: int) -> Text:
    return Text.assemble((f"[{first:03x}] " if first == last else f"[{first:03x}-{last:03x}] ", "dim"))


def table_name(table: Table) -> Text:
    """A table by level, kind and gfn."""
    if table.kind == SPECIAL:
        return Text.assemble(("★ ", "bold magenta"), (f"l{table.level}", "bold"), (" special", "bold magenta"))
    if table.kind == BARE:
        return Text.assemble((f"l{table.level}", "bold"), (" bare", "bold red"))
    kind = (" passthrough", "bold cyan") if table.kind == PASSTHROUGH else (" direct" if table.direct else "", "cyan")
    return Text.assemble((f"l{table.level}", "bold"), kind, f" gfn {table.gfn:x}")


def _table_words(table: Table) -> Text:
    """The name of a table, and all that is to be said of it."""
    text = table_name(table)
    marks = (
        (" ".join(table.words), "", table.words),
        ("unsync", "yellow", table.unsync),
        (f"{table.unsync_children} unsync below", "yellow", table.unsync_children),
        ("obsolete", "red", table.obsolete),
        (f"held by {table.root_count}", "", table.root_count),
        (f"{table.parents} parents", "", table.parents > 1),
        ("(see above)", "dim", table.repeated),
    )
    for words, style, said in marks:
        if said:
            text.append(f" {words}", style or None)
    return text


def _memory_words(row: Pages | Mmio) -> Text:
    last = row.gfn + (row.last - row.first if isinstance(row, Mmio) else row.frames - 1)
    gfns = f"gfn {row.gfn:x}" + (f"..{last:x}" if last != row.gfn else "")
    if isinstance(row, Mmio):
        return Text.assemble((f"→ {gfns} ", ""), (f"no memory (generation {row.generation})", "blue"))
    return Text(f"→ {gfns} ").append_text(_pages_words(row, row.last - row.first + 1))


def _pages_words(row: Pages, count: int) -> Text:
    size = f" of {row.size}" if row.size != "4K" else ""
    text = Text.assemble((f" {count} page{'s' if count > 1 else ''}{size} " if count > 1 or size else " ", "dim"))
    text.append(row.rights, "green" if row.rights[1] == "w" else None)
    if row.note:
        text.append(f" {row.note}", "red" if row.note == STALE else "yellow")
    return text


def _scattered_words(group: Scattered) -> Text:
    low, high = min(row.gfn for row in group.rows), max(row.gfn for row in group.rows)
    count = sum(row.last - row.first + 1 for row in group.rows)
    text = Text(f"→ {count} of gfn {low:x}..{high:x} ")
    row = group.rows[0]
    return text.append_text(_pages_words(row, 1)) if isinstance(row, Pages) else text.append("no memory", "blue")
