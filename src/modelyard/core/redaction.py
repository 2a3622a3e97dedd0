"""Keeping secrets out of files: what a variable's name gives away, its value must not."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

REDACTED = "[redacted]"
#: Names whose values are secrets whoever declares them.
_SECRET_NAME = re.compile(
    r"TOKEN(?!S|IZ)|SECRET|PASSWORD|PASSWD|CREDENTIAL|API_?KEY|ACCESS_KEY|PRIVATE", re.IGNORECASE
)


def is_secret(name: str, declared: Collection[str] = ()) -> bool:
    """Whether a variable's value must not be written down."""
    return name in declared or _SECRET_NAME.search(name) is not None


def redacted(variables: Mapping[str, str], declared: Collection[str] = ()) -> dict[str, str]:
    """The variables with the values of secrets replaced."""
    return {name: REDACTED if is_secret(name, declared) else value for name, value in variables.items()}
