import sys

import click

from bench.cli import command

if __name__ == "__main__":
    try:
        sys.exit(command(standalone_mode=False))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
