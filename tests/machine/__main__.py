"""``make machine`` and ``make machine-shell``: the emulated machine for a person."""

from __future__ import annotations

import json
import signal
import sys
import time

import click

from tests.machine import packages
from tests.machine.packages import MachineUnavailable
from tests.machine.qemu import IOMMU, NICS, Machine, MachineConfig, MachineFailed, shell

_nics = click.option("--nics", type=click.Choice(list(NICS)), default="igb", show_default=True)
_iommu = click.option("--iommu", type=click.Choice(list(IOMMU)), help="Default: strict for igb.")


@click.group()
def main() -> None:
    """An emulated machine with zero-copy NICs behind an IOMMU. No root, no KVM."""


@main.command()
@_nics
@_iommu
def summary(nics: str, iommu: str | None) -> None:
    """Boot, show what its NICs can do, power off."""
    packages.get()  # fetching is not booting
    start = time.monotonic()
    with Machine(MachineConfig(nics, iommu)) as machine:
        booted = time.monotonic()
        done = machine.python("-m", "tests.machine.guest.summary", timeout_s=120)
    if done.exit:
        raise MachineFailed(f"the summary failed:\n{done.output}")
    facts = json.loads(done.output.splitlines()[-1])
    print(f"Linux {facts['kernel']} on QEMU (emulation), {booted - start:.1f} s to a prompt")
    for nic in facts["nics"]:
        works = "yes" if nic["works"] else "NO"
        print(
            f"  {nic['name']}  {nic['driver']:<11} {nic['bus']}  {nic['queues']} queue(s)  "
            f"IOMMU {nic['iommu']:<11}  zero-copy {works}: {nic['detail']}"
        )
    expected = nics != "virtio-no-iommu"
    if any(nic["works"] != expected for nic in facts["nics"]):
        sys.exit(1)


@main.command("shell")
@_nics
@_iommu
def shell_command(nics: str, iommu: str | None) -> None:
    """A console in the guest; vtx is here, vrx in a namespace. Leave with exit, or Ctrl-A X."""
    sys.exit(shell(MachineConfig(nics, iommu)))


def _end(number: int, _frame: object) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)  # nothing is left behind
    try:
        main(standalone_mode=False)
    except click.Abort:  # Ctrl-C
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except MachineUnavailable as error:
        print(f"machine: {error}", file=sys.stderr)
        sys.exit(3)
    except MachineFailed as error:
        print(f"machine: {error}", file=sys.stderr)
        sys.exit(1)
