# SPDX-License-Identifier: GPL-2.0-only
"""Draws an `Explanation`: the verdict and what people look for first, then faults by path, rules, roles and the tree."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from shadowmmu.border.plain import plain
from shadowmmu.runs.explained.answers import Answer
from shadowmmu.runs.explained.explanation import Explanation, Step, TableSeen, Walked

SHOWN, STORIES = 12, 3
_FLAGS = ((1 << 0, "P"), (1 << 1, "W"), (1 << 2, "U"), (1 << 5, "A"), (1 << 6, "D"), (1 << 7, "large"), (1 << 63, "NX"))


def draw_explanation(told: Explanation) -> RenderableType:
    parts: list[RenderableType] = [*_head(told), *_anomalies(told), *_answers(told.answers), *_hierarchies(told.hierarchies)]
    parts += [*_faults(told), *_rules(told), *_roles(told), *_counts(told), *_trees(told.trees)]
    return Group(*parts)


def draw_counts(told: Explanation) -> RenderableType:
    """Events by kind, the most frequent first."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(justify="right")
    for name, count in told.names.items():
        table.add_row(f"{count:,}", plain(name))
    return Group(*_notes(told), table)


def _notes(told: Explanation) -> Iterator[RenderableType]:
    for note in told.notes:
        yield Text(note, style="yellow")


def _head(told: Explanation) -> Iterator[RenderableType]:
    yield Text.assemble(
        (plain(told.source), "bold"), f": {_count(told.events, 'event')} in {_count(told.lines, 'line')}, {_count(told.faults, 'fault')}"
    )
    where = _count(told.vcpus, "vCPU") + (f" of {told.vms} VMs" if told.vms > 1 else "")
    yield Text(f"kernel {told.kernel} · {told.form} · {where}", style="dim")
    yield from _notes(told)
    if told.lost or told.gaps:
        lost = f"events lost: {told.lost:,} · " if told.lost else ""
        yield Text(f"{lost}{_count(told.gaps, 'gap')}: behind each nothing is known of pages met before", style="yellow")
    if told.unread:
        yield Text(f"of no known form: {_count(told.unread, 'event')}, the first: {plain(told.first_unread)}", style="yellow")


def _count(count: int, name: str) -> str:
    return f"{count:,} {name}{'' if count == 1 else 's'}"


def _anomalies(told: Explanation) -> Iterator[RenderableType]:
    if not told.anomaly_count:
        yield Text("✔ no contradiction in it", style="green")
        return
    more = f", the first {len(told.anomalies)}" if told.anomaly_count > len(told.anomalies) else ""
    yield Text(f"✘ {_count(told.anomaly_count, 'contradiction')}{more}", style="bold red")
    for one in told.anomalies:
        yield Text(f"  event {one.event:,}, line {one.line:,}: {plain(one.what)}")


def _answers(answers: list[Answer]) -> Iterator[RenderableType]:
    if not answers:
        return
    yield Text("\nwhat to look at", style="bold")
    for one in answers[:SHOWN]:
        yield Text(f"  {plain(one.what)} · from event {one.first:,}" + (f", {one.count:,} in all" if one.count > 1 else ""))
        yield Padding(Text(one.why, style="dim"), (0, 0, 0, 4))


def _hierarchies(walks: list[Walked]) -> Iterator[RenderableType]:
    for walk in walks:
        where = "an entry that was being made" if walk.address is None else f"the walk of {walk.address:x}"
        yield Text(f"\nreserved bits, as the kernel's log has them: {where}", style="bold")
        table = Table("level", "entry", "leads to", "flags", "reserved bits set", box=None, padding=(0, 2, 0, 2), header_style="dim")
        for entry in walk.entries:
            flags = " ".join(name for bit, name in _FLAGS if entry.spte & bit)
            wrong = _untold(entry.spte) if entry.reserved is None else _bits(entry.reserved)
            style = "bold red" if entry.reserved else ""
            table.add_row(str(entry.level), f"{entry.spte:x}", f"{entry.spte & 0xFFFFFFFFFF000:x}", flags, wrong, style=style)
        yield table


def _untold(spte: int) -> str:
    """Before 5.12 the kernel told none. An entry of an EPT that is writable must be readable (SDM vol. 3 section 29.3.3.1)."""
    return "not told; of an EPT: W without R" if spte & 3 == 2 else "not told"


def _bits(value: int) -> str:
    return ", ".join(str(bit) for bit in range(64) if value >> bit & 1) or "none"


def _faults(told: Explanation) -> Iterator[RenderableType]:
    if not told.paths:
        return
    yield Text("\nfaults by what came of them", style="bold")
    table = Table("count", "outcome", "path", "first event", box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.columns[0].justify = table.columns[3].justify = "right"
    for path in told.paths[:SHOWN]:
        table.add_row(f"{path.count:,}", path.outcome, path.path, f"{path.first:,}")
    yield Padding(table, (0, 0, 0, 2), expand=False)
    yield Text(_more(len(told.paths)))
    yield Text("the first faults", style="italic")
    shown = Table("event", "address", "code", "access", "events", "outcome", box=None, padding=(0, 2, 0, 0), header_style="dim")
    for fault in told.shown:
        code = "·" if fault.error_code is None else f"{fault.error_code:x}"
        shown.add_row(f"{fault.event:,}", f"{fault.address:x}", code, fault.access, str(fault.events), fault.outcome)
    yield Padding(shown, (0, 0, 0, 2), expand=False)
    asked = {answer.first for answer in told.answers}
    for path in sorted(told.paths, key=lambda path: path.first not in asked)[:STORIES]:
        if len(path.steps) > 1:
            yield Text(f"one of the {path.count:,}, event by event" if path.count > 1 else "event by event", style="italic")
            yield from map(_step, path.steps)
    yield Text()


def _step(step: Step) -> Text:
    """One line, however long its event is."""
    line = Text(f"  {step.number:>9,}  ", style="dim", overflow="ellipsis", no_wrap=True)
    who = step.kernel or ("this engine" if step.told.startswith("special") else "another part of KVM")
    return line.append(f"{who}: ", style="cyan").append(plain(step.told.replace("   # ", " # ")), style="not dim")


def _rules(told: Explanation) -> Iterator[RenderableType]:
    rules = [rule for rule in told.rules if rule.rule and rule.event not in ("print", "other")]
    if not rules:
        return
    yield Text("\nrules behind the events", style="bold")
    for rule in rules[: 2 * SHOWN]:
        situation = f", {rule.situation}" if rule.situation else ""
        yield Text.assemble(f"  {rule.count:>9,}  ", (rule.event, "bold"), f"{situation} · ", (f"{rule.kernel or 'this engine'}", "cyan"))
        yield Padding(Text(rule.rule, style="dim"), (0, 0, 0, 13))
    yield Text(_more(len(rules), 2 * SHOWN))


def _roles(told: Explanation) -> Iterator[RenderableType]:
    if not told.roles:
        return
    yield Text("\nroles of pages that were asked for", style="bold")
    for role in told.roles:
        yield Text(f"  {role.count:>9,}  {role.words}")
    for hidden in told.hidden:
        yield Text(f"  the text does not show {hidden}", style="yellow")
    for made in told.most_made:
        yield Text(f"  {plain(made)}")
    for root, count in told.syncs.items():
        yield Text(f"  {count:>9,}  pages synced under {plain(root)}")


def _counts(told: Explanation) -> Iterator[RenderableType]:
    if not told.names:
        return
    yield Text("\nevents", style="bold")
    yield Text("  " + ", ".join(f"{plain(name)} {count:,}" for name, count in list(told.names.items())[: 3 * SHOWN]))
    if told.exits:
        yield Text("exits", style="bold")
        yield Text("  " + ", ".join(f"{plain(name)} {count:,}" for name, count in list(told.exits.items())[: 2 * SHOWN]))


def _trees(trees: list[TableSeen]) -> Iterator[RenderableType]:
    if not any(tree.pages or tree.below for tree in trees):
        return
    yield Text("\nthe guest's tables as walks saw them, and the pages that shadow them at the end", style="bold")
    for tree in trees:
        drawn = Tree(_table(tree))
        _grow(drawn, tree)
        yield drawn


def _grow(drawn: Tree, table: TableSeen) -> None:
    for child in table.below:
        _grow(drawn.add(_table(child)), child)


def _table(table: TableSeen) -> Text:
    pages = ", ".join(table.pages) or "no page"
    walks = f" · {_count(table.walks, 'walk')}" if table.walks else ""
    return Text.assemble(f"l{table.level} gfn {table.gfn:x}", (f"  {pages}", "cyan"), (walks, "dim"))


def _more(count: int, shown: int = SHOWN) -> str:
    return f"  and {count - shown:,} more (--json has all)" if count > shown else ""
