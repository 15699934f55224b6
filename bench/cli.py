"""``python -m bench``, and ``xsk-engine bench``."""

from __future__ import annotations

from pathlib import Path

import click

from bench import places, results, runner
from bench.experiment import Plan
from bench.experiments import EXPERIMENTS
from xsk_engine.errors import XskError


def _chosen(names: tuple[str, ...], quick: bool) -> tuple[str, ...]:
    unknown = [name for name in names if name not in EXPERIMENTS]
    if unknown:
        raise click.UsageError(f"no experiment {unknown[0]!r}; there are {', '.join(EXPERIMENTS)}")
    return names or tuple(name for name, one in EXPERIMENTS.items() if one.in_quick or not quick)


@click.group("bench")
def command() -> None:
    """The engine beside the kernel and everybody else."""


@command.command()
@click.argument("names", nargs=-1, metavar="[EXPERIMENT]...")
@click.option("--quick", is_flag=True, help="A few minutes for everything.")
@click.option("--rounds", type=click.IntRange(1), help="Instead of each experiment's own number.")
@click.option("--arm", "arms", multiple=True, help="Only this one; may be given more than once.")
@click.option("--machine", is_flag=True, help="In the emulated machine; experiments of MTU 1500 only.")
@click.option(
    "--nics", type=click.Choice(["igb", "virtio", "virtio-no-iommu"]), default="igb", help="Its NICs."
)
@click.option(
    "--interfaces",
    nargs=2,
    metavar="TX RX",
    help="Between two interfaces that a cable joins; root. Each is moved into a network namespace until the "
    "end. Then it has its name, MAC, MTU and addresses again and is up or down as before; routes, "
    "neighbours, addresses from DHCP or router advertisements, qdiscs, its bridge or bond and sysctls are "
    "not restored.",
)
@click.option("--mode", type=click.Choice(["copy", "zerocopy"]), help="Of the engine, with either of them.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=results.REFERENCE)
def run(
    names: tuple[str, ...],
    quick: bool,
    rounds: int | None,
    arms: tuple[str, ...],
    machine: bool,
    nics: str,
    interfaces: tuple[str, str] | None,
    mode: str | None,
    out: Path,
) -> int:
    """Measure, and write results and a report."""
    chosen = {name: EXPERIMENTS[name] for name in _chosen(names, quick)}
    try:
        with places.chosen(machine, nics, interfaces, mode) as place:
            failed = runner.run(chosen, Plan(quick, rounds, arms), place, out)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    except (XskError, OSError) as error:
        raise click.ClickException(str(error)) from None
    return 1 if failed else 0


@command.command("list")
def list_() -> None:
    """The experiments."""
    for name, one in EXPERIMENTS.items():
        click.echo(f"{name:12} {one.question}")
