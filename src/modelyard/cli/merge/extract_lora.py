"""`modelyard merge extract-lora`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelyard.cli.merge.options import merge_progress
from modelyard.cli.options import json_option, print_json

if TYPE_CHECKING:
    from modelyard.merging.extract_lora import Extraction

_SHOWN = 20


@click.command(name="extract-lora")
@click.argument("finetuned", type=click.Path(path_type=Path))
@click.argument("base", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--rank", type=click.IntRange(min=1), default=16, show_default=True, help="Of every update.")
@click.option("--include", metavar="RE", help="Only tensors whose name this regular expression is found in.")
@click.option("--exclude", metavar="RE", help="No tensors whose name this regular expression is found in.")
@json_option
def command(
    finetuned: Path, base: Path, out: Path, rank: int, *, as_json: bool, **chosen: str | None
) -> None:
    """Write to OUT the LoRA adapter, in PEFT's format, that turns BASE into FINETUNED as nearly as it can."""
    from modelyard.artifacts.checkpoints import open_checkpoint
    from modelyard.merging.extract_lora import Names, extract

    models = open_checkpoint(finetuned), open_checkpoint(base)
    with merge_progress(quiet=as_json) as observe:
        found = extract(*models, out, rank=rank, names=Names(**chosen), observe=observe)
    if as_json:
        print_json(extraction_record(found))
    else:
        _show(found)


def extraction_record(found: Extraction) -> dict[str, Any]:
    """What `--json` prints."""
    return {**asdict(found), "out": str(found.out), "explained": found.explained}


def _show(found: Extraction) -> None:
    """The tensors of which most is lost first: what a higher rank would help."""
    ordered = sorted(found.tensors, key=lambda each: (each.explained - 1) * each.change**2)
    width = max(len(each.name) for each in ordered[:_SHOWN])
    click.echo(f"{'tensor':<{width}} {'rank':>5} {'change':>11} {'explained':>10}")
    for each in ordered[:_SHOWN]:
        click.echo(f"{each.name:<{width}} {each.rank:>5} {each.change:>11.4g} {100 * each.explained:>9.2f}%")
    if len(ordered) > _SHOWN:
        click.echo(f"... and {len(ordered) - _SHOWN} more; --json has all")
    click.echo()
    click.echo(f"{found.out}: {100 * found.explained:.2f}% of the change in {len(ordered)} tensors")
    if found.left_out:
        more = f" and {len(found.left_out) - _SHOWN} more" if len(found.left_out) > _SHOWN else ""
        click.echo(f"changed, but not what an adapter can hold: {', '.join(found.left_out[:_SHOWN])}{more}")
