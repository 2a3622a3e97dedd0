"""Merges that feed one another: the documents of one file, in order, the last of them the output.

What an earlier document makes is a checkpoint like any other, made in a hidden folder beside the
output and removed when the last merge is whole; it can be taken up again like any merge.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from modelyard.merging.engine import MergeOptions, MergeResult, Progress, run_merge
from modelyard.merging.output import check_place, held
from modelyard.merging.planning import MergePlan, plan_merge
from modelyard.merging.recipe import Recipe


def stages_folder(out: Path) -> Path:
    """Where the merges that only feed others are made."""
    return out.parent / f".{out.name}.stages"


def run_chain(
    recipes: Sequence[Recipe], out: Path, options: MergeOptions, *, file: str, folder: Path,
    observe: Callable[[Progress], None] = lambda _item: None,
) -> tuple[MergePlan, MergeResult]:  # fmt: skip
    """Carry out all merges of a file; the plan and the result of the last.

    Raises:
        DocumentError: A recipe cannot be planned.
        MergeError: See `run_merge`.
        CheckpointError: See `run_merge`.
    """
    out = Path(os.path.realpath(out))
    if not options.resume:
        check_place(out, overwrite=options.overwrite)
    with held(out, "stages"):
        return _run_chain(recipes, out, options, _Reading(file=file, folder=folder), observe)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    file: str
    folder: Path


def _run_chain(
    recipes: Sequence[Recipe], out: Path, options: MergeOptions, reading: _Reading,
    observe: Callable[[Progress], None],
) -> tuple[MergePlan, MergeResult]:  # fmt: skip
    stages, file, folder = stages_folder(out), reading.file, reading.folder
    known: dict[str, Path] = {}
    if not options.resume:
        _remove(stages)
    for recipe in recipes[:-1]:
        place = stages / str(recipe.name)
        known[str(recipe.name)] = place
        plan = plan_merge(recipe, file=file, folder=folder, known=known)
        run_merge(plan, place, replace(options, overwrite=True), observe)
    plan = plan_merge(recipes[-1], file=file, folder=folder, known=known)
    result = run_merge(plan, out, options, observe)
    _remove(stages)
    return plan, result


def _remove(stages: Path) -> None:
    """Remove the folder in one step, so that a kill leaves no half checkpoint for a resumption."""
    going = stages.with_name(f"{stages.name}.removed")
    shutil.rmtree(going, ignore_errors=True)
    if stages.exists():
        stages.rename(going)
        shutil.rmtree(going, ignore_errors=True)


def plan_chain(recipes: Sequence[Recipe], *, file: str, folder: Path) -> MergePlan:
    """The plan of the last merge of a file; those that feed it are represented by stand-ins without data.

    Raises:
        DocumentError: A recipe cannot be planned.
    """
    known: dict[str, Path] = {}
    with tempfile.TemporaryDirectory(prefix="modelyard-plan-") as temporary:
        for recipe in recipes[:-1]:
            plan = plan_merge(recipe, file=file, folder=folder, known=known)
            known[str(recipe.name)] = stand_in(plan, Path(temporary) / str(recipe.name))
        return plan_merge(recipes[-1], file=file, folder=folder, known=known)


def stand_in(plan: MergePlan, place: Path) -> Path:
    """A checkpoint with the shapes of a plan's output and no data (a sparse file)."""
    from modelyard.artifacts.safetensors import layout
    from modelyard.core.files import write_json
    from modelyard.merging.card import write_companions

    place.mkdir(parents=True)
    start, _, file_bytes = layout(
        ((task.name, task.dtype, task.shape) for task in plan.tasks), path=place, metadata={}
    )
    with (place / "model.safetensors").open("wb") as file:
        file.write(start)
        file.truncate(file_bytes)
    write_companions(plan, place)
    write_json(place / "config.json", dict(plan.config))
    return place
