"""The provider's ledger: what it bills, one JSON line for each request that it answered or broke off."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import orjson


class Ledger:
    """Totals in memory, and lines in a file where one is named. One thread."""

    def __init__(self, path: Path | None, *, batch: int = 1) -> None:
        self._file = None if path is None else os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._batch, self._held = batch, bytearray()
        self._lines = 0
        self._models: dict[str, list[int]] = {}

    def note(self, line: dict[str, Any]) -> None:
        """Record a request; the line is in the file when this returns, unless lines are batched."""
        if line["billed"]:
            total = self._models.get(line["model"]) or self._models.setdefault(line["model"], [0, 0, 0])
            total[0] += 1
            total[1] += line["prompt_tokens"]
            total[2] += line["completion_tokens"]
        if self._file is None:
            return
        self._held += orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
        self._lines += 1
        if self._lines >= self._batch:
            self.flush()

    def flush(self) -> None:
        """Write what is held, in one piece."""
        if self._file is not None and self._held:
            os.write(self._file, self._held)
            self._held, self._lines = bytearray(), 0

    def totals(self) -> dict[str, Any]:
        """What was billed, in all and by model."""
        names = ("requests", "prompt_tokens", "completion_tokens")
        by_model = {model: dict(zip(names, total, strict=True)) for model, total in self._models.items()}
        return {**{name: sum(each[name] for each in by_model.values()) for name in names}, "models": by_model}
