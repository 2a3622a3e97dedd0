"""Reading a YAML file of a person's as a JSON value, so that all its faults are told.

Stricter than YAML where YAML would guess: a key stands once, and a date stays the text that was written.
A number such as 1e-5, which YAML takes for text, is a number.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import yaml

from modelyard.core.faults import Faults

_TIMESTAMP, _FLOAT = "tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:float"
_MOST_VALUES = 2_000_000
#: A number with an exponent, as JSON and Python write it; YAML 1.1 wants a dot and a sign in it.
_EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d{1,3}$")


def read_yaml_document(path: Path, faults: Faults, *, absent: str = "give the path of the file") -> Any:
    """The file as a JSON value; one fault, and None, where it is not YAML.

    `absent` is what to do where there is no file.
    """
    try:
        data = _plain(yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader))
        json.dumps(data, ensure_ascii=False).encode()  # half a character can neither be stored nor launched
        return data
    except FileNotFoundError:
        faults.add("", None, "does not exist", absent)
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


class _Loader(yaml.SafeLoader):
    """YAML whose keys are words that stand once, without dates."""

    yaml_implicit_resolvers = {  # noqa: RUF012  (the base class's way)
        first: [
            *([(_FLOAT, _EXPONENT)] if first and first in "-+0123456789" else []),
            *[(tag, form) for tag, form in resolvers if tag != _TIMESTAMP],
        ]
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
