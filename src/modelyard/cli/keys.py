"""`modelyard keys`: create, list and revoke the gateway's virtual keys."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelyard.cli.options import json_option, print_json, yard_option
from modelyard.runs.yard import open_yard

if TYPE_CHECKING:
    from modelyard.gateway.accounts.keys import VirtualKey

_FOLDER = "gateway"


def _names(_context: click.Context, _parameter: click.Parameter, text: str | None) -> frozenset[str]:
    """The callback of `--models`; none where it was given is a mistake, and must not be all."""
    names = frozenset(filter(None, (word.strip() for word in (text or "").split(","))))
    if text is not None and not names:
        raise click.BadParameter("no model is named; leave the option out to allow all")
    return names


@click.group(name="keys")
def command() -> None:
    """Virtual keys of the gateway: what a client may use, and how much."""


@command.command(name="create")
@click.option("--name", default="", help="What people call it.")
@click.option(
    "--limit-usd", metavar="USD[/PERIOD]",
    help="The most it may spend: 10/day, 5.50/hour, 100/month, or 50 for all of its life.",
)  # fmt: skip
@click.option("--rpm", type=click.IntRange(min=1), help="Requests in each minute of the clock.")
@click.option("--tpm", type=click.IntRange(min=1), help="Tokens in each minute of the clock.")
@click.option(
    "--parallel", type=click.IntRange(min=1), help="Requests in flight at a time, in each worker process."
)
@click.option("--models", metavar="NAMES", callback=_names, help="What it may ask for: a,b. [default: all]")
@click.option(
    "--expires", metavar="TIME", help="How long it is good for: 45m, 12h, 30d, 2w. [default: for ever]"
)
@click.option("--log-prompts", is_flag=True, help="Keep its prompts and answers in the request log.")
@yard_option
@json_option
def create(yard_dir: Path, as_json: bool, **asked: Any) -> None:
    """Make a key, and show its token this once: only a digest of it is kept."""
    from modelyard.gateway.accounts.key_store import KeyStore
    from modelyard.gateway.accounts.keys import KeyLimits, KeyRequest, parse_age, parse_spend_limit

    spend = parse_spend_limit(asked["limit_usd"]) if asked["limit_usd"] is not None else None
    request = KeyRequest(
        name=asked["name"],
        expires_in_s=parse_age(asked["expires"]) if asked["expires"] is not None else None,
        models=asked["models"],
        limits=KeyLimits(spend=spend, rpm=asked["rpm"], tpm=asked["tpm"], parallel=asked["parallel"]),
        log_prompts=asked["log_prompts"],
    )
    with KeyStore(open_yard(yard_dir, create=True).root / _FOLDER) as store:
        key, token = store.create(request)
    if as_json:
        print_json({**key.record(), "token": token})
        return
    click.echo(token)
    click.echo(f"key {key.id}: shown this once; keep it, it cannot be shown again", err=True)


@command.command(name="list")
@yard_option
@json_option
def list_(yard_dir: Path, as_json: bool) -> None:
    """List the keys, with what each has spent in the present window of its limit.

    The rates of a minute, which workers share among themselves, are not shown as used.
    """
    from modelyard.gateway.accounts.key_store import KeyStore
    from modelyard.gateway.accounts.ledger import Ledger

    folder = open_yard(yard_dir, create=False).root / _FOLDER
    now = time.time()
    with KeyStore(folder) as store, Ledger(folder) as ledger:
        ledger.fold()
        keys = store.list()
        spent = [ledger.spent(key, now) for key in keys]
    if as_json:
        print_json(
            [
                {**key.record(), "state": _state(key, now), "spent_nano_usd": nano}
                for key, nano in zip(keys, spent, strict=True)
            ]
        )
        return
    if not keys:
        click.echo(f"{folder}: no key yet; make one with `modelyard keys create`")
        return
    for line in _lines(keys, spent, now):
        click.echo(line)


@command.command(name="revoke")
@click.argument("key_id", metavar="ID")
@yard_option
def revoke(key_id: str, yard_dir: Path) -> None:
    """Let a key open nothing any more; a running gateway follows within a second."""
    from modelyard.gateway.accounts.key_store import KeyStore

    with KeyStore(open_yard(yard_dir, create=False).root / _FOLDER) as store:
        key = store.revoke(key_id)
    click.echo(f"key {key.id} {key.name}".rstrip() + f": revoked at {_day_and_time(key.revoked_at_s or 0.0)}")


def _lines(keys: Sequence[VirtualKey], spent: Sequence[int], now_s: float) -> list[str]:
    """A table of keys."""
    head = ("id", "name", "token", "state", "spent USD", "limits", "models")
    rows = [head, *(_row(key, nano, now_s) for key, nano in zip(keys, spent, strict=True))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _row(key: VirtualKey, spent: int, now_s: float) -> tuple[str, ...]:
    from modelyard.gateway.accounts.money import usd_text

    limits = key.limits
    told = [f"{limits.spend} USD"] if limits.spend is not None else []
    told += [
        f"{getattr(limits, name)} {name}" for name in ("rpm", "tpm", "parallel") if getattr(limits, name)
    ]
    shown, models = ", ".join(told) or "none", ",".join(sorted(key.models)) or "all"
    return (key.id, key.name, f"...{key.last}", _state(key, now_s), usd_text(spent), shown, models)


def _state(key: VirtualKey, now_s: float) -> str:
    if key.revoked_at_s is not None:
        return "revoked"
    if key.expires_at_s is None:
        return "good"
    return "expired" if now_s >= key.expires_at_s else f"until {_day_and_time(key.expires_at_s)}"


def _day_and_time(moment_s: float) -> str:
    return f"{datetime.fromtimestamp(moment_s, UTC):%Y-%m-%d %H:%M} UTC"
