"""`modelyard tune report`."""

from __future__ import annotations

from pathlib import Path

import click

from modelyard.cli.options import json_option, print_json, yard_option
from modelyard.cli.tune.studies import opened, storage_option


@click.command(name="report")
@click.argument("study")
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, metavar="FILE.html", help="The page to write."
)
@yard_option
@storage_option
@json_option
def command(study: str, out: Path, yard_dir: Path, url: str | None, *, as_json: bool) -> None:
    """Write one HTML page of STUDY, a name or its beginning: what was learnt, pictures, a ranked table."""
    from modelyard.tuning.reporting.pictures import check_picture

    check_picture(out, suffixes=(".html",))
    from modelyard.core.files import write_whole
    from modelyard.tuning.reporting.report import render_report, sentences

    view = opened(yard_dir, study, url)
    write_whole(out, render_report(view))
    learnt = sentences(view)
    if as_json:
        print_json({"study": view.name, "file": str(out), "learnt": learnt})
        return
    for sentence in learnt:
        click.echo(sentence)
    click.echo(f"{out}: written")
