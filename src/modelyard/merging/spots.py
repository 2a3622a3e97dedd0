"""Which tensors an output has: for each its name there and in every source, and where it lies on gradients.

Walks over models, slices and modules; what is done to a tensor is not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from modelyard.core.faults import Faults
from modelyard.merging.architecture import Place, layer_counts, place_of
from modelyard.merging.method import Base, MergeMethod
from modelyard.merging.models import Model
from modelyard.merging.recipe import Ends, ModelRef, Recipe, Settings, Slice, Source
from modelyard.merging.settings import position_in_slice


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot:
    """One output tensor in the making: the name in the output and in each source."""

    name: str
    sources: tuple[tuple[Source, str], ...]
    base: tuple[ModelRef, str] | None
    # Outermost last: slice, module.
    settings: tuple[Settings, ...]
    position: float


class Spots:
    """The tensors of one recipe's output; `faults` takes layers that are asked for and not there."""

    def __init__(
        self, recipe: Recipe, method: MergeMethod, models: Mapping[ModelRef, Model], faults: Faults
    ) -> None:
        self.recipe, self.method, self.models, self.faults = recipe, method, models, faults

    def __iter__(self) -> Iterator[Spot]:
        recipe = self.recipe
        if recipe.models:
            yield from self._whole(recipe.models, ())
        elif recipe.slices:
            yield from self._sliced(recipe.slices, ())
        for name, module in recipe.modules.items():
            inside = within(name)
            if module.models:
                yield from self._whole(module.models, (module.settings,), inside)
            else:
                yield from self._sliced(module.slices, (module.settings,), inside)

    def _whole(
        self,
        sources: Sequence[Source],
        settings: tuple[Settings, ...],
        inside: Callable[[str], bool] | None = None,
    ) -> Iterator[Spot]:
        """All tensors of models that are merged as they are."""
        refs = [source.model for source in sources]
        lead = self.recipe.base_model or refs[0]
        order = self._names((lead, *refs, *self._taken_from()))
        counts = layer_counts(order)
        for name in order:
            if inside is not None and not inside(name):
                continue
            place = place_of(name)
            if place.stack is not None and place.layer is not None:
                position = position_in_slice(place.layer, counts[place.stack])
            else:
                position = self._outside(name)
            base = (self.recipe.base_model, name) if self.recipe.base_model else None
            yield Spot(
                name=name,
                sources=tuple((s, name) for s in sources),
                base=base,
                settings=settings,
                position=position,
            )

    def _sliced(
        self,
        slices: Sequence[Slice],
        settings: tuple[Settings, ...],
        inside: Callable[[str], bool] | None = None,
    ) -> Iterator[Spot]:
        """Layers put together from slices; what is outside them from the first or the last."""
        if not self._check_ranges(slices, inside):
            return
        yield from self._outer(slices[0], settings, inside, end=False)
        layer = 0
        for part in slices:
            first = part.sources[0]
            start, stop = first.layers or (0, 0)
            for i in range(stop - start):
                yield from self._layer(part, settings, inside, (i, stop - start, layer))
                layer += 1
        yield from self._outer(slices[-1], settings, inside, end=True)

    def _outer(
        self, part: Slice, settings: tuple[Settings, ...], inside: Callable[[str], bool] | None, *, end: bool
    ) -> Iterator[Spot]:
        refs = [source.model for source in (*part.sources, *self._lead())]
        for name in self._names((*refs, *self._taken_from())):
            place = place_of(name)
            if place.stack is not None or place.end != end or (inside is not None and not inside(name)):
                continue
            sources, base = _parted(part, self._base_of(part), partial(_same, name))
            yield Spot(
                name=name,
                sources=sources,
                base=base,
                settings=(part.settings, *settings),
                position=self._outside(name),
            )

    def _layer(
        self,
        part: Slice,
        settings: tuple[Settings, ...],
        inside: Callable[[str], bool] | None,
        at: tuple[int, int, int],
    ) -> Iterator[Spot]:
        """The tensors of one layer; `at` is its index in the slice, the slice's length, and its number."""
        index, length, layer = at
        for place in self._places_in(part, index, inside):
            sources, base = _parted(part, self._base_of(part), partial(_named_in, place, index))
            yield Spot(
                name=place.named(layer), sources=sources, base=base,
                settings=(part.settings, *settings), position=position_in_slice(index, length),
            )  # fmt: skip

    def _places_in(self, part: Slice, index: int, inside: Callable[[str], bool] | None) -> Iterable[Place]:
        """The tensors of the `index`-th layer of a slice, in any of its sources, numbered as in the first."""
        found: dict[str, Place] = {}
        for source in part.sources:
            for name in self.models[source.model].checkpoint.tensors:
                place = place_of(name)
                if place.stack is None or place.layer != (source.layers or (0, 0))[0] + index:
                    continue
                if inside is None or inside(name):
                    found.setdefault(f"{place.stack}.{place.rest}", place)
        return found.values()

    def _base_of(self, part: Slice) -> ModelRef | None:
        """The base of a slice, where the method has one that takes part."""
        return None if self.method.base is Base.IGNORED else part.base_model or self.recipe.base_model

    def _check_ranges(self, slices: Sequence[Slice], inside: Callable[[str], bool] | None) -> bool:
        """Whether every source has the layers that are asked of it."""
        before = len(self.faults.found)
        for i, part in enumerate(slices):
            for j, source in enumerate(part.sources):
                names = [
                    n for n in self.models[source.model].checkpoint.tensors if inside is None or inside(n)
                ]
                counts = layer_counts(names)
                key = f"slices[{i}].sources[{j}].layer_range"
                if len(counts) != 1:
                    self.faults.add(
                        key,
                        list(counts),
                        "cannot be cut: the model has not one stack of layers",
                        "use models, or modules with one stack each",
                    )
                elif source.layers and source.layers[1] > max(counts.values()):
                    self.faults.add(
                        key, list(source.layers),
                        f"goes beyond the {max(counts.values())} layers of {source.model}",
                        "the second number is the layer after the last",
                    )  # fmt: skip
        return len(self.faults.found) == before

    def _outside(self, name: str) -> float:
        """Where on a gradient a tensor outside the layers lies."""
        return 1.0 if self.recipe.gradient_ends is Ends.POSITION and place_of(name).end else 0.0

    def _names(self, refs: Iterable[ModelRef]) -> list[str]:
        """The names of all tensors of some models, in the order in which they are met."""
        return list(dict.fromkeys(n for ref in refs for n in self.models[ref].checkpoint.tensors))

    def _taken_from(self) -> list[ModelRef]:
        return [ref for ref in (self.recipe.embedding_source, self.recipe.lm_head_source) if ref]

    def _lead(self) -> tuple[Source, ...]:
        """The sources of the first slice, which tell whether the output has a head of its own."""
        return self.recipe.slices[0].sources if self.recipe.slices else ()


def within(module: str) -> Callable[[str], bool]:
    """Tells whether a tensor belongs to a module of a model, by its name."""

    def inside(name: str) -> bool:
        return name.startswith(f"{module}.") or f".{module}." in name

    return inside


def _named_in(place: Place, index: int, source: Source) -> str:
    """The name of a tensor in the layer that a source gives as the `index`-th of a slice."""
    return place.named((source.layers or (0, 0))[0] + index)


def _parted(
    part: Slice, base: ModelRef | None, named: Callable[[Source], str]
) -> tuple[tuple[tuple[Source, str], ...], tuple[ModelRef, str] | None]:
    """The sources of a slice and its base, each with the tensor's name there."""
    sources = tuple((source, named(source)) for source in part.sources if source.model != base)
    if base is None:
        return sources, None
    own = next((source for source in part.sources if source.model == base), part.sources[0])
    return sources, (base, named(own))


def _same(name: str, _source: Source) -> str:
    return name
