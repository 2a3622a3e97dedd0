"""`modelyard merge inspect`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelyard.cli.merge.options import merge_progress
from modelyard.cli.options import json_option, print_json

if TYPE_CHECKING:
    from modelyard.merging.inspection import Inspection, Values

_NAMES = 20


@click.command(name="inspect")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--values", "with_values", is_flag=True, help="Read all tensors: NaN, norms, zero rows.")
@click.option("--threads", type=click.IntRange(min=1), default=2, show_default=True, help="With --values.")
@json_option
def command(checkpoint: Path, with_values: bool, threads: int, as_json: bool) -> None:
    """Tell what CHECKPOINT, a folder or a file, holds: layers, sizes, types, kinds of tensors."""
    from modelyard.artifacts.checkpoints import open_checkpoint
    from modelyard.merging.inspection import inspect, inspect_values

    opened = open_checkpoint(checkpoint)
    found = inspect(opened)
    values: dict[str, Values] = {}
    if with_values:
        with merge_progress(quiet=as_json) as observe:
            values = inspect_values(opened, threads=threads, observe=observe)
    if as_json:
        print_json(inspection_record(found) | ({"values": values_record(values)} if with_values else {}))
        return
    _show(found)
    if with_values:
        _show_values(values)


def inspection_record(found: Inspection) -> dict[str, Any]:
    """What `--json` prints without values."""
    return {**asdict(found), "tied": found.tied, "tensors": found.tensors}


def values_record(values: Mapping[str, Values]) -> dict[str, Any]:
    """What `--json` prints of the values of every tensor."""
    return {
        name: {**asdict(each), "root_mean_square": each.root_mean_square, "dead": each.dead}
        for name, each in values.items()
    }


def _show(found: Inspection) -> None:
    stacks = ", ".join(f"{stack} ({count})" for stack, count in found.layers.items())
    shards = found.shards
    facts = {
        "model": ", ".join([found.model_type or "no config", *found.architectures]),
        "layers": stacks or "none",
        "parameters": f"{found.parameters:,} in {found.tensors} tensors",
        "bytes": f"{found.bytes:,} in {len(shards)} file{'s' if len(shards) > 1 else ''}",
        "types": ", ".join(f"{word} {count:,}" for word, count in found.dtypes.items()),
        "vocabulary": f"{found.vocabulary_rows:,} rows" if found.vocabulary_rows else "no embedding",
        "head": found.head or ("tied to the embedding" if found.tied else "none"),
    }
    for name, value in facts.items():
        click.echo(f"{name:<12} {value}")
    if found.origin:
        _show_origin(found)
    click.echo()
    width = max(len(kind.module) for kind in found.kinds)
    click.echo(f"{'role':<10} {'module':<{width}} {'tensors':>8} {'parameters':>16}  type  shape")
    for kind in found.kinds:
        shapes = " | ".join("x".join(map(str, shape)) or "scalar" for shape in kind.shapes[:3])
        more = f" and {len(kind.shapes) - 3} more" if len(kind.shapes) > 3 else ""
        click.echo(
            f"{kind.role:<10} {kind.module:<{width}} {kind.tensors:>8} {kind.parameters:>16,}  "
            f"{'/'.join(kind.dtypes):<5} {shapes}{more}"
        )


def _show_origin(found: Inspection) -> None:
    if found.origin is None:
        return
    click.echo(f"{'merged by':<12} {found.origin.method} (modelyard {found.origin.modelyard})")
    for name, parent in found.origin.parents.items():
        click.echo(f"{'parent':<12} {name}: {parent['tensors_read']} tensors, {parent['digest']}")


def _show_values(values: Mapping[str, Values]) -> None:
    """What is wrong first, then every tensor's size."""
    click.echo()
    width = max((len(name) for name in values), default=0)
    click.echo(f"{'tensor':<{width}} {'norm':>11} {'rms':>11} {'largest':>11} {'zeros':>8}")
    for name, each in values.items():
        share = f"{100 * each.zeros / each.size:.2f}%" if each.size else "-"
        sizes = f"{each.norm:>11.4g} {each.root_mean_square:>11.4g} {each.largest:>11.4g}"
        click.echo(f"{name:<{width}} {sizes} {share:>8}")
    lists = {
        "NaN or infinite": [f"{n} ({v.nan} NaN, {v.infinite} infinite)" for n, v in values.items()
                            if v.nan or v.infinite],
        "all zero": [name for name, each in values.items() if each.dead],
        "rows that are all zero": [f"{n} ({v.dead_rows})" for n, v in values.items() if v.dead_rows],
    }  # fmt: skip
    click.echo()
    for title, names in lists.items():
        more = f" and {len(names) - _NAMES} more; --json has all" if len(names) > _NAMES else ""
        click.echo(f"{title}: {', '.join(names[:_NAMES]) or 'none'}{more}")
