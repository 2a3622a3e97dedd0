"""An evaluation's questions shared out over jobs of any backend.

Each shard is a step with its own questions and its own file of answers (`python -m modelyard.evaluation
SPEC.json`), so that a job needs neither the yard nor the frozen set. What the shards have answered is taken
over into the yard; the evaluation then finds it there and asks nothing again.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from modelyard.core.errors import EvaluationError
from modelyard.core.faults import Faults, json_section
from modelyard.core.files import read_json, write_json
from modelyard.core.processes import interpreter
from modelyard.evaluation.answer_store import open_store
from modelyard.evaluation.evaluate import Evaluation, drawn, questions_of
from modelyard.evaluation.frozen_sets import open_split
from modelyard.evaluation.interview import TAKEN, Surroundings, ask_left, store_path, take_over
from modelyard.evaluation.pool import PoolModel, read_entry
from modelyard.jobs.plan import Plan, make_plan
from modelyard.jobs.step import Output, Step
from modelyard.results.engines import Question
from modelyard.runs.directory import create_run
from modelyard.runs.execution import ExecutionOptions, Outcome, execute
from modelyard.runs.yard import Yard

SCHEMA = "modelyard.asked/1"
#: What was shared out.
_CUT = "shards.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """A part of one model's questions, and where its job leaves what."""

    name: str
    model: PoolModel
    folder: Path

    @property
    def spec(self) -> Path:
        """What the job is told."""
        return self.folder / "specs" / f"{self.name}.json"

    @property
    def answers(self) -> Path:
        """The job's own file of answers."""
        return self.folder / "answers" / f"{self.name}.sqlite"

    @property
    def record(self) -> Path:
        """Written when everything was asked."""
        return self.folder / "answers" / f"{self.name}.json"


def ask_in_shards(yard: Yard, evaluation: Evaluation, count: int, execution: ExecutionOptions) -> Outcome:
    """Ask what has not been answered in so many jobs a model, and take over the answers.

    Killed, it goes on with the same call, with the shards that it had begun: jobs that still run are adopted.

    Raises:
        RunError: Another process drives these jobs.
        EvaluationError: Another process asks one of the models.
        DocumentError: The set cannot be used.
    """
    folder = _unfinished(yard, evaluation)
    shards = _begun(folder, evaluation) or _cut(yard, evaluation, folder, count)
    if not shards:
        return Outcome.SUCCEEDED
    plan = _plan(folder.name, shards, folder)
    source = str(evaluation.frozen.path.absolute())
    directory = create_run(yard, folder, run=folder.name, kind="evaluate", source=source, plan=plan)
    outcome, _ = execute(yard, directory, plan, execution)
    if outcome is Outcome.CANCELLED:
        return outcome
    for model in evaluation.models:
        with open_store(store_path(yard, model)) as store:
            take_over(yard, model, store)
    write_json(folder / TAKEN, {"schema": SCHEMA, "shards": [shard.name for shard in shards]})
    return outcome


def _unfinished(yard: Yard, evaluation: Evaluation) -> Path:
    """The folder of the first run of shards whose answers were not taken over; it may not be there yet."""
    folders = (yard.runs_dir / f"{evaluation.id}-shards-{number}" for number in itertools.count(1))
    return next(folder for folder in folders if not (folder / TAKEN).exists())


def _begun(folder: Path, evaluation: Evaluation) -> list[Shard]:
    """The shards that an earlier call cut; none where there was none, or it died while it cut."""
    if not (folder / _CUT).exists():
        return []
    models = {model.name: model for model in evaluation.models}
    told = read_json(folder / _CUT)["shards"]
    return [Shard(name=each["name"], model=models[each["model"]], folder=folder) for each in told]


def _cut(yard: Yard, evaluation: Evaluation, folder: Path, count: int) -> list[Shard]:
    """Share out what has not been answered, and write down who is told what."""
    examples = drawn(open_split(evaluation.frozen, yard.journal, evaluation.opening), evaluation.options)
    shards = []
    for model in evaluation.models:
        asked = questions_of(model, examples, evaluation.options.samples)
        with open_store(store_path(yard, model)) as store:
            take_over(yard, model, store)
            if evaluation.options.fresh:
                store.forget(key for key, _, _ in asked)
            answered = store.answered()
        left = {key: question for key, _, question in asked if key not in answered}
        keys, stem = sorted(left), store_path(yard, model).stem
        for i in range(min(count, len(keys))):
            shard = Shard(name=f"{stem}.{i + 1}-of-{count}", model=model, folder=folder)
            write_json(shard.spec, _told(shard, {key: left[key] for key in keys[i::count]}, count))
            shards.append(shard)
    if shards:
        cut = [{"name": shard.name, "model": shard.model.name} for shard in shards]
        write_json(folder / _CUT, {"schema": SCHEMA, "shards": cut})
    return shards


def ask_shard(spec: Path, around: Surroundings) -> int:
    """Carry out one shard, or go on with it; how many questions it asked.

    Raises:
        DocumentError: The spec cannot be read.
        EngineError: The model cannot be asked.
        EvaluationError: A stop was asked for before everything was.
    """
    section = json_section(spec)
    entry, place = section.section("entry"), section.text("folder")
    questions = {
        str(item.raw("key")): Question(
            example_id=item.text("example_id"),
            prompt=str(item.raw("prompt") or ""),
            messages=tuple((str(role), str(content)) for role, content in item.raw("messages") or ()),
            letters=item.texts("letters"),
            sample=item.integer("sample", 0, low=0),
        )
        for item in section.sections("questions")
    }
    answers, record = Path(section.text("answers")), Path(section.text("record"))
    section.faults.raise_if_any()
    model = read_entry(entry.data, place=str(spec), folder=Path(place))
    with open_store(answers) as store:
        before = len(store.replies(questions))
        ask_left(model, questions, store, around)
        after = len(store.replies(questions))
    if after < len(questions):
        raise EvaluationError(f"{spec}: stopped with {len(questions) - after} questions left; it goes on")
    write_json(record, {"schema": SCHEMA, "questions": len(questions), "asked": after - before})
    return after - before


def _plan(run: str, shards: Sequence[Shard], folder: Path) -> Plan:
    steps = [
        Step(
            name=f"ask/{shard.name}",
            argv=(interpreter(), "-m", "modelyard.evaluation", str(shard.spec)),
            cwd=str(shard.model.folder),
            secrets=shard.model.settings.secrets,
            inputs=(str(shard.spec),),
            outputs=(Output(path=str(shard.record)),),
            retries=1,
        )
        for shard in shards
    ]
    faults = Faults(file=run)
    plan = make_plan(run, steps, run_dir=folder, faults=faults)
    faults.raise_if_any()
    return plan


def _told(shard: Shard, asked: Mapping[str, Question], count: int) -> dict[str, Any]:
    """The spec; the shards of a model keep its rate together."""
    entry = dict(shard.model.entry)
    if rate := shard.model.manners.requests_per_minute:
        entry["requests_per_minute"] = rate / count
    questions = [{"key": key, **asdict(question)} for key, question in asked.items()]
    return {
        "entry": entry,
        "folder": str(shard.model.folder),
        "questions": questions,
        "answers": str(shard.answers),
        "record": str(shard.record),
    }
