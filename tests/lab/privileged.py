"""Processes with exactly some capabilities, and what the kernel says of their threads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SOMEBODY = 65534
"""a uid that is not root"""
_SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


def with_only(capabilities, *arguments, uid=None):
    """The command line of xsk-engine with these capabilities alone ("net_raw"), as root or another uid. Who
    is not root may also read (the interpreter may stand in root's home); an editable install then looks
    whether it is new enough, and writes nothing."""
    if uid is None:
        caps = ",".join(["-all", *(f"+{name}" for name in capabilities)])
        prefix = ["setpriv", f"--bounding-set={caps}", "--inh-caps=-all"]
    else:
        caps = ",".join(["-all", *(f"+{name}" for name in [*capabilities, "dac_read_search"])])
        who = [f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
        caps = [f"--{which}={caps}" for which in ("bounding-set", "inh-caps", "ambient-caps")]
        prefix = ["env", "MESONPY_EDITABLE_VERBOSE=1", "setpriv", *who, *caps]
    return [*prefix, sys.executable, "-m", "xsk_engine", *arguments]


def run(capabilities, *arguments, uid=None, timeout=60, **options):
    return subprocess.run(
        with_only(capabilities, *arguments, uid=uid),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        **options,
    )


def tasks(pid):
    """/proc's status of every thread, main thread first."""
    found = []
    for folder in sorted(Path(f"/proc/{pid}/task").iterdir(), key=lambda one: int(one.name)):
        try:
            lines = (folder / "status").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):  # it has just ended
            continue
        found.append(dict(line.split(":\t", 1) for line in lines if ":\t" in line))
    return found


def privileges_of(task):
    """{} when it has none, else what it still has. Only CAP_SETPCAP empties the bounding set, which means
    nothing with no_new_privs."""
    sets = _SETS if task["Uid"].split()[0] == "0" else [one for one in _SETS if one != "CapBnd"]
    left = {name: task[name] for name in sets if int(task[name], 16)}
    return left if task["NoNewPrivs"] == "1" else {**left, "NoNewPrivs": task["NoNewPrivs"]}
