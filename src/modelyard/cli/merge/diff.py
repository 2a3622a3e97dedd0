"""`modelyard merge diff`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelyard.cli.merge.options import merge_progress
from modelyard.cli.options import json_option, print_json

if TYPE_CHECKING:
    from modelyard.merging.contributions import Contributions
    from modelyard.merging.differences import Comparison, Sums

_ROWS = 20
_NAMES = 5


@click.command(name="diff")
@click.argument("a")
@click.argument("b", required=False)
@click.option("--base", metavar="MODEL", help="What both were tuned from: adds changes, angle and conflicts.")
@click.option(
    "--parents", is_flag=True, help="A is the output of a merge: tell what each of its models contributed."
)
@click.option(
    "--plot", type=click.Path(path_type=Path), metavar="FILE", help="Also a picture: FILE.png or FILE.html."
)
@click.option("--threads", type=click.IntRange(min=1), default=2, show_default=True, help="Threads.")
@json_option
def command(a: str, b: str | None, parents: bool, as_json: bool, **told: Any) -> None:
    """Tell how models differ: A and B, each PATH or PATH+LORA, by tensor, layer and kind of module."""
    if parents:
        if b is not None or told["base"]:
            raise click.UsageError("--parents takes the output of a merge alone; leave out B and --base")
        _parents(Path(a), as_json=as_json, plot=told["plot"], threads=told["threads"])
        return
    if b is None:
        raise click.UsageError("give two models, or one that was merged and --parents")
    _two(a, b, as_json=as_json, **told)


def _two(a: str, b: str, *, base: str | None, plot: Path | None, threads: int, as_json: bool) -> None:
    from modelyard.merging.differences import compare, strangers
    from modelyard.merging.measuring import open_model

    if plot:
        from modelyard.merging.pictures import check_picture, comparison_picture, write_picture

        check_picture(plot)
    models = [open_model(text) for text in (a, b, *([base] if base else []))]
    with merge_progress(quiet=as_json) as observe:
        found = compare(*models, threads=threads, observe=observe)
    hints = strangers(found)
    if plot:
        write_picture(comparison_picture(found, title=f"A = {a}, B = {b}"), plot)
    if as_json:
        print_json({"a": a, "b": b, "base": base, "hints": hints, **comparison_record(found)})
        return
    _show(found)
    for hint in hints:
        click.echo(f"warning: {hint}", err=True)


def _parents(out: Path, *, plot: Path | None, threads: int, as_json: bool) -> None:
    from modelyard.merging.contributions import contributions

    if plot:
        from modelyard.merging.pictures import check_picture, contribution_picture, write_picture

        check_picture(plot)
    with merge_progress(quiet=as_json) as observe:
        found = contributions(out, threads=threads, observe=observe)
    if plot:
        write_picture(contribution_picture(found, title=str(out)), plot)
    record = contributions_record(found)
    if as_json:
        print_json({"out": str(out), **record})
    else:
        _show_contributions(record)


# Records.


def comparison_record(found: Comparison) -> dict[str, Any]:
    """What `--json` prints of two models."""
    from modelyard.merging.differences import layer_of, module_of, natural, summed

    layers = summed(found.tensors, layer_of)

    def measures(sums: Sums) -> dict[str, Any]:
        return sums_record(sums, has_base=found.has_base)

    return {
        "whole": measures(found.whole),
        "matrices": measures(found.matrices),
        "layers": {key: measures(layers[key]) for key in sorted(layers, key=natural)},
        "modules": {key: measures(sums) for key, sums in summed(found.tensors, module_of).items()},
        "tensors": {each.name: {"shape": each.shape, **measures(each.sums)} for each in found.tensors},
        "only_a": found.only_a,
        "only_b": found.only_b,
        "other_shape": [{"name": n, "a": one, "b": other} for n, one, other in found.other_shape],
        "other_dtype": [{"name": n, "a": one, "b": other} for n, one, other in found.other_dtype],
        "not_floating": found.not_floating,
        "not_in_base": found.not_in_base,
    }


def sums_record(sums: Sums, *, has_base: bool) -> dict[str, Any]:
    """The measures of a tensor or a group; None stands for what is not defined."""
    pair, task = sums.pair, sums.task
    record = {
        "elements": sums.elements,
        "not_finite": sums.not_finite,
        "norm_a": pair.one,
        "norm_b": pair.other,
        "norm_difference": pair.between,
        "relative_difference": pair.relative,
        "cosine": pair.cosine,
        "degrees": pair.degrees,
        "differing_share": sums.differing_share,
    }
    if has_base:
        record |= {
            "norm_base": math.sqrt(task.base),
            "norm_change_a": task.pair.one,
            "norm_change_b": task.pair.other,
            "relative_change_a": task.moved_a,
            "relative_change_b": task.moved_b,
            "changes_cosine": task.pair.cosine,
            "changes_degrees": task.pair.degrees,
            "both_changed": task.both,
            "sign_conflicts": task.conflicts,
            "sign_conflict_share": task.conflict_share,
        }
    return {key: _defined(value) for key, value in record.items()}


def contributions_record(found: Contributions) -> dict[str, Any]:
    """What `--json` prints of a merge's parents."""
    from modelyard.merging.contributions import Contribution, shares
    from modelyard.merging.differences import grouped, layer_of, module_of, natural

    def told(tensors: Sequence[Contribution]) -> dict[str, Any]:
        result = shares(tensors)
        coefficients = map(_defined, result.coefficients)
        return {
            "coefficients": dict(zip(found.parents, coefficients, strict=True)),
            "explained": _defined(result.explained),
        }

    def by(key: Callable[[str], str | None]) -> dict[str, Any]:
        groups = grouped((key(each.name), each) for each in found.tensors)
        return {name: told(tensors) for name, tensors in groups.items()}

    layers = by(layer_of)
    return {
        "base": found.base,
        "parents": found.parents,
        "whole": told(found.tensors) if found.tensors else None,
        "layers": {key: layers[key] for key in sorted(layers, key=natural)},
        "modules": by(module_of),
        "tensors": by(str),
        "skipped": found.skipped,
    }


def _defined(value: float) -> float | None:
    return value if math.isfinite(value) else None


# Text.


def _show(found: Comparison) -> None:
    """The tensors that differ most, then layers, modules and the whole."""
    from modelyard.merging.differences import layer_of, module_of, natural, summed

    order = sorted(found.tensors, key=lambda each: -each.sums.pair.relative)
    _table("tensor", [(each.name, each.sums) for each in order[:_ROWS]], has_base=found.has_base)
    if len(order) > _ROWS:
        click.echo(f"... and {len(order) - _ROWS} more; --json has all")
    layers, modules = (list(summed(found.tensors, key).items()) for key in (layer_of, module_of))
    layers.sort(key=lambda group: natural(group[0]))
    for title, groups in (("layer", layers), ("module", modules)):
        if groups:
            click.echo()
            _table(title, groups, has_base=found.has_base)
    click.echo()
    _table("", [("whole", found.whole)], has_base=found.has_base)
    lists = {
        "only in A": found.only_a,
        "only in B": found.only_b,
        "of another shape": [f"{n} ({one}, {other})" for n, one, other in found.other_shape],
        "of another dtype": [f"{n} ({one}, {other})" for n, one, other in found.other_dtype],
        "not compared (integers)": found.not_floating,
        "not in the base": found.not_in_base,
    }
    for title, names in lists.items():
        _list(title, names)
    if found.whole.not_finite:
        click.echo(
            f"warning: {found.whole.not_finite} elements are NaN or infinite and left out; "
            "merge inspect --values tells where",
            err=True,
        )


def _table(title: str, rows: Sequence[tuple[str, Sums]], *, has_base: bool) -> None:
    width = max([len(title), *(len(name) for name, _ in rows)])
    head = f"{'|A-B|/|B|':>11}{'angle':>10}{'differ':>9}"
    if has_base:
        head += f"{'A moved':>11}{'B moved':>11}{'angle':>10}{'conflicts':>11}"
    click.echo(f"{title:<{width}}{head}")
    for name, sums in rows:
        click.echo(f"{name:<{width}}{_line(sums, has_base=has_base)}")


def _line(sums: Sums, *, has_base: bool) -> str:
    pair, task = sums.pair, sums.task
    line = f"{pair.relative:>11.3e}{_degrees(pair.degrees)}{_percent(sums.differing_share):>9}"
    if has_base:
        line += f"{_number(task.moved_a)}{_number(task.moved_b)}{_degrees(task.pair.degrees)}"
        line += f"{_percent(task.conflict_share):>11}"
    return line


def _number(value: float) -> str:
    return f"{value:>11.3e}" if math.isfinite(value) else f"{'-':>11}"


def _degrees(value: float) -> str:
    return f"{value:>9.3f}°" if math.isfinite(value) else f"{'-':>10}"


def _percent(share: float) -> str:
    return f"{100 * share:.2f}%" if math.isfinite(share) else "-"


def _list(title: str, names: Sequence[str]) -> None:
    if names:
        more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
        click.echo(f"{title}: {', '.join(names[:_NAMES])}{more}")


def _show_contributions(record: dict[str, Any]) -> None:
    parents = record["parents"]
    click.echo(f"base: {record['base'] or 'none; coefficients are of the weights themselves'}")
    for number, name in enumerate(parents, start=1):
        click.echo(f"[{number}] {name}")
    groups = {"layer": record["layers"], "module": record["modules"], "": {"whole": record["whole"]}}
    for title, rows in groups.items():
        told = {name: row for name, row in rows.items() if row is not None}
        if not told:
            continue
        width = max(len(title), *(len(name) for name in told))
        heads = "".join(f"{f'[{number}]':>10}" for number in range(1, len(parents) + 1))
        click.echo(f"\n{title:<{width}}{heads}{'explained':>12}")
        for name, row in told.items():
            values = "".join(_coefficient(row["coefficients"][parent]) for parent in parents)
            explained = math.nan if row["explained"] is None else row["explained"]
            click.echo(f"{name:<{width}}{values}{_percent(explained):>12}")
    _list("not told", record["skipped"])


def _coefficient(value: float | None) -> str:
    return f"{'-':>10}" if value is None else f"{value:>10.4f}"
