# SPDX-License-Identifier: GPL-2.0-only
"""Where a process begins, `shadowmmu` or `python -m shadowmmu`. Ctrl-C is seen to before anything else is loaded."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType


def main() -> None:
    """Ends the process with the verb's exit code."""
    _on_ctrl_c(signal.default_int_handler, _leave)
    from shadowmmu.cli.main import main as do_verb

    code = do_verb(loaded=lambda: _on_ctrl_c(_leave, signal.default_int_handler))
    _on_ctrl_c(signal.default_int_handler, signal.SIG_IGN)
    sys.exit(code)


def _on_ctrl_c(before: object, after: signal._HANDLER) -> None:
    """Have `after` handle SIGINT instead of `before`; whoever else handles or ignores it keeps it."""
    if signal.getsignal(signal.SIGINT) is before:
        signal.signal(signal.SIGINT, after)


def _leave(_number: int, _frame: FrameType | None) -> None:
    """While modules are loaded an exception could be lost in one of them, and nothing has been begun yet."""
    try:
        os.write(2, b"shadowmmu: interrupted\n")
    finally:
        os._exit(130)


if __name__ == "__main__":
    main()
