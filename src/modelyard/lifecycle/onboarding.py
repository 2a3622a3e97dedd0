"""Bringing a new model into a router: asked a part of the frozen set, or known by answers that there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from modelyard.core.errors import EvaluationError, RoutingError
from modelyard.evaluation.evaluate import EvaluationOptions, evaluate, prepare
from modelyard.evaluation.interview import Surroundings
from modelyard.evaluation.pool import PoolModel
from modelyard.routing.answer_table import AnswerTable, read_answer_table
from modelyard.routing.router import Router
from modelyard.runs.yard import Yard


@dataclass(frozen=True, slots=True, kw_only=True)
class Onboarded:
    """A model that has joined."""

    router: Router
    answers: int


def ask_newcomer(yard: Yard, model: PoolModel, set_path: Path, validation: int, around: Surroundings) -> Path:
    """Ask a model so many questions of the fit split, drawn at random; the folder of its results.

    Killed, the same call goes on; a larger `validation` asks some of the same questions, which is free.

    Raises:
        EvaluationError: It could not be asked to the end.
        DocumentError: The set cannot be used.
    """
    evaluation = prepare(set_path, [model], EvaluationOptions(limit=validation))
    evaluated = evaluate(yard, evaluation, yard.root / "evaluations" / evaluation.id, around)
    if not evaluated.whole:
        raise EvaluationError(f"{model.name}: {evaluated.models[0].why}")
    return evaluated.output


def onboard(router: Router, name: str, folders: Sequence[Path]) -> Onboarded:
    """Add a model by its answers in some folders of results; rows of other models are ignored.

    Raises:
        RoutingError: There is no row of it, or its answers cannot be used.
        TableError: A table cannot be read.
    """
    read = read_answer_table(folders)
    if name not in read.answers.models:
        known = ", ".join(read.answers.models)
        raise RoutingError(f"{folders[0]}: no row has the model {name!r}, but {known}; give its results")
    return _joined(router, name, read)


def _joined(router: Router, name: str, read: AnswerTable) -> Onboarded:
    answers = read.answers.of_models([read.answers.models.index(name)])
    asked = np.flatnonzero(~np.isnan(answers.errors_mn[0]))
    grown = router.onboard(
        name,
        {answers.examples[i]: float(answers.errors_mn[0, i]) for i in asked},
        cost_usd=float(answers.mean_cost_usd()[0]),
        costs_usd={answers.examples[i]: float(answers.cost_usd_mn[0, i]) for i in asked},
        texts={answers.examples[i]: read.prompts[i] for i in asked},
    )
    return Onboarded(router=grown, answers=len(asked))
