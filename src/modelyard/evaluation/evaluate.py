"""An evaluation: every model of a pool asked every question of a split, scored, written as a results table.

What each model answered is kept in the yard, in answers/<model>-<digest>.sqlite, by what it was asked.
No answer is an error of the model and counts as one. A model that could not be asked to the end is left
out of the tables whole, and said so.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from modelyard.core.digests import digest_json
from modelyard.core.faults import Faults
from modelyard.core.journal import Draft
from modelyard.evaluation import judging
from modelyard.evaluation.answer_store import answer_key, peek
from modelyard.evaluation.frozen_sets import FrozenSet, Opening, looks, open_split, read_frozen
from modelyard.evaluation.interview import Interview, Surroundings, interview, store_path
from modelyard.evaluation.judging import Verdicts, judge_all, needs_verdict
from modelyard.evaluation.outputs import Asked, Header, ModelOutcome, check_output, scored, write_outputs
from modelyard.evaluation.pool import PoolModel
from modelyard.evaluation.questions import question_of
from modelyard.results.engines import Question
from modelyard.results.examples import Example
from modelyard.results.scorers import load_scorer
from modelyard.runs.yard import Yard


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationOptions:
    """What is asked, and how."""

    split: str = "fit"
    # How often each question is asked.
    samples: int = 1
    # Only so many of the split's examples, drawn with the seed; all where it is None.
    limit: int | None = None
    seed: int = 0
    # Forget the answers that there are.
    fresh: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What is to be evaluated; nothing has been asked or opened."""

    models: tuple[PoolModel, ...]
    frozen: FrozenSet
    options: EvaluationOptions
    # Of the examples that need one.
    judge: PoolModel | None = None

    def resumed(self) -> Evaluation:
        """The same, but what has been answered is kept."""
        return replace(self, options=replace(self.options, fresh=False))

    @property
    def id(self) -> str:
        """Names the evaluation for ever: the set, the split, the models and what they are asked."""
        told = {
            "set": self.frozen.digest,
            "split": self.options.split,
            "samples": self.options.samples,
            "limit": self.options.limit,
            "seed": self.options.seed if self.options.limit is not None else 0,
            "models": {model.name: model.digest for model in self.models},
            "judge": None if self.judge is None else [self.judge.digest, judging.VERSION],
        }
        digest = digest_json(told).removeprefix("sha256:")
        return f"{self.frozen.path.stem}-{self.options.split}-{digest[:8]}"

    @property
    def questions(self) -> int:
        """How many questions each model is asked."""
        examples = self.frozen.sizes[self.options.split]
        return min(examples, self.options.limit or examples) * self.options.samples

    @property
    def opening(self) -> Opening:
        """How the journal knows it."""
        names = tuple(model.name for model in self.models)
        return Opening(split=self.options.split, purpose="evaluate", models=names, run=self.id)

    @property
    def header(self) -> Header:
        """What its outputs say that they are of."""
        options = self.options
        judge = None if self.judge is None else {"version": judging.VERSION, **self.judge.identity}
        return Header(
            id=self.id, set_digest=self.frozen.digest, split=options.split, samples=options.samples,
            judge=judge,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """What came of an evaluation."""

    id: str
    output: Path
    models: tuple[ModelOutcome, ...]
    split: str
    # How many evaluations have opened the split of this set, this one included.
    looks: int
    stopped: bool = False
    # What the judge's verdicts cost; None where its price is not known.
    judge_usd: float | None = 0.0
    # Of the files that were written, by name; none where nothing was.
    digests: Mapping[str, str] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Whether every model was asked to the end."""
        return not self.stopped and all(not outcome.why for outcome in self.models)


#: The address of an answer, what it is an answer to, and how that is asked.
Task = tuple[str, Example, Question]


def prepare(
    path: Path, models: Sequence[PoolModel], options: EvaluationOptions, judge: PoolModel | None = None
) -> Evaluation:
    """What an evaluation would be.

    Raises:
        DocumentError: With every fault of the set; or an example needs a judge and there is none.
    """
    frozen = read_frozen(path)
    needing = [each.id for each in frozen.examples if load_scorer(each.scorer).by_verdict]
    if needing and judge is None:
        faults = Faults(file=str(path))
        faults.add(
            f"example {needing[0]}.scorer", "judge", f"needs a judge, as {len(needing)} examples do",
            "declare one under `judge` of the yard.yaml, as a model of the pool",
        )  # fmt: skip
        faults.raise_if_any()
    return Evaluation(models=tuple(models), frozen=frozen, options=options, judge=judge if needing else None)


def evaluate(yard: Yard, evaluation: Evaluation, output: Path, around: Surroundings) -> Evaluated:
    """Ask what has not been answered, score everything, and write the tables.

    Models of one lane are asked one after the other, lanes at the same time.

    Raises:
        EvaluationError: The output holds something else.
        DocumentError: The set cannot be used.
        JournalError: Nothing can be recorded.
    """
    check_output(output, evaluation.id)
    examples = drawn(open_split(evaluation.frozen, yard.journal, evaluation.opening), evaluation.options)
    tasks = {m.name: questions_of(m, examples, evaluation.options.samples) for m in evaluation.models}
    held = _interviews(yard, evaluation, tasks, around)
    whole = [each for each in held if not each.why]
    verdicts = _verdicts(yard, evaluation, [(each, tasks[each.model.name]) for each in whole], around)
    asked = [_scored(each, tasks[each.model.name], verdicts) for each in held]
    stopped, outcomes = bool(around.stop()), tuple(each.outcome for each in asked)
    done = Evaluated(
        id=evaluation.id, output=output, models=outcomes, stopped=stopped, split=evaluation.options.split,
        looks=looks(yard.journal, evaluation.frozen.digest)[evaluation.options.split],
        judge_usd=_judge_usd(evaluation.judge, verdicts),
    )  # fmt: skip
    finished = [each for each in asked if not each.outcome.why]
    if not finished or stopped:
        return done
    digests = write_outputs(output, evaluation.header, examples, finished)
    data = {"outputs": digests, "models": [each.model.name for each in finished]}
    yard.journal.append([Draft(kind="evaluation.finished", run=evaluation.id, data=data)])
    return replace(done, digests=digests)


def drawn(examples: tuple[Example, ...], options: EvaluationOptions) -> tuple[Example, ...]:
    """The examples, or so many of them as are wanted: drawn at random, in their order."""
    if options.limit is None or options.limit >= len(examples):
        return examples
    places = sorted(random.Random(options.seed).sample(range(len(examples)), options.limit))
    return tuple(examples[place] for place in places)


def _interviews(
    yard: Yard, evaluation: Evaluation, tasks: Mapping[str, Sequence[Task]], around: Surroundings
) -> list[Interview]:
    """Every model asked, in the order of the pool."""
    lanes: dict[str, list[PoolModel]] = {}
    for model in evaluation.models:
        lanes.setdefault(model.settings.lane, []).append(model)

    def ask_lane(models: Sequence[PoolModel]) -> list[Interview]:
        return [
            interview(
                yard, model, {key: question for key, _, question in tasks[model.name]}, around,
                fresh=evaluation.options.fresh,
            )
            for model in models
        ]  # fmt: skip

    with ThreadPoolExecutor(len(lanes), thread_name_prefix="lane") as pool:
        held = {each.model.name: each for lane in pool.map(ask_lane, lanes.values()) for each in lane}
    return [held[model.name] for model in evaluation.models]


def _verdicts(
    yard: Yard, evaluation: Evaluation, held: Sequence[tuple[Interview, Sequence[Task]]], around: Surroundings
) -> Verdicts | None:
    """What the judge says of the answers that need one; None where none does."""
    wanted = [
        (example, each.replies[key].text or "")
        for each, tasks in held
        for key, example, _ in tasks
        if needs_verdict(example, each.replies[key])
    ]
    if not wanted or evaluation.judge is None:
        return None
    return judge_all(yard, evaluation.judge, wanted, around)


def _scored(held: Interview, tasks: Sequence[Task], verdicts: Verdicts | None) -> Asked:
    """A model's answers with their scores; without a verdict that is needed the model is left out."""
    outcome = ModelOutcome(
        model=held.model.name, questions=held.questions, stored=held.stored, in_doubt=held.in_doubt,
        why=held.why,
    )  # fmt: skip
    if held.why:
        return Asked(model=held.model, outcome=outcome)
    scores = verdicts.scores if verdicts else {}
    unjudged = sum(
        needs_verdict(example, held.replies[key]) and (example.id, held.replies[key].text) not in scores
        for key, example, _ in tasks
    )
    if verdicts and unjudged:
        reasons = (reply.error for reply in verdicts.interview.replies.values() if reply.text is None)
        reason = verdicts.interview.why or next(reasons, "no reply")
        why = f"{unjudged} of its answers were not judged: {reason}"
        return Asked(model=held.model, outcome=replace(outcome, why=why))
    lines = tuple(
        scored(example, question.sample, held.replies[key], scores) for key, example, question in tasks
    )
    outcome = replace(
        outcome,
        unanswered=sum(line.reply.text is None for line in lines),
        mean_score=sum(line.score for line in lines) / len(lines),
        cost_usd=_total(held.model.price.of(line.reply) for line in lines),
    )
    return Asked(model=held.model, outcome=outcome, lines=lines)


def _judge_usd(judge: PoolModel | None, verdicts: Verdicts | None) -> float | None:
    """What the verdicts cost; 0 where there are none."""
    if judge is None or verdicts is None:
        return 0.0
    return _total(judge.price.of(reply) for reply in verdicts.interview.replies.values())


def questions_of(model: PoolModel, examples: Sequence[Example], samples: int) -> list[Task]:
    """Everything that a model is to be asked, with the address of each answer."""
    identity = model.identity
    asked = [(each, question_of(each, sample)) for each in examples for sample in range(samples)]
    by_example = model.settings.by_example
    return [
        (answer_key(identity, question, by_example=by_example), example, question)
        for example, question in asked
    ]


def planned(yard: Yard | None, evaluation: Evaluation, environment: Mapping[str, str]) -> dict[str, Any]:
    """What would be asked, as JSON; nothing is sent or recorded.

    The first request is shown as it would be sent, but for splits that stay closed without its question.
    """
    options, models = evaluation.options, []
    examples = drawn(evaluation.frozen.sealed(options.split), options)
    for model in evaluation.models:
        asked = questions_of(model, examples, options.samples)
        keys = {key for key, _, _ in asked}
        known = peek(store_path(yard, model)) & keys if yard else set()
        hidden = Question(example_id="-", prompt="(not shown: the split stays closed)")
        with closing(model.settings.open(environment)) as engine:
            first = engine.request(asked[0][2] if options.split == "fit" and asked else hidden)
        told = {"name": model.name, "questions": len(keys), "stored": len(known)}
        models.append({**told, "first": dict(first)})
    return {
        "id": evaluation.id, "set_digest": evaluation.frozen.digest, "split": options.split,
        "examples": len(examples), "samples": options.samples, "models": models,
    }  # fmt: skip


def _total(costs: Iterable[float | None]) -> float | None:
    known = list(costs)
    return None if any(cost is None for cost in known) else sum(cost for cost in known if cost is not None)
