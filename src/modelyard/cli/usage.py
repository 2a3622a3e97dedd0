"""`modelyard usage`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from modelyard.cli.options import json_option, print_json, yard_option
from modelyard.runs.yard import open_yard

if TYPE_CHECKING:
    from modelyard.gateway.accounts.usage import Usage

_FOLDER = "gateway"
_DATE = click.DateTime(formats=["%Y-%m-%d"])


@click.command(name="usage")
@click.option(
    "--by", type=click.Choice(["key", "model", "upstream", "day"]), default="key", show_default=True,
    help="What is told apart.",
)  # fmt: skip
@click.option("--since", type=_DATE, metavar="DATE", help="The first day, 2026-11-01; days are of UTC.")
@click.option("--until", type=_DATE, metavar="DATE", help="The last day.")
@click.option("--key", "key_id", metavar="ID", help="Of this key alone.")
@yard_option
@json_option
def command(
    by: str, since: datetime | None, until: datetime | None, key_id: str | None, yard_dir: Path, as_json: bool
) -> None:
    """What was used and spent through the gateway; it may run meanwhile."""
    from modelyard.gateway.accounts.key_store import KeyStore
    from modelyard.gateway.accounts.ledger import Ledger
    from modelyard.gateway.accounts.usage import By, UsageQuery, total_of

    folder = open_yard(yard_dir, create=False).root / _FOLDER
    query = UsageQuery(
        by=By(by), since=since.date() if since else None, until=until.date() if until else None, key=key_id
    )
    with KeyStore(folder) as keys, Ledger(folder) as ledger:
        names = {key.id: key.name for key in keys.list()} if by == "key" else {}
        ledger.fold()
        rows, dropped = ledger.usage(query), ledger.dropped_lines()
    total = total_of(rows)
    if as_json:
        told = [row.record() for row in rows]
        print_json({"by": by, "rows": told, "total": total.record(), "dropped_lines": dropped})
        return
    for line in _lines(by, rows, total, names):
        click.echo(line)
    if total.unknown_cost:
        click.echo(f"{total.unknown_cost} requests have no known cost; they are in no sum of USD")
    if total.estimated:
        click.echo(f"{total.estimated} requests had their tokens counted here; their upstreams told none")
    if total.lost:
        click.echo(
            f"{total.lost} attempts gave no answer and may be billed; the sums have their estimated costs"
        )
    if dropped:
        click.echo(f"{dropped} lines of the journals were cut off by a kill or a full disk, and dropped")


def _lines(by: str, rows: Sequence[Usage], total: Usage, names: Mapping[str, str]) -> list[str]:
    """A table of usage with its total."""
    head = (by, "requests", "failed", "prompt", "answer", "USD")
    table = [head, *(_cells(row, f"{row.of or '(none)'} {names.get(row.of, '')}".rstrip()) for row in rows)]
    table.append(_cells(total, "total"))
    widths = [max(len(row[column]) for row in table) for column in range(len(head))]
    return [
        "  ".join(
            [f"{row[0]:<{widths[0]}}", *(f"{c:>{w}}" for c, w in zip(row[1:], widths[1:], strict=True))]
        )
        for row in table
    ]


def _cells(row: Usage, name: str) -> tuple[str, ...]:
    from modelyard.gateway.accounts.money import usd_text

    counts = (row.requests, row.failures, row.prompt_tokens, row.completion_tokens)
    return (name, *(f"{count:,}" for count in counts), usd_text(row.nano_usd))
