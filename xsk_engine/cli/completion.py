"""``xsk-engine completion``."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

PROGRAM = "xsk-engine"
VARIABLE = "_XSK_ENGINE_COMPLETE"
"""what the shell's script calls the program with; click's own name for it"""


@click.command("completion", short_help="A shell's completion of this command.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print a script that makes SHELL complete commands, options, interfaces and files.

    \b
    bash: eval "$(xsk-engine completion bash)"      in ~/.bashrc
    zsh:  eval "$(xsk-engine completion zsh)"       in ~/.zshrc, behind compinit
    fish: xsk-engine completion fish | source       in ~/.config/fish/config.fish
    """
    from xsk_engine.cli import _group

    make = get_completion_class(shell)
    assert make is not None
    click.echo(make(_group, {}, PROGRAM, VARIABLE).source())
