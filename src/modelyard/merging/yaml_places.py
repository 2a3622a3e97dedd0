"""YAML text as plain data with the line of every value, and replacing values by their dotted keys.

Stricter than YAML where YAML would guess: a key stands once, a date stays text, only `true` and
`false` are booleans, and `1e-5` is a number (the core schema of YAML 1.2; a number with leading
zeros stays text). Nothing here knows what the documents are for.
"""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from modelyard.core.errors import Fault
from modelyard.core.faults import Faults

#: A value whose path is long counts for several, so that aliases cannot fill the memory with paths.
_MOST_VALUES = 100_000
_PATH_LENGTH = 64
_MOST_DEEP = 50
_MOST_BYTES = 4 * 2**20
_MERGE = "<<"
_TAG = "tag:yaml.org,2002:"
_WHOLE = r"(?:0|[1-9][0-9]*)"
_FORMS = (
    (f"{_TAG}null", re.compile(r"(?:~|null|Null|NULL)?\Z")),
    (f"{_TAG}bool", re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z")),
    (f"{_TAG}int", re.compile(rf"[-+]?{_WHOLE}\Z")),
    (f"{_TAG}float", re.compile(rf"[-+]?(?:{_WHOLE}?\.[0-9]+|{_WHOLE}\.?)(?:[eE][-+]?[0-9]+)?\Z")),
    (f"{_TAG}float", re.compile(r"(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z")),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One YAML document."""

    data: Any
    # The line of each value by its path, such as `models[0].model`; None where an assignment gave it.
    lines: Mapping[str, int | None]

    def placed(self, found: Iterable[Fault]) -> list[Fault]:
        """Faults whose keys are paths, with the line before each key, in the order of lines."""
        lined = [(self._line(fault.key), fault) for fault in found]
        lined.sort(key=lambda pair: (pair[0] is None, pair[0] or 0))
        return [replace(fault, key=_place(line, fault.key)) for line, fault in lined]

    def _line(self, path: str) -> int | None:
        """The line of a value; of the mapping it should stand in, where it is missing."""
        while path not in self.lines and path:
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return self.lines.get(path)


def read_text(path: Path) -> str:
    """The text of a file that a user wrote.

    Raises:
        DocumentError: It is not there, too large, or not text.
    """
    faults = Faults(file=str(path))
    try:
        if path.stat().st_size <= _MOST_BYTES:
            return path.read_text(encoding="utf-8-sig")
        faults.add("", None, f"is larger than {_MOST_BYTES:,} bytes", "give a YAML file, not a checkpoint")
    except FileNotFoundError:
        faults.add("", None, "does not exist", "give the path of the file")
    except UnicodeDecodeError as error:
        faults.add("", None, f"is not UTF-8 text (byte {error.start})", "save it as UTF-8")
    except OSError as error:
        faults.add("", None, f"cannot be read ({error.strerror})", "give a file that you may read")
    faults.raise_if_any()
    return ""


def read_mappings(text: str, faults: Faults) -> list[Document]:
    """The documents of a YAML text, at least one and all of them mappings.

    Raises:
        DocumentError: With every fault found.
    """
    documents = read_documents(text, faults)
    if not documents and not faults.found:
        faults.add("", None, "is empty", "write a merge, or give another file")
    for document in documents:
        if not isinstance(document.data, Mapping) and not faults.found:
            faults.add(
                f"line {document.lines.get('')}", document.data, "is a document that is not a mapping",
                "write key: value pairs, or remove the --- before it",
            )  # fmt: skip
    faults.raise_if_any()
    return documents


def read_documents(text: str, faults: Faults) -> list[Document]:
    """The documents of a YAML text; with faults noted, they are not to be used."""
    documents = []
    for node in _nodes(text, faults):
        converter = _Converter(faults)
        data = converter.value(node, "", _line_of(node))
        documents.append(Document(data=data, lines=converter.lines))
    return documents


def assigned(documents: Sequence[Document], assignments: Sequence[str], faults: Faults) -> list[Document]:
    """Documents with values replaced.

    Args:
        documents: Left as they are.
        assignments: `KEY=VALUE` for the last document or `NAME:KEY=VALUE` for the one of that name,
            with dotted keys that exist (`models.1.parameters.weight`) and a value in YAML.
        faults: Takes a fault for each assignment that cannot be made.
    """
    changed = [Document(data=copy.deepcopy(d.data), lines=dict(d.lines)) for d in documents]
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            faults.add("--set", assignment, "is not KEY=VALUE", "write it like parameters.t=0.4")
            continue
        number, key = _addressed(changed, key)
        changed[number] = _with_value(changed[number], key, text, faults)
    return changed


class _Loader(yaml.SafeLoader):
    """YAML by the core schema of version 1.2."""

    yaml_implicit_resolvers = {None: list(_FORMS)}  # noqa: RUF012  (the base class's way)


class _Converter:
    """Makes plain data of nodes; `lines` collects where each value stands."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.lines: dict[str, int | None] = {}
        self._room = _MOST_VALUES

    def value(self, node: yaml.Node, path: str, line: int, depth: int = 0) -> Any:
        """A node as a mapping, a list or a scalar; None once there are too many or they are too deep."""
        before = self._room
        self._room -= 1 + len(path) // _PATH_LENGTH
        if self._room < 0 <= before:
            self._refuse(
                line, "", f"stands for more than {_MOST_VALUES:,} values", "use fewer aliases (*name)"
            )
        if self._room < 0:
            return None
        if depth > _MOST_DEEP:
            self._refuse(
                line, "", "holds itself, or is nested too deeply", "write it without aliases (*name)"
            )
            self._room = -1
            return None
        self.lines[path] = line
        if isinstance(node, yaml.MappingNode) and node.tag == f"{_TAG}map":
            return self._mapping(node, path, line, depth)
        if isinstance(node, yaml.SequenceNode) and node.tag == f"{_TAG}seq":
            return [
                self.value(item, f"{path}[{i}]", _line_of(item), depth + 1)
                for i, item in enumerate(node.value)
            ]
        return self._scalar(node, path, line)

    def _mapping(self, node: yaml.MappingNode, path: str, line: int, depth: int) -> dict[str, Any]:
        data = self._merged(node, path, line, depth)
        seen: dict[str, int] = {}
        for key, item in node.value:
            place = _line_of(key)
            if not isinstance(key, yaml.ScalarNode):
                self._refuse(place, path, "has a key that is not a word", "write key: value")
                continue
            name = self._text(key.value, path, place)
            if name in seen:
                self._refuse(place, _join(path, name), f"stands in line {seen[name]} too", "keep one of them")
                continue
            seen[name] = place
            if not _merges(key):
                data[name] = self.value(item, _join(path, name), place, depth + 1)
        return data

    def _merged(self, node: yaml.MappingNode, path: str, line: int, depth: int) -> dict[str, Any]:
        """What the merge keys (`<<: *name`) of a mapping bring in; of several mappings the first counts."""
        data: dict[str, Any] = {}
        for item in (item for key, item in node.value if _merges(key)):
            parts = item.value[::-1] if isinstance(item, yaml.SequenceNode) else [item]
            for part in parts:
                brought = self.value(part, path, line, depth + 1)
                if isinstance(brought, dict):
                    data.update(brought)
                elif self._room >= 0:
                    self._refuse(_line_of(part), path, "merges what is not a mapping", "write <<: *name")
        return data

    def _scalar(self, node: yaml.Node, path: str, line: int) -> Any:
        kind = node.tag.removeprefix(_TAG)
        if not isinstance(node, yaml.ScalarNode) or kind not in ("str", "null", "bool", "int", "float"):
            self._refuse(line, path, f"has the tag {node.tag}", "leave the tag out")
            return None
        text = self._text(node.value, path, line)
        try:
            return _plain(kind, text)
        except ValueError as error:
            self._refuse(line, path, f"cannot be read ({error})", "write it plainly")
            return None

    def _text(self, text: str, path: str, line: int) -> str:
        try:
            text.encode()
        except UnicodeEncodeError:
            self._refuse(line, path, "holds half a character", "write the whole character")
            return ""
        return text

    def _refuse(self, line: int, path: str, problem: str, remedy: str) -> None:
        self.faults.add(_place(line, path), None, problem, remedy)


def _nodes(text: str, faults: Faults) -> list[yaml.Node]:
    """The root node of each document; a fault, and none, where the text is not YAML."""
    try:
        return list(yaml.compose_all(text, Loader=_Loader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = error.problem or error.context or "it breaks the grammar"
        faults.add(place, None, f"is not YAML ({problem})", "correct the file there")
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        faults.add(_place(line, ""), None, "holds a character that YAML forbids", "remove it, or escape it")
    except RecursionError:
        faults.add("", None, "is nested too deeply", "write it with fewer brackets")
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        faults.add("", None, f"cannot be read as YAML ({' '.join(str(error).split())})", "write it plainly")
    return []


def _plain(kind: str, text: str) -> Any:
    if kind == "null":
        return None
    if kind == "int":
        return int(text)
    if kind == "float":
        word = text.lower().replace(".inf", "inf").replace(".nan", "nan")
        return float(word)
    return text.lower() == "true" if kind == "bool" else text


def _addressed(documents: Sequence[Document], key: str) -> tuple[int, str]:
    """The number of the document that a key is for, and the key there."""
    name, colon, rest = key.partition(":")
    for number, document in enumerate(documents):
        if colon and isinstance(document.data, dict) and document.data.get("name") == name:
            return number, rest
    return len(documents) - 1, key


def _with_value(document: Document, key: str, text: str, faults: Faults) -> Document:
    own = Faults(file=faults.file)
    given = read_documents(text, own)
    place = f"--set {key}"
    if own.found or len(given) != 1:
        faults.add(place, text, "is not one YAML value", "write a number, a word, or [a, list]")
        return document
    steps = re.sub(r"\[(\d+)\]", r".\1", key).split(".")
    holder, path = document.data, ""
    for step in steps[:-1]:
        if not _holds(holder, step):
            break
        holder, path = holder[_index(holder, step)], _below(holder, path, step)
    else:
        step = steps[-1]
    if not _holds(holder, step):
        faults.add(place, None, "does not exist in the file", _nearest(path, holder, step))
        return document
    holder[_index(holder, step)] = given[0].data
    path = _below(holder, path, step)
    lines = {p: line for p, line in document.lines.items() if not _within(p, path)}
    return Document(data=document.data, lines={**lines, path: None})


def _holds(holder: object, step: str) -> bool:
    if isinstance(holder, list):
        return step.isdecimal() and len(step) < 9 and int(step) < len(holder)
    return isinstance(holder, dict) and step in holder


def _index(holder: object, step: str) -> Any:
    return int(step) if isinstance(holder, list) else step


def _below(holder: object, path: str, step: str) -> str:
    return f"{path}[{int(step)}]" if isinstance(holder, list) else _join(path, step)


def _nearest(path: str, holder: object, step: str) -> str:
    """What stands where a step of a key leads nowhere."""
    there = path or "the file"
    if isinstance(holder, list):
        return f"{there} has the indices 0 to {len(holder) - 1}" if holder else f"{there} is empty"
    if not isinstance(holder, dict):
        return f"{there} is a single value"
    near = difflib.get_close_matches(step, list(holder), n=1)
    dotted = re.sub(r"\[(\d+)\]", r".\1", _join(path, near[0])) if near else ""
    return f"did you mean {dotted}?" if near else f"{there} has the keys {', '.join(holder) or 'none'}"


def _within(path: str, outer: str) -> bool:
    return path == outer or path.startswith((f"{outer}.", f"{outer}["))


def _merges(key: yaml.Node) -> bool:
    return isinstance(key, yaml.ScalarNode) and key.style is None and key.value == _MERGE


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _place(line: int | None, path: str) -> str:
    shown = "--set" if line is None else f"line {line}"
    return f"{shown}: {path}" if path else shown


def _line_of(node: yaml.Node) -> int:
    line: int = node.start_mark.line + 1
    return line
