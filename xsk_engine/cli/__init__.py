"""The command line: ``xsk-engine COMMAND``. One file per command, imported only when it is called."""

from __future__ import annotations

import signal

# A signal in the first tenths of a second ends us without a traceback; main() gives it back to Python.
signal.signal(signal.SIGINT, signal.SIG_DFL)

import contextlib  # noqa: E402
import importlib  # noqa: E402
import sys  # noqa: E402

import click  # noqa: E402

EXIT_DONE, EXIT_FAILED, EXIT_USAGE, EXIT_ENVIRONMENT = 0, 1, 2, 3

_MOST_CHARACTERS = 400
_COMMANDS = {
    "bench": "The engine beside the kernel and everybody else. Needs the source tree.",
    "completion": "A shell's completion of this command: bash, zsh or fish.",
    "demo": "Frames through a private laboratory, every one checked. No root needed.",
    "doctor": "What this machine and an interface can do, and what is missing.",
    "iperf3": "A client for an unmodified iperf3 server, its streams sent by the engine.",
    "lab": "Laboratories: two network namespaces and a veth pair.",
    "measure": "Throughput, latency, loss and bursts between two interfaces.",
    "replay": "Send the packets of a capture file again.",
    "send": "Send traffic through an interface.",
    "sink": "Receive, check and measure what a sender with --signature sends.",
    "tcp": "A TCP connection from stdin to stdout, sent by the engine.",
}


class _LazyGroup(click.Group):
    """Knows the commands' names and one-line helps; imports a command when it is run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"xsk_engine.cli.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        from difflib import get_close_matches

        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            near = get_close_matches(args[0], _COMMANDS, 1)
            ctx.fail(f"no such command {args[0]!r}." + (f" Did you mean {near[0]}?" if near else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(sorted(_COMMANDS.items()))


def _version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"xsk-engine {version('xsk-engine')}")
        ctx.exit()


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version)
def _group() -> None:
    """A userspace transmit engine on Linux AF_XDP."""


def _short(text: str) -> str:
    """As much as a person reads, whatever a user has written."""
    if len(text) <= 2 * _MOST_CHARACTERS:
        return text
    return f"{text[:_MOST_CHARACTERS]} [...] {text[-_MOST_CHARACTERS:]}"


def fail(error: Exception, code: int) -> int:
    """One line to stderr; the exit code."""
    with contextlib.suppress(OSError):  # its reader, or its terminal, is gone
        print(f"xsk-engine: {_short(str(error))}", file=sys.stderr)
    return code


def _prepare_files() -> None:
    """The number of what was closed when we were started must become nothing else's: libuv aborts when it
    closes stderr's, and a library may write to it. What is non-blocking would be cut."""
    import os

    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if sys.stderr is None:  # print() would take stdout
        sys.stderr = os.fdopen(2, "w", closefd=False)
    for name in ("stdout", "stderr"):
        file = getattr(sys, name)
        if file is not getattr(sys, f"__{name}__"):  # who calls us as a function has put something there
            continue
        if file is not None and not os.get_blocking(file.fileno()):  # somebody who has it, too, wants it so
            import io

            from xsk_engine import outfd

            raw = io.BufferedWriter(outfd.Patient(file.fileno()))  # type: ignore[type-var]
            setattr(sys, name, io.TextIOWrapper(raw, file.encoding, file.errors, line_buffering=True))


def main() -> None:
    """Exit codes: 0 done, 1 failed while running, 2 usage, 3 environment, 129 SIGHUP, 130 Ctrl-C, 143
    SIGTERM."""
    from xsk_engine.errors import UnavailableError, XskError

    _prepare_files()
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        result = _group.main(standalone_mode=False)
        code = result if isinstance(result, int) else EXIT_DONE
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
        code = EXIT_USAGE
    except click.ClickException as error:
        where = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "xsk-engine"
        print(f"{where}: {_short(' '.join(error.format_message().split()))}", file=sys.stderr)
        code = EXIT_USAGE
    except click.Abort:
        code = 130
    except KeyboardInterrupt:
        code = 130
    except ValueError as error:
        code = fail(error, EXIT_USAGE)
    except UnavailableError as error:
        code = fail(error, EXIT_ENVIRONMENT)
    except XskError as error:
        code = fail(error, EXIT_FAILED)
    except OSError as error:
        from xsk_engine import shortage

        lacking = shortage.unavailable(error, "open", "a file")
        code = fail(lacking or error, EXIT_ENVIRONMENT if lacking else EXIT_FAILED)
    finally:
        if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(_flush(code))


def _flush(code: int) -> int:
    """A reader that closed our stdout is a failure to report, not a traceback at exit, nor its exit code."""
    import os

    if sys.stdout is None:  # closed before we were started
        return code or fail(OSError("stdout is closed"), EXIT_FAILED)
    for file in (sys.stdout, sys.stderr):
        try:
            file.flush()
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())  # Python flushes once more
            code = fail(error, EXIT_FAILED)
    return code
