"""``python -m bench``, and ``xsk-engine bench``."""

from __future__ import annotations

from pathlib import Path

import click

from bench import results, runner
from bench.experiment import Plan
from bench.experiments import EXPERIMENTS


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
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=results.REFERENCE)
def run(names: tuple[str, ...], quick: bool, rounds: int | None, arms: tuple[str, ...], out: Path) -> int:
    """Measure, and write results and a report."""
    chosen = {name: EXPERIMENTS[name] for name in _chosen(names, quick)}
    failed = runner.run(chosen, Plan(quick, rounds, arms), runner.Veth(), out)
    return 1 if failed else 0


@command.command("list")
def list_() -> None:
    """The experiments."""
    for name, one in EXPERIMENTS.items():
        click.echo(f"{name:12} {one.question}")
