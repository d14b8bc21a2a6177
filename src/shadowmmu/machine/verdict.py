# SPDX-License-Identifier: GPL-2.0-only
"""Whether a guest that has come to its end did what its description says."""

from shadowmmu.machine.loader import Guest
from shadowmmu.machine.result import Reason


def by_exit_code(guest: Guest, code: int, output: str) -> tuple[Reason, str]:
    """It wrote `code` to the exit port."""
    if code != guest.exit_pass:
        return Reason.FAILED, f"exit port: {code:#x}"
    wrong = _wrong_last_line(guest, output)
    return (Reason.FAILED, wrong) if wrong else (Reason.PASSED, "")


def by_halt(guest: Guest, halted_at: int, output: str) -> tuple[Reason, str]:
    """All of its vCPUs sleep for ever."""
    wrong = _wrong_last_line(guest, output) if guest.end == "halt" else ""
    return (Reason.FAILED, wrong) if wrong else (Reason.HALTED, f"HLT at RIP {halted_at:#x}")


def _wrong_last_line(guest: Guest, output: str) -> str:
    last = output.rstrip().rpartition("\n")[2]
    return f"last line is {last!r}, not {guest.expect!r}" if guest.expect and last != guest.expect else ""
