"""From a recipe to the list of tensors to be written: which parts go into each, with which parameters.

Pure but for reading headers and configs: nothing is merged here. All that can be known to be wrong
before a byte of a tensor is read is found here, and all of it at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from modelyard.artifacts.safetensors import DType, TensorInfo, dtype_by_torch_name
from modelyard.core.faults import Faults
from modelyard.merging.architecture import Role, is_buffer, layer_counts, place_of, with_layers
from modelyard.merging.method import Base, Kind, MergeMethod, load_method
from modelyard.merging.models import Model, Places, Vocabulary, listed, open_models, open_vocabulary
from modelyard.merging.parts import Part, StoredPart
from modelyard.merging.recipe import ModelRef, Recipe, Scalar, Settings
from modelyard.merging.settings import resolve
from modelyard.merging.side_files import SideFiles, SideTensor
from modelyard.merging.spots import Spot, Spots, within
from modelyard.merging.tensors import Values


class How(StrEnum):
    """What is done to make a tensor."""

    MERGE = "merge"
    # One part's values, stored in the output's type.
    CONVERT = "convert"
    # One part's bytes as they are.
    COPY = "copy"


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorTask:
    """One tensor to be written."""

    name: str
    dtype: DType
    shape: tuple[int, ...]
    # One a model.
    parts: tuple[Part, ...]
    base: Part | None = None
    how: How = How.MERGE
    values: Values = Values(common={}, each=())


@dataclass(frozen=True, slots=True, kw_only=True)
class MergePlan:
    """Everything that a merge will do."""

    recipe: Recipe
    method: MergeMethod
    tasks: tuple[TensorTask, ...]
    # All models, in the order in which they are met; `donor` gives config and other files.
    models: tuple[Model, ...]
    donor: Model
    config: Mapping[str, Any]
    vocabulary: Vocabulary | None = None
    # What parameters of kind FILE name.
    side_files: tuple[Path, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def output_bytes(self) -> int:
        """The bytes of all tensors to be written."""
        return sum(math.prod(task.shape) * task.dtype.item_bytes for task in self.tasks)

    @property
    def read_bytes(self) -> int:
        """The bytes of one pass over all parts."""
        return sum(
            part.read_bytes
            for task in self.tasks
            for part in (*task.parts, *([task.base] if task.base else []))
        )


def plan_merge(
    recipe: Recipe, *, file: str, folder: Path, known: Mapping[str, Path] | None = None
) -> MergePlan:
    """Plan a merge.

    Args:
        recipe: What is declared.
        file: Its name, for messages.
        folder: What relative model paths are relative to.
        known: Models by name instead of path: the outputs of earlier documents.

    Raises:
        DocumentError: With every fault found: models that are not there, tensors that do not fit.
        CheckpointError: A model is damaged.
    """
    faults = Faults(file=file)
    method = load_method(recipe.method)
    models = open_models(recipe, faults, Places(folder=folder, known=known or {}))
    faults.raise_if_any()
    planner = _Planner(recipe, method, models, SideFiles(folder=folder, faults=faults))
    plan = planner.plan()
    faults.raise_if_any()
    return plan


class _Planner:
    """Plans one recipe; `faults` collects what does not fit."""

    def __init__(
        self, recipe: Recipe, method: MergeMethod, models: Mapping[ModelRef, Model], side_files: SideFiles
    ) -> None:
        self.recipe, self.method, self.models = recipe, method, models
        self.side_files, self.faults = side_files, side_files.faults
        self.warnings: list[str] = []
        self._missing: dict[str, list[str]] = {}
        self._complained: set[str] = set()
        self._vocabulary = open_vocabulary(recipe, models)

    def plan(self) -> MergePlan:
        """The plan; meaningless where faults were noted."""
        tasks = [
            task
            for spot in Spots(self.recipe, self.method, self.models, self.faults)
            if (task := self._task(spot)) is not None
        ]
        self._check_names(tasks)
        self._report_missing()
        if self.method.side_shape is not None:
            beside = sum(bool(task.values.sides) for task in tasks)
            self.warnings.append(f"{beside} of {len(tasks)} tensors have something in the models' side files")
            self.side_files.refuse_unused()
        donor = self._donor()
        config = self._config(donor, tasks)
        return MergePlan(
            recipe=self.recipe,
            method=self.method,
            tasks=tuple(tasks),
            models=tuple(self.models.values()),
            donor=donor,
            config=config,
            vocabulary=self._vocabulary,
            side_files=self.side_files.paths,
            warnings=(*self.warnings, *(self._vocabulary.plan.warnings if self._vocabulary else ())),
        )

    def _check_names(self, tasks: Sequence[TensorTask]) -> None:
        """Modules must be there, apart from one another, and together the whole model."""
        names = [task.name for task in tasks]
        for module in self.recipe.modules:
            if not any(within(module)(name) for name in names):
                self.faults.add(
                    f"modules.{module}", None, "is not in the models", "name a part of their tensors' names"
                )
        if len(set(names)) < len(names):
            self.faults.add(
                "modules", list(self.recipe.modules), "overlap", "name parts that share no tensor"
            )
        if not names and not self.faults.found:
            self.faults.add(
                "", None, "leaves no tensor to be written", "merge models that have tensors in common"
            )
        if self.recipe.modules and self._donor().checkpoint.tensors.keys() - set(names):
            lost = sorted(self._donor().checkpoint.tensors.keys() - set(names))
            self.warnings.append(f"in no module, and left out: {listed(lost)}")

    # What becomes of one.

    def _task(self, spot: Spot) -> TensorTask | None:
        taken = self._taken_whole(spot)
        if taken is not None:
            return self._copied(spot, taken)
        parts = [self._part(source.model, name) for source, name in spot.sources]
        base = self._part(*spot.base) if spot.base and self.method.base is not Base.IGNORED else None
        lacking = [str(s.model) for (s, _), part in zip(spot.sources, parts, strict=True) if part is None]
        if spot.base and base is None and self.method.base is not Base.IGNORED:
            lacking.append(str(spot.base[0]))
        if lacking:
            if not is_buffer(spot.name):
                self._missing.setdefault(spot.name, []).extend(lacking)
            return None
        present = [part for part in parts if part is not None]
        first = spot.base or (spot.sources[0][0].model, spot.sources[0][1])
        dtype = self._dtype(spot.name, self.models[first[0]].info(first[1]))
        if self._mixes_kinds(spot):
            return None
        if not dtype.floating:
            return self._copied(spot, first)
        present, base = self._fitted(spot, present, base)
        values = self._values(spot)
        self._check_values(spot, values)
        values = replace(values, sides=self._sides(spot, values, (base or present[0]).shape))
        return TensorTask(
            name=spot.name, dtype=dtype, shape=(base or present[0]).shape, parts=tuple(present), base=base,
            values=values,
        )  # fmt: skip

    def _mixes_kinds(self, spot: Spot) -> bool:
        """Whether a tensor is of floating numbers in one model and of others in another: a fault."""
        infos = [self.models[source.model].info(name) for source, name in spot.sources]
        kinds = {info.dtype.word for info in infos if info is not None}
        if len({info.dtype.floating for info in infos if info is not None}) < 2:
            return False
        self.faults.add(
            spot.name, sorted(kinds), "has types that do not mix", "merge models of one architecture"
        )
        return True

    def _taken_whole(self, spot: Spot) -> tuple[ModelRef, str] | None:
        """The model from which this tensor is taken instead of being merged."""
        place = place_of(spot.name)
        if self.recipe.embedding_source and place.role is Role.EMBEDDING:
            return self.recipe.embedding_source, spot.name
        if self.recipe.lm_head_source and place.end:
            return self.recipe.lm_head_source, spot.name
        return None

    def _copied(self, spot: Spot, taken: tuple[ModelRef, str]) -> TensorTask | None:
        part = self._part(*taken)
        if part is None:
            self._missing.setdefault(spot.name, []).append(str(taken[0]))
            return None
        info = self.models[taken[0]].info(taken[1])
        dtype = self._dtype(spot.name, info)
        how = How.COPY if isinstance(part, StoredPart) and info and dtype is info.dtype else How.CONVERT
        return TensorTask(name=spot.name, dtype=dtype, shape=part.shape, parts=(part,), how=how)

    def _fitted(self, spot: Spot, parts: list[Part], base: Part | None) -> tuple[list[Part], Part | None]:
        """The parts, cut to common rows where that is asked for; a fault where shapes differ."""
        all_parts = [*parts, *([base] if base else [])]
        shapes = {part.shape for part in all_parts}
        if len(shapes) == 1:
            return parts, base
        place = place_of(spot.name)
        tails = {shape[1:] for shape in shapes}
        if self.recipe.truncate_embeddings and place.role is not Role.OTHER and len(tails) == 1:
            rows = min(shape[0] for shape in shapes)
            cut = [
                StoredPart(info=part.info, rows=rows) for part in all_parts if isinstance(part, StoredPart)
            ]
            if len(cut) == len(all_parts):
                self.warnings.append(f"{spot.name}: cut to the {rows} rows that all models have")
                return list(cut[: len(parts)]), cut[-1] if base else None
        remedy = (
            "set tokenizer_source (union or base), which matches rows by token, or truncate_embeddings: true"
            if place.role is not Role.OTHER and len(tails) == 1
            else "merge models of one architecture and size"
        )
        told = {
            Path(source.model.path).name: list(part.shape)
            for (source, _), part in zip(spot.sources, parts, strict=True)
        }
        if base is not None and spot.base is not None:
            told[Path(spot.base[0].path).name] = list(base.shape)
        self.faults.add(spot.name, told, "has different shapes", remedy)
        return parts, base

    def _dtype(self, name: str, info: TensorInfo | None) -> DType:
        """The type to store: by name, by the recipe, or as the first model has it."""
        stated = self._override(name) or self.recipe.out_dtype or self.recipe.dtype
        own = info.dtype if info is not None else DType.F32
        if stated is None or not own.floating:
            return own
        return dtype_by_torch_name(stated) or own

    def _override(self, name: str) -> str | None:
        return next((dtype for word, dtype in self.recipe.dtype_overrides if word in name), None)

    def _values(self, spot: Spot) -> Values:
        recipe_settings = self.recipe.settings

        def value(name: str, levels: Sequence[Settings], default: Scalar | None) -> Scalar | None:
            return resolve(levels, name, tensor=spot.name, position=spot.position, default=default)

        common: dict[str, Scalar] = {}
        each: list[dict[str, Scalar]] = [{} for _ in spot.sources]
        for parameter in self.method.parameters:
            if not parameter.per_model:
                found = value(parameter.name, (*spot.settings, recipe_settings), parameter.default)
                self._note(spot, parameter.name, found, common)
                continue
            for (source, _), own in zip(spot.sources, each, strict=True):
                levels = (source.settings, *spot.settings, recipe_settings)
                self._note(spot, parameter.name, value(parameter.name, levels, parameter.default), own)
        return Values(common=common, each=tuple(each))

    def _sides(self, spot: Spot, values: Values, shape: tuple[int, ...]) -> tuple[SideTensor | None, ...]:
        """What the models' side files have for a tensor: all of them something, or none."""
        parameter = next((p for p in self.method.parameters if p.kind is Kind.FILE), None)
        if parameter is None or self.method.side_shape is None:
            return ()
        wanted = self.method.side_shape(shape, values)
        paths = [str(each.get(parameter.name) or "") for each in values.each]
        if wanted is None or not all(paths):
            return ()
        names = [name for _, name in spot.sources]
        found = tuple(map(self.side_files.tensor, paths, names, [wanted] * len(paths)))
        lacking = [path for path, side in zip(paths, found, strict=True) if side is None]
        if lacking and len(lacking) < len(paths):
            remedy = "compute it for all models, or for none"
            self.faults.add(spot.name, lacking, "stands in the other models' files but not in these", remedy)
        return () if lacking else found

    def _check_values(self, spot: Spot, values: Values) -> None:
        """A fault where the method cannot take these parameters together, at the first such tensor."""
        per_model = sum(parameter.per_model for parameter in self.method.parameters)
        given = (len(values.common), *map(len, values.each))
        if given != (len(self.method.parameters) - per_model, *[per_model] * len(values.each)):
            return  # some have no value, which is noted
        complaint = self.method.check(values)
        if complaint is not None and complaint.parameter not in self._complained:
            self._complained.add(complaint.parameter)
            where = f"parameters.{complaint.parameter}"
            self.faults.add(where, complaint.value, f"{complaint.problem}, at {spot.name}", complaint.remedy)

    def _note(self, spot: Spot, name: str, found: Scalar | None, into: dict[str, Scalar]) -> None:
        if found is None:
            if not any(fault.key == f"parameters.{name}" for fault in self.faults.found):
                self.faults.add(
                    f"parameters.{name}",
                    None,
                    f"has no value for {spot.name}",
                    "add an entry without a filter at the end",
                )
            return
        into[name] = found

    def _part(self, ref: ModelRef, name: str) -> Part | None:
        model = self.models[ref]
        return self._vocabulary.part(model, name) if self._vocabulary else model.part(name)

    def _report_missing(self) -> None:
        if not self._missing:
            return
        names = listed(list(self._missing))
        models = listed(sorted({model for lacking in self._missing.values() for model in lacking}))
        if self.recipe.skip_missing:
            self.warnings.append(f"left out, because {models} lack them: {names}")
        else:
            self.faults.add(
                "",
                None,
                f"{models} lack tensors that others have: {names}",
                "merge models of one architecture, or set skip_missing: true",
            )

    def _donor(self) -> Model:
        recipe = self.recipe
        if recipe.base_model:
            return self.models[recipe.base_model]
        return next(iter(self.models.values()))

    def _config(self, donor: Model, tasks: Sequence[TensorTask]) -> dict[str, Any]:
        config = dict(donor.checkpoint.config)
        if self.recipe.slices:
            parts = [
                (self.models[s.sources[0].model].checkpoint.config, *(s.sources[0].layers or (0, 0)))
                for s in self.recipe.slices
            ]
            config = with_layers(config, parts)
            if config == donor.checkpoint.config and sum(stop - start for _, start, stop in parts) != max(
                layer_counts(donor.checkpoint.tensors).values(), default=0
            ):
                self.warnings.append(
                    "config.json names no number of layers that could be set; set it by hand"
                )
        stated = self.recipe.out_dtype or self.recipe.dtype
        for key in ("torch_dtype", "dtype"):
            if stated and key in config:
                config[key] = stated.removeprefix("torch.")
        table = next((task for task in tasks if place_of(task.name).role is Role.EMBEDDING), None)
        if table is not None and "vocab_size" in config:
            config["vocab_size"] = table.shape[0]
        if any(place_of(task.name).role is Role.HEAD for task in tasks) and config.get("tie_word_embeddings"):
            config["tie_word_embeddings"] = False
        return config
