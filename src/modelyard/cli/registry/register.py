"""`modelyard registry register`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from modelyard.cli.options import json_option, print_json, yard_option
from modelyard.cli.registry.options import opened, registry_option
from modelyard.core.errors import RegistryError

_PATH = click.Path(path_type=Path)


@click.command(name="register")
@click.argument("name")
@click.option("--evidence", type=_PATH, metavar="REPORT", help="It is the candidate of this report.")
@click.option(
    "--pool", type=_PATH, metavar="FILE", help="It is the model of this name in a yard.yaml's pool."
)
@click.option("--digest", help="It has this digest: sha256: and 64 hex digits, as in its certificates.")
@click.option("--trained-by", default="", metavar="KEY_ID", help="Who trained it: a key id, or a name.")
@click.option("--run", "run_id", help="The run that made it.")
@click.option("--parent", "parent_digest", help="The digest of the model that it was made from.")
@yard_option
@registry_option
@json_option
def command(name: str, yard_dir: Path, url: str | None, as_json: bool, trained_by: str, **told: Any) -> None:
    """Register a model as the next version of NAME; one that is registered already is shown."""
    from modelyard.registry.versions import Candidate, register

    origin = {each: told.pop(each) for each in ("run_id", "parent_digest")}
    digest, entry = _model(name, told)
    candidate = Candidate(name=name, digest=digest, entry=entry, trained_by=trained_by, **origin)
    with opened(yard_dir, url) as (yard, registry):
        version = register(yard, registry, candidate)
    if as_json:
        print_json(version.record())
    else:
        click.echo(f"{version.label}: {version.digest}")


def _model(name: str, told: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The digest and the entry of the model that is meant."""
    given = [option for option, value in told.items() if value is not None]
    if len(given) != 1:
        raise click.UsageError("say which model it is by one of --evidence, --pool and --digest")
    if told["pool"]:
        from modelyard.evaluation.pool import read_pool
        from modelyard.lifecycle.document import read_document

        (model,) = read_pool(read_document(told["pool"]).data, path=told["pool"], only=[name])
        return model.digest, model.entry
    return _candidate(told["evidence"]) if told["evidence"] else (told["digest"], {})


def _candidate(report: Path) -> tuple[str, dict[str, Any]]:
    """The candidate's digest and identity in a certificate's report, which is not verified here."""
    from modelyard.core.files import read_json

    try:
        candidate = read_json(report)["candidate"]
        return str(candidate["digest"]), dict(candidate.get("identity") or {})
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise RegistryError(f"{report}: is not a certificate's report ({error}); name another") from error
