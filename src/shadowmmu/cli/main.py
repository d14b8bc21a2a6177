"""The command `shadowmmu`: its verbs, each loaded when it is used, and how errors end.

Exit codes: 0 all is well; 1 a violation, a divergence, or a guest that failed; 2 wrong usage or bad input.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches

from cyclopts import App, CycloptsError, UnknownCommandError

from shadowmmu.errors import BadInput

VERBS = {
    "run": "Run a guest on the shadow MMU and say how it went.",
    "show": "Draw the shadow tables that a guest leaves.",
    "compare": "Run a guest on all root designs: what is equal, what differs, and why.",
    "fuzz": "Do random operations and check each of them.",
    "replay": "Replay captures of the real kernel's MMU, event by event.",
    "rerun": "Run the guests of captures on the machine, and compare with the real kernel.",
}
HELP = """KVM's x86 shadow MMU, with special shadow pages, as Python that runs real guests.

Exit codes: 0 all is well; 1 a violation, a divergence or a guest that failed; 2 wrong usage or bad input.

Example: shadowmmu run pae
"""


def make_app(verb: str | None) -> App:
    """The command line. Only `verb` is loaded, and has its docstring for help; the others are listed by their summary."""
    app = App(name="shadowmmu", help=HELP, help_format="plaintext", result_action="return_value", suppress_keyboard_interrupt=False)
    for name, summary in VERBS.items():
        app.command(f"shadowmmu.cli.{name}:{name}", name=name, help=None if name == verb else summary)
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: ends the process with the verb's exit code."""
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    if sys.stdout is None:  # closed by the caller
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    sys.exit(call(tokens))


def call(tokens: list[str]) -> int:
    """Do what the command line says; its exit code. Errors of the user's become one line on standard error."""
    app = make_app(tokens[0] if tokens else None)
    try:
        return int(app(tokens, print_error=False, exit_on_error=False) or 0)
    except UnknownCommandError:
        near = get_close_matches(tokens[0], VERBS, 1)
        return complain(f"there is no verb {tokens[0]!r}{f', did you mean {near[0]}?' if near else '.'} Try: shadowmmu --help")
    except CycloptsError as error:
        command = " ".join(error.command_chain or ())
        return complain(f"{error} Try: {' '.join(('shadowmmu', *command.split(), '--help'))}")
    except BadInput as error:
        return complain(str(error))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return complain(f"{error.filename or 'the output'}: {error.strerror or error}; look at its path, its rights and the space left")
    except KeyboardInterrupt:
        return complain("interrupted", 130)


def complain(message: str, code: int = 2) -> int:
    print("shadowmmu: " + " ".join(message.split()), file=sys.stderr)
    return code
