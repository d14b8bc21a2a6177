# SPDX-License-Identifier: GPL-2.0-only
"""The command `shadowmmu`: its verbs, each loaded when it is used, and how a command ends.

Exit codes: 0 all is well; 1 a violation, a divergence, or a guest that failed; 2 wrong usage or bad input; 130 Ctrl-C.
"""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from importlib import metadata
from pathlib import Path

from cyclopts import App, CycloptsError, UnknownCommandError

from shadowmmu.border.limits import MESSAGE
from shadowmmu.border.plain import plain
from shadowmmu.cli.streams import take_over
from shadowmmu.errors import BadInput

VERBS = {
    "run": "Run a guest on the shadow MMU and say how it went.",
    "show": "Draw the shadow tables that a guest leaves.",
    "step": "Step through a guest's exits: what the MMU did, its tables before and after.",
    "compare": "Run a guest on all root designs: what is equal, what differs, and why.",
    "explain": "Explain a trace of KVM's MMU, of any kernel since 2.6.31.",
    "fuzz": "Do random operations and check each of them.",
    "export": "Make a guest of a saved list of operations.",
    "bugs": "Put known bugs into the engine, one by one, and let random operations find them.",
    "replay": "Replay captures of the real kernel's MMU, event by event.",
    "rerun": "Run the guests of captures on the machine, and compare with the real kernel.",
    "tests": "Tell which guests, captures, known bugs and tests exercise a function of the engine.",
    "guests": "List the guests that have a name, with the roots that they are about.",
    "captures": "List captures of the real kernel's MMU.",
    "completion": "Print a script that teaches a shell to complete verbs and options.",
}
HELP = """KVM's x86 shadow MMU, with special shadow pages, as Python that runs real guests.

Exit codes: 0 all is well; 1 a violation, a divergence or a guest that failed; 2 wrong usage or bad input; 130 Ctrl-C.
A reader that leaves the pipe changes none of them: the run goes on to its verdict.

Example: shadowmmu run pae
"""


def make_app(verb: str | None) -> App:
    """The command line. Only `verb` is loaded, and has its docstring for help; the others are listed by their summary."""
    app = App(name="shadowmmu", help=HELP, help_format="plaintext", version=_version)
    for name, summary in VERBS.items():
        app.command(f"shadowmmu.cli.{name}:{name}", name=name, help=None if name == verb else summary)
    return app


def _version() -> str:
    return metadata.version("shadowmmu")


def main(arguments: Sequence[str] | None = None, loaded: Callable[[], object] = lambda: None) -> int:
    """A whole process but for its end; the exit code. `loaded` is called when all modules are loaded, before the verb begins."""
    output, _ = take_over()
    try:
        code = call(list(sys.argv[1:] if arguments is None else arguments), loaded)
    except Exception as error:
        code = complain(f"internal error, {type(error).__name__} {_place(error)}: {error}; please report it with the command line")
    sys.stdout.flush()
    if output.failure is not None and not isinstance(output.failure, BrokenPipeError):
        code = complain(f"the output: {output.failure.strerror}; look at its path, its rights and the space left")
    return code


def _place(error: Exception) -> str:
    """Where it was raised."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"in {Path(last.filename).name}:{last.lineno}"


def call(tokens: list[str], loaded: Callable[[], object] = lambda: None) -> int:
    """Do what the command line says; its exit code. Errors of the user's become one line on standard error."""
    app = make_app(tokens[0] if tokens else None)
    try:
        verb, bound, _ = app.parse_args(tokens, print_error=False, exit_on_error=False)
        loaded()
        return int(verb(*bound.args, **bound.kwargs) or 0)
    except UnknownCommandError:
        near = get_close_matches(tokens[0], VERBS, 1)
        return complain(f"there is no verb {tokens[0]!r}{f', did you mean {near[0]}?' if near else '.'} Try: shadowmmu --help")
    except CycloptsError as error:
        command = " ".join(error.command_chain or ())
        return complain(f"{error} Try: {' '.join(('shadowmmu', *command.split(), '--help'))}")
    except BadInput as error:
        return complain(str(error))
    except MemoryError:
        return complain("there is not enough memory for this; free some, raise ulimit -v, or choose a smaller guest")
    except OSError as error:
        return complain(f"{error.filename or 'the output'}: {error.strerror or error}; look at its path, its rights and the space left")
    except KeyboardInterrupt:
        return complain("interrupted", 130)


def complain(message: str, code: int = 2) -> int:
    """One line, not too long, that no terminal is steered by."""
    line = plain(re.sub(r"[ \t\r\n]+", " ", message))
    if len(line) > MESSAGE:
        line = f"{line[: MESSAGE * 2 // 3]} … {line[-MESSAGE // 3 :]}"
    print(f"shadowmmu: {line}", file=sys.stderr)
    return code
