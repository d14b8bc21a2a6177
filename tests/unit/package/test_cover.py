# SPDX-License-Identifier: GPL-2.0-only
"""Coverage of the compiled modules: C is led back to the lines that it was made from."""

from __future__ import annotations

from pathlib import Path

import c_lines
from cover import report

C = """\
static int f(void) {
  /* "shadowmmu/engine/fault/fault.py":12
 * def f():
 *     return 1             # <<<<<<<<<<<<<<
*/
  r = 1;
  goto L0;
  /* function exit code */
  L0:;
  return r;
}
/* "shadowmmu/engine/arena/spte.pxd":3
 * cdef inline int g():             # <<<<<<<<<<<<<<
*/
static int g(void) {
"""


def test_a_line_of_c_belongs_to_the_comment_before_it(tmp_path: Path) -> None:
    (tmp_path / "f.c").write_text(C)
    found = report.origins(tmp_path / "f.c")
    fault, spte = ("shadowmmu/engine/fault/fault.py", 12), ("shadowmmu/engine/arena/spte.pxd", 3)
    assert found[1] is None and found[6:8] == [fault, fault]
    assert found[9:12] == [None] * 3, "what leaves a function is no line's"
    assert c_lines.origins(tmp_path / "f.c", c_lines.END)[8:12] == [fault] * 4, "but the function's"
    assert found[15] == spte


def test_rooms_and_shares() -> None:
    lines = {
        "shadowmmu/engine/fault/fault.py": {1: True, 2: False},
        "shadowmmu/engine/fault/fetch.py": {7: True},
        "shadowmmu/cli/run.py": {1: True},
    }
    assert report.by_room(lines) == {"engine/fault": (2, 3), "cli": (1, 1)}
    assert report.share(2, 3) == "66.7 %" and report.share(0, 0) == "·"
