# SPDX-License-Identifier: GPL-2.0-only
"""`shadowmmu completion`: the command line for the Tab key."""

from __future__ import annotations

import sys
from typing import Literal


def completion(shell: Literal["bash", "zsh", "fish"], /) -> int:
    """Print a script that teaches a shell to complete verbs and options.

    Where it belongs: for bash ~/.local/share/bash-completion/completions/shadowmmu, for zsh a file _shadowmmu in a folder of
    $fpath, for fish ~/.config/fish/completions/shadowmmu.fish.

    Example: shadowmmu completion bash > ~/.local/share/bash-completion/completions/shadowmmu

    Parameters
    ----------
    shell
        The shell.
    """
    from shadowmmu.cli.main import make_app

    sys.stdout.write(make_app(None).generate_completion(shell=shell))
    return 0
