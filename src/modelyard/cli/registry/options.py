"""What the commands over a registry share."""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from modelyard.runs.yard import Yard, open_yard

if TYPE_CHECKING:
    from modelyard.registry.records import Move
    from modelyard.registry.store import Registry

F = TypeVar("F", bound=Callable[..., Any])

#: The exit status of a promotion that waits for approvals.
WAITING = 6


def registry_option(function: F) -> F:
    """`--registry URL`, handed over as `url`."""
    return click.option(
        "--registry", "url", metavar="URL", envvar="MODELYARD_REGISTRY", show_envvar=True,
        help="The registry's database, SQLite or PostgreSQL. [default: registry.db in the yard]",
    )(function)  # fmt: skip


def actor_option(function: F) -> F:
    """`--as NAME`, handed over as `actor`."""
    return click.option(
        "--as", "actor", default=_login_name, metavar="NAME", show_default="the login name",
        help="Who does this; it is kept in the history.",
    )(function)  # fmt: skip


def _login_name() -> str:
    """Who is logged in; a number where the machine has no name for them, as in many containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def without_secrets(_context: click.Context, _parameter: click.Parameter, text: str) -> str:
    """The callback of `--reason`, which is kept for good: the environment's secrets in it are replaced."""
    from modelyard.core.redaction import scrubbed, secret_values

    return str(scrubbed(text, secret_values(os.environ)))


@contextmanager
def opened(yard_dir: Path, url: str | None) -> Iterator[tuple[Yard, Registry]]:
    """The yard and its registry, which is closed at the end."""
    from modelyard.registry.ledger import registry_url
    from modelyard.registry.store import open_registry

    yard = open_yard(yard_dir, create=False)
    with open_registry(registry_url(yard, url)) as registry:
        yield yard, registry


def served_line(move: Move, said: str) -> str:
    """What an alias serves, or would, after a move."""
    return (
        f"{move.alias} {said} {move.label} ({short(move.to_digest)}), generation {move.generation}, after "
        f"{short(move.from_digest)}"
    )


def short(digest: str | None) -> str:
    """A digest as tables show it."""
    return (digest or "none").removeprefix("sha256:")[:12]
