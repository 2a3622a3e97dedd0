"""One model with everything that it is asked: what it answered before, what it answers now."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from modelyard.core.errors import EngineError, EvaluationError
from modelyard.core.redaction import secret_values
from modelyard.evaluation.answer_store import AnswerStore, has_holder, open_store
from modelyard.evaluation.asking import Conversation, ask_all
from modelyard.evaluation.pool import PoolModel
from modelyard.results.engines import Question, Reply
from modelyard.runs.yard import Yard

#: In the folder of a run of shards: the sign that its answers have been taken over.
TAKEN = "taken.json"
#: Told of each reply: the model and the reply. Called by many threads.
Told = Callable[[str, Reply], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What asking needs of its process."""

    environment: Mapping[str, str]
    stop: Callable[[], str] = lambda: ""
    told: Told = lambda _model, _reply: None
    # Without it nothing is asked here; what has no answer is left to others.
    asks: bool = True


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


def ask_left(
    model: PoolModel, questions: Mapping[str, Question], store: AnswerStore, around: Surroundings
) -> None:
    """Ask those of the questions that have no final answer in a store, until a stop is asked for.

    Raises:
        EngineError: The model cannot be asked at all, or stopped answering.
    """
    answered = store.answered()
    left = {key: question for key, question in questions.items() if key not in answered}
    if not left or around.stop():
        return
    with conversing(model, store, around) as conversation:
        ask_all(left, conversation)


@contextmanager
def conversing(
    model: PoolModel,
    store: AnswerStore,
    around: Surroundings,
    heard: Callable[[str, Reply], None] = lambda _key, _reply: None,
) -> Iterator[Conversation]:
    """A model with its engine open, ready to be asked; `heard` is told of each reply by its key first."""

    def told(key: str, reply: Reply) -> None:
        heard(key, reply)
        around.told(model.name, reply)

    with closing(model.settings.open(around.environment)) as engine:
        yield Conversation(
            engine=engine,
            store=store,
            manners=model.manners,
            stop=around.stop,
            told=told,
            failed_before=frozenset(store.failed()),
            chance=random.Random(model.digest),
            hidden=secret_values(around.environment, model.settings.secrets),
        )


def take_over(yard: Yard, model: PoolModel, store: AnswerStore) -> None:
    """Add what jobs have answered (`evaluation/shards.py`) and nobody has taken over yet.

    Raises:
        EvaluationError: A job asks this model now, or left a file that cannot be read.
    """
    for path in sorted(yard.runs_dir.glob(f"*/answers/{store_path(yard, model).stem}.*.sqlite")):
        if (path.parents[1] / TAKEN).exists():
            continue
        if has_holder(path):
            raise EvaluationError(
                f"{path}: a job asks this model now; the command with --shards goes on with it, "
                "`modelyard cancel` ends it"
            )
        store.absorb(path)


def _held(
    yard: Yard, model: PoolModel, questions: Mapping[str, Question], around: Surroundings, *, fresh: bool
) -> Interview:
    with open_store(store_path(yard, model)) as store:
        take_over(yard, model, store)
        if fresh:
            store.forget(questions)
        answered = store.answered() & set(questions)
        done = Interview(
            model=model,
            questions=len(questions),
            stored=len(answered),
            in_doubt=len(store.in_doubt() & set(questions)),
        )
        try:
            if around.asks:
                ask_left(model, questions, store, around)
        except EngineError as error:
            return replace(done, why=str(error))
        replies = store.replies(questions)
    missing = len(questions) - len(replies)
    why = f"{missing} questions were not asked; go on with the same command" if missing else ""
    if replies and not missing and all(reply.text is None for reply in replies.values()):
        last = next(iter(replies.values())).error
        why = f"it answered none of {len(questions)} questions ({last}); mend it, and ask with --fresh"
    return replace(done, replies=replies, why=why)
