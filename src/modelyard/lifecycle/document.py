"""The YAML document under a yard: what its file says, as a JSON value.

Stricter than YAML where YAML would guess: a key stands once, and a date stays the text that was written.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import yaml

from modelyard.core.digests import digest_bytes
from modelyard.core.faults import Faults, Section
from modelyard.jobs.step import is_name

_TIMESTAMP = "tag:yaml.org,2002:timestamp"
_MOST_VALUES = 2_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class YardDocument:
    """One yard.yaml as it stands."""

    path: Path
    name: str
    # Of what the file says, comments and layout apart. It names the run: a changed file is another run.
    digest: str
    data: Any


def read_document(path: Path) -> YardDocument:
    """Read a yard.yaml as far as the name of its run needs.

    Raises:
        DocumentError: The file is not YAML, or does not name the yard.
    """
    faults = Faults(file=str(path))
    data = _read_yaml(path, faults)
    faults.raise_if_any()
    name = Section(data, faults=faults).text("name")
    if name and not is_name(name):
        faults.add("name", name, "cannot name a folder", "use letters, digits, '.', '_', '-'")
    faults.raise_if_any()
    # Not RFC 8785, which knows neither NaN nor integers beyond 2^53: whether those may stand is judged later.
    return YardDocument(
        path=path, name=name, digest=digest_bytes(json.dumps(data, sort_keys=True).encode()), data=data
    )


class _Loader(yaml.SafeLoader):
    """YAML whose keys are words that stand once, without dates."""

    yaml_implicit_resolvers = {  # noqa: RUF012  (the base class's way)
        first: [(tag, form) for tag, form in resolvers if tag != _TIMESTAMP]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        assert node is not None
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key is not a word", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} stands twice", key.start_mark
                )
            seen.add(key.value)
        return node


def _read_yaml(path: Path, faults: Faults) -> Any:
    """The file as a JSON value; one fault, and None, where it is not YAML."""
    try:
        data = _plain(yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader))
        json.dumps(data, ensure_ascii=False).encode()  # half a character can neither be stored nor launched
        return data
    except FileNotFoundError:
        faults.add("", None, "does not exist", "give the path of the file, or make one with `modelyard init`")
    except UnicodeDecodeError as error:
        faults.add("", None, f"is not UTF-8 text (byte {error.start})", "save it as UTF-8")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        faults.add(place, None, f"is not YAML ({error.problem})", "correct the file there")
    except (yaml.YAMLError, ValueError) as error:
        faults.add("", None, f"cannot be read as YAML ({' '.join(str(error).split())})", "write it plainly")
    except RecursionError:
        faults.add("", None, "holds itself, or is nested too deeply", "write it without aliases (*name)")
    except OSError as error:
        faults.add("", None, f"cannot be read ({error.strerror})", "give a file that you may read")
    return None


def _plain(value: Any, seen: Iterator[int] | None = None) -> Any:
    """As JSON: keys are text, and so is what only YAML's tags can write; aliases are written out."""
    seen = count() if seen is None else seen
    if next(seen) > _MOST_VALUES:
        raise ValueError(f"its aliases stand for more than {_MOST_VALUES} values")
    if isinstance(value, Mapping):
        return {str(k): _plain(v, seen) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(item, seen) for item in value]
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)
