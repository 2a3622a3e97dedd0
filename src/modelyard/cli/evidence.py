"""`modelyard evidence`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelyard.cli.options import json_option, print_json, yard_option
from modelyard.core.errors import EvidenceError

if TYPE_CHECKING:
    from modelyard.verify.certificate import CertificateVerdict


_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
_FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)


@click.group(name="evidence")
def command() -> None:
    """Check certificates, that their verdict follows from their answers, and hand them on to other tools."""


@command.command(name="verify")
@click.argument("report", type=_FILE)
@click.option(
    "--trusted", type=_FOLDER, metavar="FOLDER",
    help="The public keys (*.pem) that may sign; without it and --yard anybody's signature counts.",
)  # fmt: skip
@click.option(
    "--yard", "yard_dir", type=_FOLDER, metavar="DIR",
    help="The yard that issued it: its trusted keys count, and its journal must know the certificate.",
)  # fmt: skip
@click.option(
    "--rescore", is_flag=True,
    help="Also score every text anew with the installed scorers; items that a judge compared are left out.",
)  # fmt: skip
@json_option
def verify(report: Path, trusted: Path | None, yard_dir: Path | None, rescore: bool, as_json: bool) -> None:
    """Recompute the verdict of REPORT, a paired_eval_report.json, from the raw answers beside it, offline.

    Needs nothing but the certificate's files. Status 1 where it does not hold.
    """
    from modelyard.verify.certificate import verify_certificate

    verdict = verify_certificate(report, _keys(trusted, yard_dir))
    faults = list(verdict.faults)
    if not faults:
        record = _read(report)
        faults += _rescored(report.parent, record) if rescore else []
        faults += _journal(yard_dir, report.parent, record, verdict.report_digest) if yard_dir else []
    if as_json:
        print_json({**asdict(verdict), "faults": faults, "holds": not faults})
    else:
        _tell(verdict, faults, checked=bool(trusted or yard_dir))
    sys.exit(1 if faults else 0)


@command.command(name="export")
@click.argument("report", type=_FILE)
@click.option(
    "--format", "form", type=click.Choice(("in-toto",)), required=True,
    help="in-toto: a statement about the candidate in a signed DSSE envelope.",
)  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="FILE", help="Where it goes.")
@click.option(
    "--key", type=_FILE, metavar="FILE", help="The private key that signs it. [default: the yard's own]"
)
@yard_option
@json_option
def export(report: Path, form: str, out: Path, key: Path | None, yard_dir: Path, as_json: bool) -> None:
    """Write the certificate of REPORT for other tools, whatever its verdict is.

    It is recomputed first, and its signer must be trusted in the yard: the yard puts its name to no other.
    """
    from modelyard.core.signing import OWN_KEY, open_signer
    from modelyard.evidence.in_toto import write_statement
    from modelyard.runs.yard import open_yard
    from modelyard.verify.certificate import verify_certificate

    faults = verify_certificate(report, _keys(None, yard_dir)).faults
    if faults:
        raise EvidenceError(f"{report}: is not exported, for it does not hold: {'; '.join(faults[:3])}")
    own = open_yard(yard_dir, create=False).keys_dir / OWN_KEY
    signer = open_signer(key or own, create=key is None)
    statement = write_statement(report, out, key or own)
    verdict, (subject,) = statement["predicate"]["verdict"], statement["subject"]
    if as_json:
        told = {"file": str(out), "format": form, "key_id": signer.key_id}
        print_json({**told, "subject": subject, "verdict": verdict})
    else:
        click.echo(f"{out}: {verdict} for {subject['name']}, signed by {signer.key_id}")


@command.command(name="verify-statement")
@click.argument("statement", type=_FILE)
@click.option("--report", type=_FILE, help="The certificate's report, which must say the same.")
@click.option(
    "--trusted", type=_FOLDER, metavar="FOLDER",
    help="The public keys (*.pem) that may sign.  [default: YARD/keys/trusted]",
)  # fmt: skip
@yard_option
@json_option
def verify_statement(
    statement: Path, report: Path | None, trusted: Path | None, yard_dir: Path, as_json: bool
) -> None:
    """Check who signed STATEMENT, an export of a certificate, and that it was not changed.

    With --report also that it says what the certificate says, which is recomputed. Status 1 where it
    does not.
    """
    from modelyard.evidence.in_toto import read_statement, statement_faults
    from modelyard.verify.certificate import verify_certificate

    keys = _keys(trusted, yard_dir) or {}
    found = read_statement(statement, keys)
    faults: list[str] = []
    if report is not None:
        faults = [*verify_certificate(report, keys).faults] or statement_faults(found, report)
    name, digest = found.subject
    if as_json:
        told = {"subject": name, "digest": digest, "verdict": found.verdict, "key_id": found.key_id}
        print_json({**told, "faults": faults, "holds": not faults})
    else:
        for fault in faults:
            click.echo(fault, err=True)
        click.echo(f"verdict:   {found.verdict or 'none'}\ncandidate: {digest} ({name})")
        click.echo(f"signed by: {found.key_id}\n{'DOES NOT HOLD' if faults else 'HOLDS'}")
    sys.exit(1 if faults else 0)


def _keys(trusted: Path | None, yard_dir: Path | None) -> Mapping[str, str] | None:
    """The public keys that count, of the folder before those of the yard; None where nobody said which."""
    from modelyard.core.signing import TRUSTED, trusted_keys
    from modelyard.runs.yard import open_yard

    if trusted is not None:
        return trusted_keys(trusted)
    if yard_dir is None:
        return None
    return trusted_keys(open_yard(yard_dir, create=False).keys_dir / TRUSTED)


def _rescored(folder: Path, record: Mapping[str, Any]) -> list[str]:
    from modelyard.evidence.checking import rescored_faults

    return rescored_faults(folder, record)


def _journal(yard_dir: Path, folder: Path, record: Mapping[str, Any], digest: str) -> list[str]:
    from modelyard.evidence.checking import journal_faults
    from modelyard.runs.yard import open_yard

    return journal_faults(open_yard(yard_dir, create=False).journal, folder, record, digest)


def _read(report: Path) -> Mapping[str, Any]:
    from modelyard.core.files import read_json

    record = read_json(report)
    if not isinstance(record, dict):
        raise EvidenceError(f"{report}: is not a certificate's report; name another")
    return record


def _tell(verdict: CertificateVerdict, faults: list[str], *, checked: bool) -> None:
    for fault in faults:
        click.echo(fault, err=True)
    click.echo(f"verdict:   {verdict.verdict or 'none'}")
    click.echo(f"candidate: {verdict.candidate_digest or 'none'}")
    click.echo(f"baseline:  {verdict.baseline_digest or 'none'}")
    believed = "" if checked else " (nobody said whom to trust)"
    click.echo(f"signed by: {verdict.key_id or 'nobody'}{believed}")
    click.echo("DOES NOT HOLD" if faults else "HOLDS")
