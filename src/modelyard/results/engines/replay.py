"""Answers that were recorded before, as a model: JSON lines as an evaluation leaves them in answers.jsonl."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from modelyard.core.digests import digest_path
from modelyard.core.errors import EngineError
from modelyard.core.faults import Section
from modelyard.results.engines import Question, Reply

_NUMBERS = ("prompt_tokens", "completion_tokens", "latency_s", "cost_usd", "confidence")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaySettings:
    """See `EngineSettings`."""

    by_example: ClassVar[bool] = True
    secrets: ClassVar[tuple[str, ...]] = ()
    path: Path
    digest: str
    # The model in the file; other models' lines are left out.
    model: str

    @property
    def identity(self) -> Mapping[str, Any]:
        """The file's content and the model in it."""
        return {"engine": "replay", "digest": self.digest, "model": self.model}

    @property
    def lane(self) -> str:
        """Reading a file takes nothing from others."""
        return str(self.path)

    @classmethod
    def read(cls, section: Section, folder: Path) -> ReplaySettings:
        """The keys answers (the file) and model (by default the entry's name)."""
        path = folder / section.text("answers")
        digest = digest_path(path) if path.is_file() else ""
        if section.has("answers") and not digest:
            section.faults.add(
                section.key("answers"), str(path), "is not there", "give a file of answers", here=True
            )
        return cls(
            path=path, digest=digest, model=section.text("model", str(section.data.get("name") or "") or None)
        )

    def open(self, environment: Mapping[str, str]) -> ReplayEngine:
        """Read the file."""
        return ReplayEngine(self, _recorded(self))


@dataclass(frozen=True, slots=True)
class ReplayEngine:
    """See `Engine`."""

    settings: ReplaySettings
    # By example and sample.
    replies: Mapping[tuple[str, int], Reply] = field(default_factory=dict)

    def request(self, question: Question) -> Mapping[str, Any]:
        """Which line is looked up."""
        key = {"example_id": question.example_id, "sample": question.sample}
        return {"answers": str(self.settings.path), "model": self.settings.model, **key}

    def ask(self, question: Question, key: str) -> Reply:
        """See `Engine`; what was not recorded is no answer."""
        reply = self.replies.get((question.example_id, question.sample))
        return reply or Reply(error=f"{self.settings.path.name} has no answer to it")

    def close(self) -> None:
        """See `Engine`."""


def _recorded(settings: ReplaySettings) -> dict[tuple[str, int], Reply]:
    found: dict[tuple[str, int], Reply] = {}
    try:
        lines = settings.path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise EngineError(f"{settings.path}: cannot be read ({error}); give answers as JSON lines") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            if record.get("model", settings.model) != settings.model:
                continue
            key = (str(record["example_id"]), int(record.get("sample", 0)))
            told = {name: _number(record, name) for name in _NUMBERS}
            found[key] = Reply(text=_text(record, "text"), error=_text(record, "error") or "", **told)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise EngineError(
                f"{settings.path}: line {number}: is no answer ({error!r}); "
                'write {"model": …, "example_id": …, "text": …}'
            ) from error
    return found


def _text(record: Mapping[str, Any], name: str) -> str | None:
    value = record.get(name)
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{name} is no text")
    return value


def _number(record: Mapping[str, Any], name: str) -> Any:
    value = record.get(name)
    kind = int if name.endswith("tokens") else int | float
    if value is not None and (isinstance(value, bool) or not isinstance(value, kind)):
        raise TypeError(f"{name} is no number")
    return value
