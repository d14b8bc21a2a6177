# SPDX-License-Identifier: GPL-2.0-only
"""One hunt, in a process of its own: `python -m shadowmmu.check.bugs.hunter SEED OPERATIONS ROOTS MODES RUNS`.

Each line it prints is JSON: the number of operations done, so that a crash has a place; then what was found.
"""

import json
import sys

from shadowmmu.check.fuzz import Report, describe, fuzz, shrink


def main(seed: int, operations: int, roots: str, modes: list[str], runs: int) -> None:
    """Hunt, and make the list of operations shorter in at most `runs` replays."""

    def tell(done: Report) -> None:
        print(json.dumps({"operations": done.operations}), flush=True)

    report = fuzz(seed, operations, modes, roots, on_progress=tell)
    failure = report.failure
    if failure is not None:
        found = {"found": failure.message, "operations": report.operations, "command": failure.command}
        print(json.dumps(found), flush=True)
        smallest = shrink(failure, runs) if runs else failure
        print(json.dumps(found | {"list": [describe(op) for op in smallest.operations] if runs else []}), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4].split(","), int(sys.argv[5]))
