"""One model with everything that it is asked: what it answered before, what it answers now."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from modelyard.core.errors import EngineError, EvaluationError
from modelyard.evaluation.answer_store import open_store
from modelyard.evaluation.asking import Conversation, ask_all
from modelyard.evaluation.pool import PoolModel
from modelyard.results.engines import Question, Reply
from modelyard.runs.yard import Yard

#: Told of each reply: the model and the reply. Called by many threads.
Told = Callable[[str, Reply], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What asking needs of its process."""

    environment: Mapping[str, str]
    stop: Callable[[], str] = lambda: ""
    told: Told = lambda _model, _reply: None


@dataclass(frozen=True, slots=True, kw_only=True)
class Interview:
    """What came of it; `why` says why it was not brought to its end."""

    model: PoolModel
    questions: int
    # Of the questions: had a final answer before.
    stored: int
    # Of the questions: under way when an earlier asker died.
    in_doubt: int
    replies: Mapping[str, Reply] = field(default_factory=dict)
    why: str = ""


def store_path(yard: Yard, model: PoolModel) -> Path:
    """Where the answers of a model are kept."""
    name = model.name.replace("/", "--")
    return yard.root / "answers" / f"{name}-{model.digest.removeprefix('sha256:')[:12]}.sqlite"


def interview(
    yard: Yard,
    model: PoolModel,
    questions: Mapping[str, Question],
    around: Surroundings,
    *,
    fresh: bool = False,
) -> Interview:
    """Ask a model those of the questions, by their keys, that it has not answered.

    What keeps it from being asked to the end, such as another process that asks it now, is in `why`.
    """
    try:
        return _held(yard, model, questions, around, fresh=fresh)
    except EvaluationError as error:
        return Interview(model=model, questions=len(questions), stored=0, in_doubt=0, why=str(error))


def _held(
    yard: Yard, model: PoolModel, questions: Mapping[str, Question], around: Surroundings, *, fresh: bool
) -> Interview:
    with open_store(store_path(yard, model)) as store:
        if fresh:
            store.forget(questions)
        answered = store.answered() & set(questions)
        done = Interview(
            model=model,
            questions=len(questions),
            stored=len(answered),
            in_doubt=len(store.in_doubt() & set(questions)),
        )
        left = {key: question for key, question in questions.items() if key not in answered}
        try:
            if left and not around.stop():
                with closing(model.settings.open(around.environment)) as engine:
                    ask_all(
                        left,
                        Conversation(
                            engine=engine,
                            store=store,
                            manners=model.manners,
                            stop=around.stop,
                            told=lambda _key, reply: around.told(model.name, reply),
                            chance=random.Random(model.digest),
                        ),
                    )
        except EngineError as error:
            return replace(done, why=str(error))
        replies = store.replies(questions)
    missing = len(questions) - len(replies)
    why = f"{missing} questions were not asked; go on with the same command" if missing else ""
    return replace(done, replies=replies, why=why)
