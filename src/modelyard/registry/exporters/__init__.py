"""Exporters: a registry's versions, aliases and history in the tool that a team looks at already.

A copy for reading: nobody moves an alias of this registry there, and the next export puts it right.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What an export did. Versions are written `NAME@VERSION`, as in this registry."""

    # Where they are now: a URL without secrets.
    place: str
    # Versions that were made there, that were changed there, and that were right already.
    added: tuple[str, ...] = ()
    updated: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    # What each exported alias serves.
    aliases: Mapping[str, str]
