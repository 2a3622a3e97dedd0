"""The engine `heads` of evaluations: a checkpoint of this machine with its heads, or without.

In float32 its greedy answers are those of plain decoding, token for token, so that what is measured of them
holds for what is served. One question at a time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from modelyard.core.digests import digest_json, digest_path
from modelyard.core.errors import CheckpointError, EngineError, HeadsError
from modelyard.core.faults import Section
from modelyard.heads.config import DTYPE_NAMES
from modelyard.results.engines import THIS_MACHINE, Question, Reply
from modelyard.results.engines.letters import likeliest_of

if TYPE_CHECKING:
    from modelyard.heads.decoding.decoder import Decoder
    from modelyard.heads.decoding.settings import DecodeSettings

#: Files beside the weights that change what is asked and answered: tokenizer, template, configs.
_BESIDE = ("*.json", "*.jinja", "*.model", "*.txt")


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadsSettings:
    """See `EngineSettings`."""

    by_example: ClassVar[bool] = False
    lane: ClassVar[str] = THIS_MACHINE
    secrets: ClassVar[tuple[str, ...]] = ()
    base: Path
    # None decodes plainly, by the same loop.
    heads: Path | None
    base_digest: str
    heads_digest: str
    # Of `DecodeSettings`.
    options: Mapping[str, Any] = field(default_factory=dict)
    dtype: str = "float32"
    device: str = "cpu"

    @property
    def identity(self) -> Mapping[str, Any]:
        """What the base is, the heads' content, how it decodes; not where they lie or on what they run."""
        return {
            "engine": "heads", "base": self.base_digest, "heads": self.heads_digest,
            "options": dict(self.options), "dtype": self.dtype,
        }  # fmt: skip

    @classmethod
    def read(cls, section: Section, folder: Path) -> HeadsSettings:
        """The keys base and heads (folders), options, dtype and device."""
        base = folder / section.text("base")
        named = section.optional_text("heads")
        heads = None if named is None else folder / named
        options = section.scalars("options")
        _check_options(options, section)
        return cls(
            base=base,
            heads=heads,
            base_digest=_base_digest(base, section),
            heads_digest=_heads_digest(heads, section),
            options=options,
            dtype=section.choice("dtype", "float32", DTYPE_NAMES),
            device=section.text("device", "cpu"),
        )

    def decoding(self, sample: int) -> DecodeSettings:
        """How a question is decoded when it is asked for the so-manieth time, from 0."""
        return _decoding(self.options, sample=sample)

    def open(self, environment: Mapping[str, str]) -> HeadsEngine:
        """Load base and heads."""
        try:
            from modelyard.heads.decoding.decoder import open_decoder
        except ImportError as error:
            raise EngineError(
                f"the engine heads needs {error.name}; pip install 'modelyard[heads]'"
            ) from error
        try:
            decoder = open_decoder(self.base, self.heads, dtype=self.dtype, device=self.device)
        except (HeadsError, CheckpointError) as error:
            raise EngineError(str(error)) from error
        return HeadsEngine(self, decoder)


class HeadsEngine:
    """See `Engine`."""

    def __init__(self, settings: HeadsSettings, decoder: Decoder) -> None:
        self._settings = settings
        self._open: Decoder | None = decoder
        self._lock = threading.Lock()

    def request(self, question: Question) -> Mapping[str, Any]:
        """The tokens that the model continues, and how."""
        return {
            "tokens": self._ids(question), "letters": list(question.letters),
            "options": dict(self._settings.options), "sample": question.sample,
        }  # fmt: skip

    def ask(self, question: Question, key: str) -> Reply:
        """See `Engine`."""
        begun = time.monotonic()
        with self._lock:
            try:
                return self._letter(question, begun) if question.letters else self._text(question, begun)
            except (HeadsError, RuntimeError, ValueError, IndexError, TypeError) as error:  # too long ...
                return Reply(error=f"{type(error).__name__}: {str(error)[:300]}")

    def close(self) -> None:
        """See `Engine`."""
        self._open = None

    @property
    def _decoder(self) -> Decoder:
        if self._open is None:
            raise EngineError(f"{self._settings.base}: the engine is closed; open it again")
        return self._open

    def _ids(self, question: Question) -> list[int]:
        """With the model's chat template where it has one."""
        from modelyard.heads.turns import Turns

        turns = Turns(self._decoder.base.tokenizer)
        if turns.templated:
            return turns.rendered(question.chat(), answer_next=True)
        return turns.asked(question.text())

    def _text(self, question: Question, begun: float) -> Reply:
        ids = self._ids(question)
        decoded = self._decoder.generate(ids, self._settings.decoding(question.sample))
        return Reply(
            text=decoded.text.strip(), prompt_tokens=len(ids), completion_tokens=len(decoded.tokens),
            latency_s=time.monotonic() - begun,
        )  # fmt: skip

    def _letter(self, question: Question, begun: float) -> Reply:
        import torch

        ids, base = self._ids(question), self._decoder.base
        with torch.inference_mode():
            hidden_bnh = base.hidden(torch.tensor([ids], device=base.device), use_cache=False)
            letter = likeliest_of(question.letters, base.logits(hidden_bnh[0, -1]), base.tokenizer.decode)
        return Reply(
            text=letter, error="" if letter else "no letter is among the likeliest tokens",
            prompt_tokens=len(ids), completion_tokens=1, latency_s=time.monotonic() - begun,
        )  # fmt: skip


def _check_options(options: Mapping[str, Any], section: Section) -> None:
    """Note a fault for an option that there is not, or for values that do not go together."""
    if not options:
        return  # without torch
    try:
        _decoding(options, sample=0)
    except (HeadsError, TypeError) as error:
        section.faults.add(section.key("options"), None, str(error), f"give any of {', '.join(_known())}")
    except ImportError:  # told when the engine is opened
        return


def _known() -> list[str]:
    from modelyard.heads.decoding.settings import DecodeSettings

    return [each.name for each in fields(DecodeSettings)]


def _decoding(options: Mapping[str, Any], *, sample: int) -> DecodeSettings:
    from modelyard.heads.decoding.settings import DecodeSettings

    told = dict(options)
    if "stop" in told:
        told["stop"] = (str(told["stop"]),)
    told["seed"] = int(told.get("seed", 0)) + sample
    return DecodeSettings(**told)


def _base_digest(base: Path, section: Section) -> str:
    """Weights by their fingerprint, all else that can change an answer by its content."""
    if not section.has("base"):
        return ""
    if not (base / "config.json").is_file():
        section.faults.add(
            section.key("base"), str(base), "is no folder with a config.json", "give a checkpoint", here=True
        )
        return ""
    from modelyard.heads.fingerprint import fingerprint

    beside = sorted({path for pattern in _BESIDE for path in base.glob(pattern)})
    try:
        weights = fingerprint(base)
    except CheckpointError as error:
        section.faults.add(section.key("base"), str(base), str(error), "give a checkpoint", here=True)
        return ""
    return digest_json({"weights": weights, "beside": {path.name: digest_path(path) for path in beside}})


def _heads_digest(heads: Path | None, section: Section) -> str:
    if heads is None:
        return ""
    from modelyard.heads.config import RECORD

    if not (heads / RECORD).is_file():
        section.faults.add(
            section.key("heads"), str(heads), f"is no folder with a {RECORD}", "train or import heads",
            here=True,
        )  # fmt: skip
        return ""
    return digest_path(heads)
