"""``xsk-engine bench``, and ``python -m bench``. What measures is imported when it is to measure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from bench import compare as comparing
from bench import results


class _ExperimentName(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    name = "experiment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from bench.experiments import EXPERIMENTS

        if value not in EXPERIMENTS:
            self.fail(f"no experiment {value!r}; there are {', '.join(EXPERIMENTS)}", param, ctx)
        return value

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        from bench.experiments import EXPERIMENTS

        return [CompletionItem(name) for name in EXPERIMENTS if name.startswith(incomplete)]


_FOLDER = click.Path(file_okay=False, path_type=Path)
_IN_SOURCES = "bench/results of the sources"


@click.group("bench")
def command() -> None:
    """The engine beside the kernel and everybody else."""


@command.command()
@click.argument("names", nargs=-1, metavar="[EXPERIMENT]...", type=_ExperimentName())
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
@click.option(
    "--out",
    type=_FOLDER,
    default=results.REFERENCE,
    show_default=_IN_SOURCES,
    help="Folder of results and report.",
)
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
    """Measure, and write results and a report.

    Without names: all experiments. Tables go to stdout, what is going on to stderr. The report is of all
    results in the folder.
    """
    from rich.console import Console

    from bench import places, runner
    from bench.experiment import Plan
    from bench.experiments import EXPERIMENTS
    from bench.report import text, writing

    if (machine or interfaces) and out == results.REFERENCE:
        raise click.UsageError("say --out FOLDER: the results of the sources are those of a veth pair")
    runner.check_programs()
    if any(out.glob("*.json")):
        results.load(out)  # or the report would fail for what else is there, when everything is measured
    wanted = names or [name for name, one in EXPERIMENTS.items() if one.in_quick or not quick]
    wanted = runner.possible([EXPERIMENTS[name] for name in wanted], asked=bool(names))
    with places.chosen(machine, nics, interfaces, mode) as place:
        chosen = {name: EXPERIMENTS[name] for name in wanted}
        failed = runner.run(chosen, Plan(quick, rounds, arms), place, out)
    done = [name for name in wanted if name not in failed]
    if done:
        found = results.load(out)
        text.show([found[name] for name in done], Console())
        click.echo(writing.write(out, found, EXPERIMENTS))
    return 1 if failed else 0


@command.command()
@click.argument("folder", type=_FOLDER, default=results.REFERENCE)
def report(folder: Path) -> None:
    """Write report.md, report.html and pictures of the results in a folder.

    [default: bench/results of the sources]
    """
    from bench.experiments import EXPERIMENTS
    from bench.report import writing

    click.echo(writing.write(folder, results.load(folder), EXPERIMENTS))


@command.command()
@click.argument("before", type=click.Path(exists=True, path_type=Path))
@click.argument("after", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--tolerance",
    type=click.FloatRange(0),
    default=comparing.TOLERANCE_PERCENT,
    show_default=True,
    help="Percent by which a figure may be worse.",
)
@click.option("--changed", is_flag=True, help="Show only what became worse or better.")
@click.option("--json", "as_json", is_flag=True, help="All of it as JSON.")
def compare(before: Path, after: Path, tolerance: float, changed: bool, as_json: bool) -> int:
    """Tell what became worse, or better, from BEFORE to AFTER: result files, or folders of them.

    A regression is worse by more than the tolerance, with 95 % intervals of both medians that lie apart.
    Ratios are always compared, other figures only where CPU, kernel and number of cores are the same. Exit
    code 1: there is a regression; 2: these are no results, or have nothing in common.
    """
    found = comparing.compare(results.load(before), results.load(after), tolerance)
    if as_json:
        click.echo(json.dumps(found.as_json(), indent=1, allow_nan=False))
    else:
        from rich.console import Console

        from bench.report import changes

        changes.show(found, Console(), only_changed=changed)
    return 1 if found.of(comparing.WORSE) else 0


@command.command("list")
def list_() -> None:
    """The experiments, with the minutes of a full run, about."""
    from bench.experiments import EXPERIMENTS

    for name, one in EXPERIMENTS.items():
        click.echo(f"{name:12} {one.minutes:4g} min  {one.question}")
