"""What an evaluation leaves: the results table, the prompts, the texts, and the record that names them.

results.parquet, prompts.parquet   what a router or a certificate is made from
answers.jsonl                      the texts, with their scores and why
evaluation.json                    what was evaluated; whole only when everything else is
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard.core.digests import digest_bytes, digest_json, digest_path
from modelyard.core.errors import EvaluationError
from modelyard.core.failpoints import failpoint
from modelyard.core.files import read_json, write_json, write_whole
from modelyard.evaluation.pool import PoolModel
from modelyard.evaluation.questions import question_of
from modelyard.results.engines import Reply
from modelyard.results.examples import Example, Score
from modelyard.results.outcomes import write_prompts, write_results
from modelyard.results.scorers import load_scorer

SCHEMA = "modelyard.evaluation/1"
_RECORD = "evaluation.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One question and what became of it, scored."""

    example: Example
    sample: int
    reply: Reply
    score: float
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOutcome:
    """How one model came through; `why` says why it is not in the tables."""

    model: str
    questions: int
    # Of the questions: had an answer before, and had none in the end.
    stored: int
    unanswered: int = 0
    # Under way when an earlier run died; what they cost may have been paid twice.
    in_doubt: int = 0
    mean_score: float | None = None
    # None where a price is not known.
    cost_usd: float | None = None
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A model with its scored answers; none where it was not asked to the end."""

    model: PoolModel
    outcome: ModelOutcome
    lines: tuple[Line, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """Which evaluation it is."""

    id: str
    set_digest: str
    split: str
    samples: int
    # Who judged, where somebody did.
    judge: Mapping[str, Any] | None = None


def scored(example: Example, sample: int, reply: Reply, verdicts: Mapping[tuple[str, str], Score]) -> Line:
    """A reply with what it is worth, by verdict where there is one; without an answer it is worth nothing."""
    given = verdicts.get((example.id, reply.text or ""))
    score = given or load_scorer(example.scorer).score(example, reply.text)
    why = reply.error if reply.text is None and reply.error else score.why
    return Line(example=example, sample=sample, reply=reply, score=score.value, why=why)


def check_output(output: Path, identity: str) -> None:
    """That nothing in the folder is anybody else's. Raises `EvaluationError`."""
    if not output.exists() or not any(output.iterdir()):
        return
    try:
        found = read_json(output / _RECORD)["id"]
    except (OSError, ValueError, KeyError, TypeError):
        found = "something else"
    if found != identity:
        raise EvaluationError(f"{output}: holds {found}, not {identity}; give another --output, or remove it")


def write_outputs(
    output: Path, header: Header, examples: Sequence[Example], asked: Sequence[Asked]
) -> dict[str, str]:
    """Write everything; the digests of the files by name."""
    check_output(output, header.id)  # somebody else may have come first
    output.mkdir(parents=True, exist_ok=True)
    failpoint("evaluate.before_results")
    if not (output / _RECORD).exists():  # from here on the folder is this evaluation's
        write_json(output / _RECORD, {"schema": SCHEMA, "id": header.id})
    write_results(output / "results.parquet", (row for each in asked for row in _rows(header, each)))
    prompts = [(each, question_of(each).text()) for each in examples]
    write_prompts(
        output / "prompts.parquet",
        (
            {"set_digest": header.set_digest, "example_id": each.id, "split": each.split, "text": text}
            for each, text in prompts
        ),
    )
    texts = [
        json.dumps(_text(each.model.name, line), ensure_ascii=False) for each in asked for line in each.lines
    ]
    write_whole(output / "answers.jsonl", "\n".join(texts) + "\n")
    names = ("results.parquet", "prompts.parquet", "answers.jsonl")
    digests = {name: digest_path(output / name) for name in names}
    failpoint("evaluate.before_record")
    record = {
        "schema": SCHEMA,
        "id": header.id,
        "set_digest": header.set_digest,
        "split": header.split,
        "samples": header.samples,
        "judge": header.judge,
        "models": {each.model.name: each.model.identity for each in asked},
        "outputs": digests,
    }
    write_json(output / _RECORD, record)
    return digests


def _rows(header: Header, asked: Asked) -> Iterable[dict[str, Any]]:
    digest = asked.model.digest
    judge = digest_json(header.judge)[7:19] if header.judge else ""
    for line in asked.lines:
        example, reply = line.example, line.reply
        scorer = load_scorer(example.scorer)
        whose = {
            "run_id": header.id,
            "model": asked.model.name,
            "model_digest": digest,
            "set_digest": header.set_digest,
            "split": example.split,
            "example_id": example.id,
            "group_id": example.group_id,
            "sample": line.sample,
        }
        if reply.confidence is not None:
            yield {**whose, "metric": "confidence", "value": reply.confidence}
        yield {
            **whose,
            "value": line.score,
            "scorer": scorer.name,
            "scorer_version": judge if scorer.by_verdict and judge else scorer.version,
            "weight": example.weight,
            "critical": example.critical,
            "cost_usd": asked.model.price.of(reply),
            "latency_s": reply.latency_s,
            "prompt_tokens": reply.prompt_tokens,
            "completion_tokens": reply.completion_tokens,
            "output_digest": None if reply.text is None else digest_bytes(reply.text.encode()),
            "error": reply.error or None,
        }


def _text(model: str, line: Line) -> dict[str, Any]:
    reply = line.reply
    return {
        "model": model,
        "example_id": line.example.id,
        "sample": line.sample,
        "text": reply.text,
        "error": reply.error,
        "score": line.score,
        "why": line.why,
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": reply.completion_tokens,
        "latency_s": reply.latency_s,
        "confidence": reply.confidence,
        "cost_usd": reply.cost_usd,
    }
