import sys

from bench.cli import command

if __name__ == "__main__":
    sys.exit(command(standalone_mode=False))
