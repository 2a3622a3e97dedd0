"""The models that a recipe names: opened, with their adapters, and what each has to give to a tensor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from modelyard.artifacts.checkpoints import Checkpoint, open_checkpoint
from modelyard.artifacts.safetensors import TensorInfo
from modelyard.core.errors import CheckpointError
from modelyard.core.faults import Faults
from modelyard.merging.architecture import Role, embedding_name, place_of, stored_turned
from modelyard.merging.lora import Adapter, read_adapter, unmatched
from modelyard.merging.parts import AdaptedPart, Part, StoredPart, VocabularyPart
from modelyard.merging.recipe import ModelRef, Recipe, Slice, Source
from modelyard.merging.tokenizer_files import Tokenizer, read_tokenizer
from modelyard.merging.vocabulary import VocabularyPlan, plan_vocabulary

#: How many names a message lists.
_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model of a recipe, opened."""

    ref: ModelRef
    checkpoint: Checkpoint
    adapter: Adapter | None = None
    # Made by an earlier document of the same file, and removed in the end.
    stage: bool = False

    def info(self, name: str) -> TensorInfo | None:
        """The stored tensor of that name; a head that is tied to the embedding is the embedding."""
        tensors = self.checkpoint.tensors
        if name in tensors:
            return tensors[name]
        if place_of(name).role is Role.HEAD and name.endswith(".weight"):
            tied = embedding_name(tensors)
            return tensors[tied] if tied else None
        return None

    def part(self, name: str) -> Part | None:
        """What it gives to a tensor, its adapter added; None where it has nothing of the name."""
        info = self.info(name)
        if info is None or self.adapter is None:
            return StoredPart(info=info) if info else None
        name = info.name  # of a tied head, the embedding's: what adapts the one adapts the other
        replacement = self.adapter.replacement(name)
        if replacement is not None:
            return StoredPart(info=replacement)
        update = self.adapter.delta(name)
        if update is None:
            return StoredPart(info=info)
        turned = stored_turned(name, self.checkpoint.config)
        return AdaptedPart(info=info, update=update.fitted(info.shape, turned=turned))


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """The output's vocabulary, and all models in the order in which its plan has them."""

    plan: VocabularyPlan
    models: tuple[Model, ...]
    tokenizers: tuple[Tokenizer, ...]

    def part(self, model: Model, name: str) -> Part | None:
        """What a model gives to a tensor; where that has one row a token, in the order of the output."""
        own = model.part(name)
        if own is None or place_of(name).role is Role.OTHER:
            return own
        parts = [part for other in self.models if (part := other.part(name)) is not None]
        if len(parts) < len(self.models):
            return None  # a token's row may be another model's, so that every model must have the tensor
        return VocabularyPart(parts=parts, model=self.models.index(model), plan=self.plan)


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where models lie: relative to a folder, or known by name."""

    folder: Path
    known: Mapping[str, Path]

    def of(self, path: str) -> Path:
        """The path of a model."""
        try:
            return self.known.get(path) or self.folder / Path(path).expanduser()
        except RuntimeError:  # ~ of somebody who is not known here
            return self.folder / path


def references(recipe: Recipe) -> Iterator[tuple[str, ModelRef]]:
    """Every model that a recipe names, with its key; the base first."""
    if recipe.base_model:
        yield "base_model", recipe.base_model
    yield from _inner_references("", recipe.models, recipe.slices)
    for name, module in recipe.modules.items():
        yield from _inner_references(f"modules.{name}.", module.models, module.slices)
    for key, ref in (
        ("embedding_source", recipe.embedding_source),
        ("lm_head_source", recipe.lm_head_source),
    ):
        if ref:
            yield key, ref
    if recipe.tokenizer and isinstance(recipe.tokenizer.source, ModelRef):
        yield "tokenizer.source", recipe.tokenizer.source
    for token, rule in (recipe.tokenizer.tokens if recipe.tokenizer else {}).items():
        if rule.model:
            yield f"tokenizer.tokens.{token}.source", rule.model


def _inner_references(
    key: str, models: Sequence[Source], slices: Sequence[Slice]
) -> Iterator[tuple[str, ModelRef]]:
    for i, source in enumerate(models):
        yield f"{key}models[{i}].model", source.model
    for i, part in enumerate(slices):
        for j, source in enumerate(part.sources):
            yield f"{key}slices[{i}].sources[{j}].model", source.model
        if part.base_model:
            yield f"{key}slices[{i}].base_model", part.base_model


def open_models(recipe: Recipe, faults: Faults, places: Places) -> dict[ModelRef, Model]:
    """Open every model of a recipe; a fault for each that cannot be used."""
    models: dict[ModelRef, Model] = {}
    for key, ref in references(recipe):
        if ref in models:
            continue
        try:
            checkpoint = open_checkpoint(places.of(ref.path))
            adapter = read_adapter(places.of(ref.lora)) if ref.lora else None
        except CheckpointError as error:
            faults.add(
                key, str(ref), str(error), "name a folder or file; a model of a hub must be downloaded first"
            )
            continue
        lost = unmatched(adapter, checkpoint.tensors) if adapter else []
        if lost:
            faults.add(
                key,
                str(ref),
                f"has adapter weights for {listed(lost)}, which the model lacks",
                "name its own base",
            )
        if "quantization_config" in checkpoint.config:
            faults.add(key, str(ref), "is quantised", "give the checkpoint that it was quantised from")
        models[ref] = Model(ref=ref, checkpoint=checkpoint, adapter=adapter, stage=ref.path in places.known)
    return models


def open_vocabulary(recipe: Recipe, models: Mapping[ModelRef, Model]) -> Vocabulary | None:
    """The vocabulary that a recipe asks for; None where it names no tokenizer.

    Raises:
        MergeError: A model's tokenizer cannot be read, or does not fit.
    """
    choice = recipe.tokenizer
    if choice is None:
        return None
    order = list(models)
    tokenizers, rows = [], []
    for model in models.values():
        tokenizers.append(read_tokenizer(model.checkpoint.folder))
        table = embedding_name(model.checkpoint.tensors)
        rows.append(model.checkpoint.tensors[table].shape[0] if table else len(tokenizers[-1].tokens))
    plan = plan_vocabulary(
        choice,
        tokenizers,
        rows=rows,
        base=order.index(recipe.base_model) if recipe.base_model else None,
        chosen=order.index(choice.source) if isinstance(choice.source, ModelRef) else None,
        models=order,
    )
    return Vocabulary(plan=plan, models=tuple(models.values()), tokenizers=tuple(tokenizers))


def listed(names: Sequence[str]) -> str:
    """Names for a message, the first few of many."""
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
