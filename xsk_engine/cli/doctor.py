"""``xsk-engine doctor``."""

from __future__ import annotations

import click

from xsk_engine.cli import options


@click.command("doctor", short_help="What this machine and an interface can do.")
@click.argument("interface", required=False, shell_complete=options.complete_interface)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def command(interface: str | None, as_json: bool) -> int:
    """Check kernel, permissions, libraries, and INTERFACE if one is given.

    Exit code 3 when a check fails, else 0.
    """
    from xsk_engine import doctor
    from xsk_engine.cli import EXIT_DONE, EXIT_ENVIRONMENT

    findings = doctor.examine(interface)
    if as_json:
        import json

        click.echo(json.dumps(doctor.as_json(findings)))
    else:
        for finding in findings:
            remedy = f"  -> {finding.remedy}" if finding.remedy else ""
            click.echo(f"{finding.status:<5} {finding.check:<16} {finding.detail}{remedy}")
    failed = any(f.status == doctor.FAIL for f in findings)
    return EXIT_ENVIRONMENT if failed else EXIT_DONE
