"""`modelyard audit`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from modelyard.cli.options import json_option, print_json, yard_option
from modelyard.runs.yard import open_yard
from modelyard.verify.journal import verify_journal


@click.group(name="audit")
def command() -> None:
    """Check that the yard's journal was not tampered with."""


@command.command(name="verify")
@yard_option
@json_option
def verify(yard_dir: Path, as_json: bool) -> None:
    """Check every entry of the journal: its form, its digest, its place in the chain, and the head."""
    yard = open_yard(yard_dir, create=False)
    verdict = verify_journal(yard.journal.folder)
    if as_json:
        print_json({"entries": verdict.entries, "head": verdict.head, "faults": list(verdict.faults)})
    else:
        for fault in verdict.faults:
            click.echo(fault, err=True)
        judgement = "NOT SOUND" if verdict.faults else "SOUND"
        click.echo(f"{verdict.entries} entries, head {verdict.head}: {judgement}")
    sys.exit(1 if verdict.faults else 0)
