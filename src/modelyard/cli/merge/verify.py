"""`modelyard merge verify`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from modelyard.cli.options import json_option, print_json


@click.command(name="verify")
@click.argument("out", type=click.Path(path_type=Path))
@json_option
def command(out: Path, as_json: bool) -> None:
    """Hold every tensor of a merged checkpoint against the checksums in its merge.json."""
    from modelyard.merging.verification import verify_merge

    verdict = verify_merge(out)
    if as_json:
        print_json({"out": str(out), "tensors": verdict.tensors, "faults": list(verdict.faults)})
    else:
        for fault in verdict.faults:
            click.echo(f"  - {fault}", err=True)
        click.echo(f"{out}: {verdict.tensors} tensors, {len(verdict.faults) or 'no'} faults")
    if verdict.faults:
        sys.exit(1)
