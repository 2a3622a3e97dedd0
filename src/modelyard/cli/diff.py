"""`modelyard diff`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from modelyard.cli.options import json_option, print_json, yard_option
from modelyard.runs.differences import Difference, differences
from modelyard.runs.view import find_run
from modelyard.runs.yard import open_yard

_SHOWN = 60
_DIGEST = "sha256:"


@click.command(name="diff")
@click.argument("before")
@click.argument("after")
@yard_option
@json_option
def command(before: str, after: str, yard_dir: Path, as_json: bool) -> None:
    """What is not the same in two runs of a yard (names or beginnings): commands, files, how they ended.

    The status is 0 when nothing differs and 1 when something does.
    """
    yard = open_yard(yard_dir, create=False)
    rows = find_run(yard, before), find_run(yard, after)
    found = differences(yard, *rows)
    if as_json:
        print_json(
            {"before": rows[0].run, "after": rows[1].run, "differences": [each.record() for each in found]}
        )
    else:
        click.echo(f"--- {rows[0].run}\n+++ {rows[1].run}")
        for line in _lines(found):
            click.echo(line)
    raise SystemExit(1 if found else 0)


def _lines(found: list[Difference]) -> list[str]:
    lines, step = [], None
    for each in found:
        if each.what == "step":
            lines.append(f"{'-' if each.after is None else '+'} {each.step}")
            continue
        if each.step != step:
            step = each.step
            lines.append(f"  {step}")
        told = f"{each.what} {each.where}".strip()
        lines += [f"-   {told}: {_shown(each.before)}", f"+   {told}: {_shown(each.after)}"]
    return lines or ["no difference"]


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, str) and value.startswith(_DIGEST):
        return value.removeprefix(_DIGEST)[:12]
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
