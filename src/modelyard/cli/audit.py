"""`modelyard audit`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from modelyard.cli.options import json_option, print_json, yard_option
from modelyard.core.clock import utc_now
from modelyard.core.errors import JournalError
from modelyard.core.signing import OWN_KEY, TRUSTED, open_signer
from modelyard.runs.anchoring import write_anchor
from modelyard.runs.yard import Yard, open_yard
from modelyard.verify.anchor import read_anchors
from modelyard.verify.journal import Verdict, verify_journal


@click.group(name="audit")
def command() -> None:
    """Check that the yard's journal was not tampered with, and anchor it outside."""


@command.command(name="verify")
@click.option(
    "--anchor", "anchors", type=click.Path(path_type=Path), multiple=True, metavar="FILE",
    help="A signed head from `audit anchor` that the journal must agree with; may be given several times.",
)  # fmt: skip
@click.option(
    "--trusted", type=click.Path(path_type=Path, exists=True, file_okay=False), metavar="FOLDER",
    help="The public keys (*.pem) that may sign anchors.  [default: YARD/keys/trusted]",
)  # fmt: skip
@yard_option
@json_option
def verify(anchors: tuple[Path, ...], trusted: Path | None, yard_dir: Path, as_json: bool) -> None:
    """Check every entry of the journal: its form, its digest, its place in the chain, its time, and the head.

    Who can write to the yard can rewrite journal and head together; that is found by an anchor that was
    kept elsewhere.
    """
    yard = open_yard(yard_dir, create=False)
    verdict, problems = _verified(yard, anchors, trusted or yard.keys_dir / TRUSTED)
    faults = [*problems, *verdict.faults]
    if as_json:
        told = {"entries": verdict.entries, "head": verdict.head, "faults": faults, "anchors": len(anchors)}
        print_json(told)
    else:
        for fault in faults:
            click.echo(fault, err=True)
        judgement = "NOT SOUND" if faults else "SOUND"
        click.echo(f"{verdict.entries} entries, head {verdict.head}: {judgement}")
    sys.exit(1 if faults else 0)


@command.command(name="anchor")
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, metavar="FILE",
    help="Where the signed head goes: outside the yard, best to another machine.",
)  # fmt: skip
@yard_option
@json_option
def anchor(out: Path, yard_dir: Path, as_json: bool) -> None:
    """Sign how many entries the journal has and the last one's digest, to be kept outside the yard.

    An anchor that FILE has already is replaced only where the journal still agrees with it. A clock that
    was set back is told, and anchored.
    """
    yard = open_yard(yard_dir, create=False)
    signer = open_signer(yard.keys_dir / OWN_KEY, create=True)
    verdict, problems = _verified(yard, (out,) if out.exists() else (), None)
    faults = [*problems, *(fault for fault in verdict.faults if fault not in verdict.clock)]
    if faults:
        raise JournalError(
            f"{yard.journal.folder}: is not anchored, for it is not sound: {'; '.join(faults[:3])}; "
            "run `modelyard audit verify` and find out what happened, or name another file"
        )
    for fault in verdict.clock:
        click.echo(fault, err=True)
    record = write_anchor(yard, (verdict.entries, verdict.head), out, signer=signer)
    if as_json:
        print_json(record)
    else:
        click.echo(f"{out}: {verdict.entries} entries, head {verdict.head}, signed by {signer.key_id}")


def _verified(yard: Yard, anchors: tuple[Path, ...], trusted: Path | None) -> tuple[Verdict, list[str]]:
    """The journal against the anchors that can be believed, and what is wrong with the others."""
    believed, problems = read_anchors(anchors, trusted)
    return verify_journal(yard.journal.folder, anchors=believed, now=utc_now()), problems
