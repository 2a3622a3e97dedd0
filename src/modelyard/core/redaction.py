"""Keeping secrets out of files: what a variable's name gives away, its value must not."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

REDACTED = "[redacted]"
#: Names whose values are secrets whoever declares them.
_SECRET_NAME = re.compile(
    r"TOKEN(?!S|IZ)|SECRET|PASSWORD|PASSWD|CREDENTIAL|API_?KEY|ACCESS_KEY|PRIVATE", re.IGNORECASE
)
#: Texts that are secrets whatever they are called: a password in a URL, a bearer token, keys by their prefix.
_SECRET_TEXT = re.compile(
    r"://[^/\s:@]+:[^/\s@]+@|\bBearer\s+[\w.~+/-]{8,}|\b(?:sk|hf|ghp|gho|xoxb|nvapi)[-_][A-Za-z0-9_-]{16,}"
    r"|\bAKIA[A-Z0-9]{16}\b|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
#: The name of a variable, which may stand where its value may not.
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
#: Shorter values are words that may stand anywhere.
_LEAST_SECRET = 6


def is_secret(name: str, declared: Collection[str] = ()) -> bool:
    """Whether a variable's value must not be written down."""
    return name in declared or _SECRET_NAME.search(name) is not None


def redacted(variables: Mapping[str, str], declared: Collection[str] = ()) -> dict[str, str]:
    """The variables with the values of secrets replaced."""
    return {name: REDACTED if is_secret(name, declared) else value for name, value in variables.items()}


def secret_values(variables: Mapping[str, str], declared: Collection[str] = ()) -> tuple[str, ...]:
    """The values that must not be written down, the longest first."""
    values = {v for n, v in variables.items() if is_secret(n, declared) and len(v) >= _LEAST_SECRET}
    return tuple(sorted(values, key=lambda value: (-len(value), value)))


def without(text: str, secrets: Collection[str]) -> str:
    """A text with the values of secrets replaced; what only looks like one is left."""
    for secret in secrets:
        text = text.replace(secret, REDACTED)
    return text


def scrubbed(value: Any, secrets: Collection[str]) -> Any:
    """A JSON value with every secret in it replaced: by value, by the name of its key, by its form."""
    if isinstance(value, str):
        return _SECRET_TEXT.sub(REDACTED, without(value, secrets))
    if isinstance(value, Mapping):
        return {
            scrubbed(key, secrets): REDACTED if _names_secret(key, each) else scrubbed(each, secrets)
            for key, each in value.items()
        }
    if isinstance(value, list | tuple):
        return [scrubbed(each, secrets) for each in value]
    return value


def exposed(value: Any, secrets: Collection[str], *, at: str = "") -> Iterator[str]:
    """The places in a JSON value where a secret stands, as dotted paths; never the secret."""
    if isinstance(value, str):
        if any(secret in value for secret in secrets) or _SECRET_TEXT.search(value):
            yield at
    elif isinstance(value, Mapping):
        for key, each in value.items():
            place = f"{at}.{key}" if at else str(key)
            if _names_secret(key, each):
                yield place
            else:
                yield from exposed(each, secrets, at=place)
    elif isinstance(value, list | tuple):
        for index, each in enumerate(value):
            yield from exposed(each, secrets, at=f"{at}[{index}]")


def _names_secret(key: object, value: object) -> bool:
    """Whether a key says that its value is a secret; the name of a variable is none."""
    return isinstance(value, str) and bool(value) and is_secret(str(key)) and not _VARIABLE.fullmatch(value)
