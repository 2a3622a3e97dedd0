"""Data from the base alone: it writes the requests and the answers (Magpie, arXiv 2406.08464, section 2.1).

After the beginning of the user's turn in its chat template a tuned model writes a request; then it answers.
A base without a chat template writes a text from the opening of a topic on, and answers the first half of it.
Every batch has random numbers of its own, and a file beside the data says up to which byte batches are whole,
so that a run which was killed writes the same file as one that was not.
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from modelyard.core.digests import digest_json
from modelyard.core.errors import HeadsError
from modelyard.core.failpoints import failpoint
from modelyard.core.faults import json_section
from modelyard.core.files import write_json
from modelyard.heads.base import Base
from modelyard.heads.learning.topics import DEFAULT_TOPICS, Topic
from modelyard.heads.turns import Turns, vocabulary_digest

SCHEMA = "modelyard.self_distillation/1"
#: So many batches one after another that give nothing, and the base is no good for this.
_EMPTY_BATCHES = 8
_GRAM, _LEAST_DISTINCT = 4, 0.4
_LEAST_PROMPT_CHARS, _LEAST_ANSWER_TOKENS = 12, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class DistilSettings:
    """How a base writes its data."""

    # Whole batches are written until the answers hold so many tokens.
    answer_tokens: int
    # Conversations at a time.
    batch: int = 32
    most_prompt_tokens: int = 96
    most_answer_tokens: int = 256
    prompt_temperature: float = 1.0
    # Tokens less likely than this share of the likeliest are not drawn (arXiv 2407.01082); cheaper than
    # top-p, which sorts the whole vocabulary for every row.
    prompt_min_p: float = 0.05
    # 0 takes the likeliest token.
    answer_temperature: float = 0.3
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Distilled:
    """How far the writing is."""

    batches: int = 0
    conversations: int = 0
    answer_tokens: int = 0
    # Where whole batches end in the file.
    bytes: int = 0
    # What was left out, by reason.
    dropped: Mapping[str, int] = field(default_factory=dict)


Told = Callable[[Distilled], None]


def self_distil(
    base: Base,
    path: Path,
    settings: DistilSettings,
    *,
    topics: Sequence[Topic] = DEFAULT_TOPICS,
    observe: Told = lambda _: None,
) -> Distilled:
    """Let the base write conversations to `path`, one JSON object a line, until there are enough.

    A file that an earlier call with the same settings began is gone on with; one that holds enough is left
    alone.

    Raises:
        HeadsError: The base writes nothing of use, or the file is another's.
    """
    asked = _asked(base, settings, topics)
    standing = _standing(path, asked)
    empty = 0
    _record(path, asked, standing)  # before the first line, so that a file without it is another's
    with path.open("r+b" if path.exists() else "w+b") as file:
        file.truncate(standing.bytes)
        writer = _Writer(base=base, settings=settings, topics=topics, known=_known(file))
        observe(standing)
        while standing.answer_tokens < settings.answer_tokens:
            rows, dropped = writer.batch(standing.batches)
            empty = 0 if rows else empty + 1
            if empty == _EMPTY_BATCHES:
                raise HeadsError(
                    f"{base.folder}: of the last {empty * settings.batch} requests that it wrote none was of"
                    f" use ({_reasons(dropped)}); give topics of its own, or data instead"
                )
            file.seek(standing.bytes)
            file.write(b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows))
            file.flush()
            os.fsync(file.fileno())
            failpoint("heads.after_conversations")
            standing = _further(standing, rows, dropped, end=file.tell())
            _record(path, asked, standing)
            failpoint("heads.after_batch_recorded")
            observe(standing)
    return standing


def _asked(base: Base, settings: DistilSettings, topics: Sequence[Topic]) -> str:
    """What is written, however much of it."""
    return digest_json(
        {
            "base": base.fingerprint,
            "dtype": str(base.dtype),
            "vocabulary": vocabulary_digest(base.tokenizer),
            "topics": [asdict(topic) for topic in topics],
            "settings": {k: v for k, v in asdict(settings).items() if k != "answer_tokens"},
        }
    )


def _state_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.state.json")


def _record(path: Path, asked: str, standing: Distilled) -> None:
    write_json(_state_path(path), {"schema": SCHEMA, "asked": asked, **asdict(standing)})


def _standing(path: Path, asked: str) -> Distilled:
    """What an earlier call left; nothing where there was none."""
    state = _state_path(path)
    if not state.is_file():
        if path.exists() and path.stat().st_size:
            raise HeadsError(
                f"{path}: is there already and {state.name} is not; give a path that is free,"
                " or the file as --data"
            )
        return Distilled()
    section = json_section(state)
    if section.raw("asked") != asked:
        raise HeadsError(
            f"{path}: was written by another base or with other settings; give a path that is free"
        )
    dropped = section.raw("dropped", {})
    standing = Distilled(
        batches=section.integer("batches", None, low=0),
        conversations=section.integer("conversations", None, low=0),
        answer_tokens=section.integer("answer_tokens", None, low=0),
        bytes=section.integer("bytes", None, low=0),
        dropped=dropped if isinstance(dropped, dict) else {},
    )
    section.faults.raise_if_any()
    if standing.bytes and not (path.exists() and path.stat().st_size >= standing.bytes):
        raise HeadsError(
            f"{path}: is shorter than the {standing.bytes} bytes that {state.name} tells of; remove both"
        )
    return standing


def _known(file: Any) -> set[str]:
    file.seek(0)
    return {_prompt_key(json.loads(line)["prompt"]) for line in file}


def _further(
    before: Distilled, rows: Sequence[Mapping[str, Any]], dropped: Counter[str], *, end: int
) -> Distilled:
    return replace(
        before,
        batches=before.batches + 1,
        conversations=before.conversations + len(rows),
        answer_tokens=before.answer_tokens + sum(len(row["tokens"]) - row["learn_from"] for row in rows),
        bytes=end,
        dropped=dict(sorted((Counter(before.dropped) + dropped).items())),
    )


def _reasons(dropped: Mapping[str, int]) -> str:
    return ", ".join(f"{reason}: {count}" for reason, count in sorted(dropped.items()))


@dataclass(kw_only=True)
class _Writer:
    """Writes batches; `known` are the requests that stand already."""

    base: Base
    settings: DistilSettings
    topics: Sequence[Topic]
    known: set[str]

    def batch(self, number: int) -> tuple[list[dict[str, Any]], Counter[str]]:
        """The conversations of one batch, and how many were left out for which reason."""
        settings, dropped = self.settings, Counter[str]()
        chance = random.Random(f"{settings.seed}/{number}")
        topics = chance.choices(self.topics, k=settings.batch)
        devices = [self.base.device] if self.base.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), torch.inference_mode():
            torch.manual_seed(chance.getrandbits(63))
            prompts = list(self._prompts(topics, dropped))
            rows = list(self._answers(prompts, dropped)) if prompts else []
        return [{"batch": number, **row} for row in rows], dropped

    def _prompts(self, topics: Sequence[Topic], dropped: Counter[str]) -> Iterator[tuple[str, str]]:
        """Requests of use, each with its kind."""
        settings, turns = self.settings, Turns(self.base.tokenizer)
        starts = [turns.opened(topic.system, topic.opening) for topic in topics]
        written = self._written(
            starts, settings.most_prompt_tokens, (settings.prompt_temperature, settings.prompt_min_p)
        )
        for topic, start, whole in zip(topics, starts, written, strict=True):
            # of a text that may be at its end the first half, so that there is a rest
            tokens = whole if turns.templated else whole[: -(-len(whole) // 2)]
            prompt, ended = turns.request(topic.opening, start, tokens)
            reason = _useless(prompt, tokens)
            if turns.templated and not (ended or self._ended(tokens)):
                reason = "request without end"
            if not reason and _prompt_key(prompt) in self.known:
                reason = "request known"
            if reason:
                dropped[reason] += 1
                continue
            self.known.add(_prompt_key(prompt))
            yield topic.kind, prompt

    def _answers(self, prompts: Sequence[tuple[str, str]], dropped: Counter[str]) -> Iterator[dict[str, Any]]:
        settings, turns = self.settings, Turns(self.base.tokenizer)
        starts = [turns.asked(prompt) for _, prompt in prompts]
        answers = self._written(starts, settings.most_answer_tokens, (settings.answer_temperature, 0.0))
        vocabulary = vocabulary_digest(self.base.tokenizer)
        for (kind, prompt), start, tokens in zip(prompts, starts, answers, strict=True):
            if len(tokens) < _LEAST_ANSWER_TOKENS or _repeats(tokens):
                dropped["answer short" if len(tokens) < _LEAST_ANSWER_TOKENS else "answer repetitive"] += 1
                continue
            yield {
                "kind": kind,
                "prompt": prompt,
                "completion": self.base.tokenizer.decode(tokens, skip_special_tokens=True),
                "tokens": [*start, *tokens],
                "learn_from": len(start),
                "ended": self._ended(tokens),
                "vocabulary": vocabulary,
            }

    def _ended(self, tokens: Sequence[int]) -> bool:
        return bool(tokens) and tokens[-1] in self.base.end_tokens

    def _written(
        self, starts: Sequence[Sequence[int]], most: int, sampling: tuple[float, float]
    ) -> list[list[int]]:
        """What the base writes after each start, up to a token of the end, that included."""
        from transformers import GenerationConfig

        width, ends = max(map(len, starts)), sorted(self.base.end_tokens)
        pad = self.base.tokenizer.pad_token_id
        pad = pad if pad is not None else (ends[0] if ends else 0)
        ids_bn = torch.tensor([[pad] * (width - len(start)) + list(start) for start in starts])
        mask_bn = torch.tensor([[0] * (width - len(start)) + [1] * len(start) for start in starts])
        temperature, min_p = sampling
        drawn: dict[str, Any] = {}
        if temperature > 0:
            drawn = {"temperature": temperature, "top_p": 1.0, "top_k": 0, "min_p": min_p or None}
        config: Any = GenerationConfig(  # type: ignore[no-untyped-call]
            max_new_tokens=most,
            do_sample=temperature > 0,
            pad_token_id=pad,
            eos_token_id=ends or None,
            **drawn,
        )
        device = self.base.device
        all_bn = self.base.model.generate(
            ids_bn.to(device), attention_mask=mask_bn.to(device), generation_config=config
        )
        return [_until(row, self.base.end_tokens) for row in all_bn[:, width:].tolist()]


def _until(tokens: list[int], ends: frozenset[int]) -> list[int]:
    for place, token in enumerate(tokens):
        if token in ends:
            return tokens[: place + 1]
    return tokens


def _prompt_key(prompt: str) -> str:
    return " ".join(prompt.lower().split())


def _useless(prompt: str, tokens: Sequence[int]) -> str:
    """Why a request is of no use; empty when it is."""
    if len(prompt) < _LEAST_PROMPT_CHARS:
        return "request short"
    return "request repetitive" if _repeats(tokens) else ""


def _repeats(tokens: Sequence[int]) -> bool:
    """Whether a text says the same over and over: few of its runs of four tokens are different."""
    grams = [tuple(tokens[i : i + _GRAM]) for i in range(len(tokens) - _GRAM + 1)]
    return len(grams) > 4 * _GRAM and len(set(grams)) < _LEAST_DISTINCT * len(grams)
