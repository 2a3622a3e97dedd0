"""A checkpoint on this machine, by the library transformers: greedy text, or the likeliest letter.

One question at a time; the model is loaded when the engine is opened and stays in memory until it is closed.
Nothing is fetched from a network.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from modelyard.core.digests import digest_path
from modelyard.core.errors import EngineError
from modelyard.core.faults import Section
from modelyard.results.engines import THIS_MACHINE, Question, Reply
from modelyard.results.engines.letters import likeliest_of

_DEFAULTS = {"max_new_tokens": 256, "do_sample": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformersSettings:
    """See `EngineSettings`."""

    by_example: ClassVar[bool] = False
    lane: ClassVar[str] = THIS_MACHINE
    secrets: ClassVar[tuple[str, ...]] = ()
    checkpoint: Path
    digest: str
    # Handed to `generate`.
    options: Mapping[str, Any] = field(default_factory=dict)
    # What the weights are computed in; by default what they are stored in.
    dtype: str = "auto"
    device: str = "cpu"

    @property
    def identity(self) -> Mapping[str, Any]:
        """The checkpoint's content and how it decodes; not where it lies or on what it runs."""
        options = {**_DEFAULTS, **self.options}
        return {"engine": "transformers", "digest": self.digest, "options": options, "dtype": self.dtype}

    @classmethod
    def read(cls, section: Section, folder: Path) -> TransformersSettings:
        """The keys checkpoint (a folder), options, dtype and device."""
        path = folder / section.text("checkpoint")
        there = (path / "config.json").is_file()
        if section.has("checkpoint") and not there:
            section.faults.add(
                section.key("checkpoint"), str(path), "is no folder with a config.json", "give a checkpoint",
                here=True,
            )  # fmt: skip
        return cls(
            checkpoint=path,
            digest=digest_path(path) if there else "",
            options=section.scalars("options"),
            dtype=section.text("dtype", "auto"),
            device=section.text("device", "cpu"),
        )

    def open(self, environment: Mapping[str, str]) -> TransformersEngine:
        """Load the checkpoint."""
        try:
            from transformers import AutoModelForCausalLM, AutoTokenizer
        except ImportError as error:
            raise EngineError(
                f"the engine transformers needs {error.name}; pip install 'modelyard[transformers]'"
            ) from error
        try:
            tokenizer = AutoTokenizer.from_pretrained(self.checkpoint, local_files_only=True)
            model: Any = AutoModelForCausalLM.from_pretrained(
                self.checkpoint, local_files_only=True, dtype=self.dtype
            )
            model = model.to(self.device).eval()
        except Exception as error:  # whatever a model's own code raises
            raise EngineError(
                f"{self.checkpoint}: cannot be loaded ({error}); mend the checkpoint"
            ) from error
        return TransformersEngine(self, tokenizer, model)


class TransformersEngine:
    """See `Engine`."""

    def __init__(self, settings: TransformersSettings, tokenizer: Any, model: Any) -> None:
        self._settings, self._tokenizer, self._model = settings, tokenizer, model
        self._lock = threading.Lock()

    def request(self, question: Question) -> Mapping[str, Any]:
        """The text that the model continues, and how."""
        options = {**_DEFAULTS, **self._settings.options}
        return {"text": self._text(question), "letters": list(question.letters), "options": options}

    def ask(self, question: Question, key: str) -> Reply:
        """See `Engine`."""
        begun = time.monotonic()
        with self._lock:
            try:
                text, lengths = self._letter(question) if question.letters else self._continuation(question)
            except (RuntimeError, ValueError, IndexError, TypeError) as error:  # too long, odd options ...
                return Reply(error=f"{type(error).__name__}: {str(error)[:300]}")
        told = {"prompt_tokens": lengths[0], "completion_tokens": lengths[1]}
        return Reply(
            text=text,
            error="" if text is not None else "no letter is among the likeliest tokens",
            latency_s=time.monotonic() - begun,
            **told,  # type: ignore[arg-type]  # two integers
        )

    def close(self) -> None:
        """See `Engine`."""
        self._model = None

    def _text(self, question: Question) -> str:
        """With the model's chat template where it has one."""
        if not self._tokenizer.chat_template:
            return question.text()
        from jinja2 import TemplateError

        try:
            text: str = self._tokenizer.apply_chat_template(
                question.chat(), tokenize=False, add_generation_prompt=True
            )
        except TemplateError as error:  # it has no place for a system's message, say
            raise ValueError(f"the chat template refuses: {error}") from error
        return text

    def _tokens(self, question: Question) -> Any:
        # a chat template writes its special tokens itself
        bare = bool(self._tokenizer.chat_template)
        tokens = self._tokenizer(self._text(question), return_tensors="pt", add_special_tokens=not bare)
        return tokens.to(self._settings.device)

    def _continuation(self, question: Question) -> tuple[str, tuple[int, int]]:
        import torch

        tokens = self._tokens(question)
        torch.manual_seed(question.sample)
        with torch.inference_mode():
            made_bt = self._model.generate(
                input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"],
                pad_token_id=self._tokenizer.pad_token_id or self._tokenizer.eos_token_id or 0,
                **{**_DEFAULTS, **self._settings.options},
            )  # fmt: skip
        asked = tokens["input_ids"].shape[1]
        text: str = self._tokenizer.decode(made_bt[0, asked:], skip_special_tokens=True)
        return text.strip(), (asked, made_bt.shape[1] - asked)

    def _letter(self, question: Question) -> tuple[str | None, tuple[int, int]]:
        import torch

        tokens = self._tokens(question)
        with torch.inference_mode():
            logits_btv = self._model(
                input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
            ).logits
        letter = likeliest_of(question.letters, logits_btv[0, -1], self._tokenizer.decode)
        return letter, (tokens["input_ids"].shape[1], 1)
