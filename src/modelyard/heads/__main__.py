"""`python -m modelyard.heads train SPEC.json`: a step of a run that trains heads.

SPEC.json names the base, the data, and where to write. Work that was killed is taken up again; heads that
are there already are left alone. Status 1 and the reason on standard error when the work cannot be done.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from modelyard.core.faults import Section, json_section
from modelyard.core.files import write_json
from modelyard.core.verbs import carry_out
from modelyard.heads.config import DTYPE_NAMES
from modelyard.heads.learning.joint import JointSettings
from modelyard.heads.learning.making import Order, make_heads
from modelyard.heads.learning.self_distillation import DistilSettings
from modelyard.heads.learning.training import TrainingSettings

SCHEMA = "modelyard.heads_trained/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What a step is told."""

    order: Order
    # Where to write what was made; the step's sign that it is done.
    record: Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; the exit status."""
    return carry_out(arguments, {"train": train}, room="heads", about=__doc__)


def read_spec(path: Path) -> Spec:
    """Read SPEC.json; paths are relative to the working directory.

    Raises:
        DocumentError: With every fault of the file.
    """
    section = json_section(path)
    data, topics, work, new_base = (
        section.optional_text(name) for name in ("data", "topics", "work", "new_base")
    )
    order = Order(
        base=Path(section.text("base")),
        output=Path(section.text("output")),
        data=Path(data) if data else None,
        topics=Path(topics) if topics else None,
        work=Path(work) if work else None,
        self_distillation=_distilling(section),
        dtype=section.choice("dtype", "float32", DTYPE_NAMES),
        device=section.text("device", "cpu"),
        most_tokens=section.integer("longest", 1024, low=4),
        training=_training(section.section("training")),
        joint=_joint(section),
        new_base=Path(new_base) if new_base else None,
    )
    spec = Spec(order=order, record=Path(section.text("record")))
    section.close()
    section.faults.raise_if_any()
    return spec


def _distilling(section: Section) -> DistilSettings | None:
    if not section.has("self_distill"):
        return None
    told = section.section("self_distill")
    usual = DistilSettings(answer_tokens=1)
    settings = DistilSettings(
        answer_tokens=told.integer("tokens", None, low=1),
        batch=told.integer("batch", usual.batch, low=1),
        most_prompt_tokens=told.integer("most_prompt_tokens", usual.most_prompt_tokens, low=1),
        most_answer_tokens=told.integer("most_answer_tokens", usual.most_answer_tokens, low=1),
        answer_temperature=told.number("answer_temperature", usual.answer_temperature, above=-1e-9),
        seed=told.integer("seed", 0, low=0),
    )
    told.close()
    return settings


def _training(told: Section) -> TrainingSettings:
    usual = TrainingSettings()
    own = told.choice("projection", usual.projection, ("shared", "own")) == "own"
    settings = TrainingSettings(
        heads=told.integer("heads", usual.heads, low=1, high=64),
        layers=told.integer("layers", usual.layers, low=1),
        projection="own" if own else "shared",
        shortlist=told.integer("shortlist", usual.shortlist, low=2),
        epochs=told.integer("epochs", usual.epochs, low=1),
        learning_rate=told.number("learning_rate", usual.learning_rate, above=0.0),
        batch=told.integer("batch", usual.batch, low=1),
        accumulate=told.integer("accumulate", usual.accumulate, low=1),
        soft=told.number("soft", usual.soft, above=-1e-9, below=1 + 1e-9),
        hold_out=told.number("hold_out", usual.hold_out, above=0.0, below=1.0),
        patience=told.integer("patience", usual.patience, low=1),
        seed=told.integer("seed", 0, low=0),
    )
    told.close()
    return settings


def _joint(section: Section) -> JointSettings | None:
    if not section.has("joint"):
        return None
    told, usual = section.section("joint"), JointSettings()
    settings = JointSettings(
        rank=told.integer("rank", usual.rank, low=1),
        alpha=told.integer("alpha", usual.alpha, low=1),
        epochs=told.integer("epochs", usual.epochs, low=1),
        learning_rate=told.number("learning_rate", usual.learning_rate, above=0.0),
        batch=told.integer("batch", usual.batch, low=1),
        seed=told.integer("seed", 0, low=0),
    )
    told.close()
    return settings


def train(path: Path) -> None:
    """Train as a file says, and write what was made."""
    spec = read_spec(path)
    trained = make_heads(spec.order, clock=time.monotonic)
    told = {name: trained.facts[name] for name in ("method", "data", "tokens", "steps", "accuracy")}
    write_json(spec.record, {"schema": SCHEMA, "output": str(spec.order.output), **told})


if __name__ == "__main__":
    sys.exit(main())
