"""Overlap of a pack with training data: items that a model may have learned by heart.

An item is found `exact` where every message that it asks (system messages apart) stands in the data as a
text of its own: a string of a JSON value, or a line of a text file. It is found by `ngram` where thirteen
words in a row are the same (Brown et al. 2020, appendix C); an item of fewer words, where all of them are;
one of fewer than four words is looked for as a text only. Case, punctuation and spaces do not count. What
more than half of the items say alike is their template and tells nothing.

The data is read as a stream: memory goes with the pack, not with the data.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelyard.core.digests import digest_path
from modelyard.core.errors import EvidenceError
from modelyard.results.examples import Example

NGRAM_WORDS = 13
_LEAST_WORDS = 4
#: Fewer items than these have no template in common.
_LEAST_ITEMS = 4
_WORD = re.compile(r"\w+|[+*/=<>^%]|-(?=\s*\d)")
_JSON_LINES, _JSON = (".jsonl", ".ndjson"), (".json",)
#: The suffixes of files among a run's inputs that are read as training data.
_READ = (*_JSON_LINES, *_JSON, ".txt", ".text", ".md", ".csv", ".tsv")


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """What of a pack stands in the data; no item is in both."""

    exact: tuple[str, ...]
    ngram: tuple[str, ...]
    # Path and digest of each file.
    checked: tuple[tuple[str, str], ...]

    @property
    def found(self) -> bool:
        """Whether any item was."""
        return bool(self.exact or self.ngram)

    def record(self) -> dict[str, Any]:
        """As a report has it."""
        files = [{"path": path, "digest": digest} for path, digest in self.checked]
        return {"exact": len(self.exact), "ngram": len(self.ngram), "checked": files}


def find_overlap(items: Sequence[Example], files: Sequence[Path]) -> Overlap:
    """Which of the items stand in the files.

    Args:
        items: Of a pack.
        files: JSON lines, JSON, or else plain text in UTF-8, told apart by their suffixes.

    Raises:
        EvidenceError: A file cannot be read.
    """
    search = _Search(items)
    checked = []
    for path in files:
        try:
            for run in _runs(path):
                search.look(run)
            checked.append((str(path.absolute()), digest_path(path)))
        except (OSError, UnicodeDecodeError) as error:
            raise EvidenceError(
                f"{path}: training data cannot be read as UTF-8 text ({error}); give it as JSON lines or text"
            ) from error
    exact = search.exact()
    ngram = tuple(item.id for item in items if item.id in search.shared and item.id not in exact)
    return Overlap(exact=exact, ngram=ngram, checked=tuple(checked))


def data_files(inputs: Iterable[Path]) -> tuple[Path, ...]:
    """Those of a run's inputs, and of the files in its folders, that can be read as training data."""
    found: dict[Path, None] = {}
    for path in inputs:
        for each in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if each.suffix.lower() in _READ and each.is_file():
                found[each.absolute()] = None
    return tuple(found)


def words_of(text: str) -> list[str]:
    """The words of a text, and the signs of sums, whatever their case."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


@dataclass(slots=True)
class _Search:
    """What is looked for, and what was found of it."""

    items: Sequence[Example]
    # Ids of items by an n-gram of theirs, and the lengths of n-grams by their first words.
    grams: dict[str, list[str]] = field(default_factory=dict)
    lengths: dict[str, set[int]] = field(default_factory=dict)
    # Each message's words, and those of them that were found.
    wanted: set[str] = field(default_factory=set)
    found: set[str] = field(default_factory=set)
    shared: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        told = {item.id: _grams(item) for item in self.items}
        counts = Counter(gram for grams in told.values() for gram in grams)
        most = max(len(self.items) / 2, _LEAST_ITEMS)
        for item in self.items:
            self.wanted.update(_messages(item))
            for gram in told[item.id]:
                if counts[gram] > most:
                    continue
                words = gram.split(" ")
                self.grams.setdefault(gram, []).append(item.id)
                self.lengths.setdefault(" ".join(words[:_LEAST_WORDS]), set()).add(len(words))

    def look(self, run: Iterable[str]) -> None:
        """Read texts that follow one another; n-grams may begin in one and end in the next."""
        before: list[str] = []
        for text in run:
            said = words_of(text)
            if (whole := " ".join(said)) in self.wanted:
                self.found.add(whole)
            words = before + said
            for i in range(len(words) - _LEAST_WORDS + 1):
                for length in self.lengths.get(" ".join(words[i : i + _LEAST_WORDS]), ()):
                    self.shared.update(self.grams.get(" ".join(words[i : i + length]), ()))
            before = words[-(NGRAM_WORDS - 1) :]

    def exact(self) -> tuple[str, ...]:
        """The items all of whose messages were found."""
        return tuple(
            item.id for item in self.items if (asked := _messages(item)) and set(asked) <= self.found
        )


def _messages(item: Example) -> list[str]:
    """The words of each message that asks something, as one text."""
    texts = [content for role, content in item.messages if role != "system"] or [item.prompt]
    return [said for text in texts if (said := " ".join(words_of(text)))]


def _grams(item: Example) -> set[str]:
    """The n-grams that give an item away."""
    words = " ".join(_messages(item)).split(" ")
    if len(words) < _LEAST_WORDS:
        return set()
    size = min(len(words), NGRAM_WORDS)
    return {" ".join(words[i : i + size]) for i in range(len(words) - size + 1)}


def _runs(path: Path) -> Iterator[Iterable[str]]:
    """The texts of a file, in runs of texts that follow one another."""
    suffix = path.suffix.lower()
    if suffix in _JSON:
        yield from ([text] for text in _strings(path.read_text(encoding="utf-8-sig")))
        return
    with path.open(encoding="utf-8-sig") as file:
        if suffix in _JSON_LINES:
            for line in file:
                yield from ([text] for text in _strings(line))
        else:
            yield file


def _strings(text: str) -> Iterator[str]:
    """The strings in a JSON value; the text itself where it is none."""
    try:
        left = [json.loads(text)]
    except (ValueError, RecursionError):
        yield text
        return
    while left:
        value = left.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            left.extend(value.values())
        elif isinstance(value, list):
            left.extend(value)
