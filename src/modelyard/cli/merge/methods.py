"""`modelyard merge methods`."""

from __future__ import annotations

from typing import Any

import click

from modelyard.cli.options import json_option, print_json


@click.command(name="methods")
@click.argument("name", required=False)
@json_option
def command(name: str | None, as_json: bool) -> None:
    """List every merge method with its parameters, formula and paper, or one of them."""
    from modelyard.merging.method import load_method, method_names

    records = [_record(load_method(found)) for found in ([name] if name else method_names())]
    if as_json:
        print_json(records)
        return
    for record in records:
        click.echo(f"{record['name']}   (models: {record['models']}; base: {record['base']})")
        click.echo(f"    {record['formula']}")
        for parameter in record["parameters"]:
            click.echo(f"    {_line(parameter)}")
        if record["paper"]:
            click.echo(f"    {record['paper']}")
        click.echo()


def _record(method: Any) -> dict[str, Any]:
    most = "or more" if method.most is None else f"to {method.most}"
    return {
        "name": method.name,
        "formula": method.formula,
        "paper": method.paper,
        "base": method.base.value,
        "models": str(method.least) if method.least == method.most else f"{method.least} {most}",
        "parameters": [
            {
                "name": p.name,
                "help": p.help,
                "kind": p.kind.value,
                "default": p.default,
                "per_model": p.per_model,
                "choices": list(p.choices),
            }
            for p in method.parameters
        ],
    }


def _line(parameter: dict[str, Any]) -> str:
    each = ", each model" if parameter["per_model"] else ""
    default = "required" if parameter["default"] is None else f"default {parameter['default']}"
    return f"{parameter['name']} ({parameter['kind']}{each}; {default}): {parameter['help']}"
