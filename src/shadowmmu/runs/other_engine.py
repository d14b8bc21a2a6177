# SPDX-License-Identifier: GPL-2.0-only
"""An engine that is not this one: a checkout with somebody's patch, a diff, or a bug of the museum; its runs, in processes of their own."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shadowmmu.check.bugs.copy import changed_functions, copy_of, copy_with, find_bug
from shadowmmu.runs.own_process import OwnProcess


class OtherEngine(OwnProcess):
    """A built copy at `tree`. `changed`: its functions that are not as here."""

    def __init__(self, name: str, tree: Path, trace: Path | None = None) -> None:
        super().__init__(tree, trace)
        self.name = name
        self.changed = changed_functions(tree)


@contextmanager
def other_engine(named: str, trace: Path | None = None) -> Iterator[OtherEngine]:
    """Copied and built; gone afterwards. Raises BadInput if it is none, does not fit or does not compile."""
    with tempfile.TemporaryDirectory(prefix="shadowmmu-engine-") as place:
        tree, path = Path(place), Path(named)
        if path.is_dir():
            copy_of(path, tree)
        else:
            copy_with(find_bug(named), tree)
        yield OtherEngine(path.resolve().name.partition(".")[0], tree, trace)
