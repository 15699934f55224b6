"""The demo's process (``python -m xsk_engine.demo``), a fresh one: a user namespace can only be made by a
process without threads, and everything the demo makes ends with it."""

from __future__ import annotations

import os
import signal
import sys

from xsk_engine._ffi.libc import die_with_parent


def _bind_to(parent: int) -> None:
    """Ends with the process that has started this one, also if that is gone already."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    die_with_parent(signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def main(seconds: str, form: str, picture: str = "") -> int:
    """`form`: json or text; `picture`: a file's path, or nothing."""
    from xsk_engine.cli import EXIT_ENVIRONMENT, EXIT_FAILED, fail
    from xsk_engine.demophases import run
    from xsk_engine.errors import UnavailableError, XskError
    from xsk_engine.signals import Interrupted

    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        return run(float(seconds), as_json=form == "json", picture=picture or None)
    except (Interrupted, KeyboardInterrupt) as error:
        return 128 + getattr(error, "number", signal.SIGINT)
    except UnavailableError as error:
        return fail(error, EXIT_ENVIRONMENT)
    except (XskError, OSError) as error:
        return fail(error, EXIT_FAILED)


if __name__ == "__main__":
    _bind_to(int(sys.argv[1]))  # before the imports, which take their time
    sys.exit(main(*sys.argv[2:]))
