"""What each parent of a merge contributed to it: least-squares coefficients by layer, module and whole.

Everything is told from inner products of the parents' task vectors (of their weights, where there is
no base) with one another and with the merged checkpoint's, one matrix a tensor. These add up over
tensors. Memory does not depend on the models' size. How it is shown is not known here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np

from modelyard.core.errors import MergeError
from modelyard.merging.architecture import Role, place_of
from modelyard.merging.blocks import Floats, Source, Workspace
from modelyard.merging.engine import read_record
from modelyard.merging.measuring import (
    Observer,
    comparable,
    float_blocks,
    inner_products,
    measured,
    open_model,
    open_reference,
    parts_of,
    zeroed,
)
from modelyard.merging.models import Model
from modelyard.merging.recipe import ModelRef

#: Directions of the parents' span below this share of the largest count as rounding.
_RANK_TOLERANCE = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Contribution:
    """Inner products of the parents' vectors at one tensor; those of the merged one come last."""

    name: str
    gram: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """The merged tensor as a sum of its parents', by least squares."""

    # One a parent; NaN for one that is equal to the base, or zero.
    coefficients: tuple[float, ...]
    # The share of the merged vector's squared norm that the sum accounts for; NaN for a zero vector.
    explained: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Contributions:
    """What each parent contributed to a merged checkpoint."""

    parents: tuple[str, ...]
    # Task vectors to this base are meant; None: the weights themselves.
    base: str | None
    tensors: tuple[Contribution, ...]
    # Not told: of another shape, not in every parent, or rearranged with the vocabulary.
    skipped: tuple[str, ...]


def contributions(folder: Path, *, threads: int = 1, observe: Observer = lambda _item: None) -> Contributions:
    """Measure a merged checkpoint against the parents that its record names.

    Raises:
        MergeError: The record is missing, a parent is gone, or layers were moved, so that names do not
            tell which tensors belong together.
        CheckpointError: A model cannot be read.
    """
    record = read_record(folder)
    recipe = record["identity"]["recipe"]
    refs, base_ref = _parent_refs(folder, recipe)
    parents = [_parent(folder, ref, record["parents"]) for ref in refs]
    base = _parent(folder, base_ref, record["parents"]) if base_ref else None
    out = open_model(str(folder))
    jobs = {}
    for name in out.checkpoint.tensors:
        models = (*parents, out, *([base] if base else []))
        moved = recipe["tokenizer"] is not None and place_of(name).role is not Role.OTHER
        if not moved and comparable(models, name):
            jobs[name] = parts_of(models, name)
    grams = measured(jobs, partial(_inner, relative=base is not None), threads=threads, observe=observe)
    return Contributions(
        parents=tuple(str(ref) for ref in refs),
        base=str(base_ref) if base_ref else None,
        tensors=tuple(Contribution(name=name, gram=gram) for name, gram in grams.items()),
        skipped=tuple(name for name in out.checkpoint.tensors if name not in jobs),
    )


def shares(tensors: Iterable[Contribution]) -> Shares:
    """The coefficients by which the parents' vectors come nearest to the merged one, over all tensors.

    Where parents are linearly dependent, of all such coefficients those of least norm, each parent's
    vector brought to length one: equal parents share equally.
    """
    gram = reduce(add, (each.gram for each in tensors))
    own, target, whole = gram[:-1, :-1], gram[:-1, -1], float(gram[-1, -1])
    norms = np.sqrt(np.diag(own))
    there = np.flatnonzero(norms)
    unit = own[np.ix_(there, there)] / np.outer(norms[there], norms[there])
    coefficients = np.full(len(norms), np.nan)
    inverse = np.linalg.pinv(unit, rcond=_RANK_TOLERANCE, hermitian=True)
    coefficients[there] = inverse @ (target[there] / norms[there]) / norms[there]
    fitted = float(coefficients[there] @ target[there])
    return Shares(
        coefficients=tuple(float(c) for c in coefficients),
        explained=min(1.0, max(0.0, fitted / whole)) if whole else math.nan,
    )


def _parent_refs(folder: Path, recipe: Mapping[str, Any]) -> tuple[list[ModelRef], ModelRef | None]:
    """The models that were merged, and the one base that their differences were taken from."""
    groups = [recipe, *recipe["modules"].values()]
    slices = [part for group in groups for part in group["slices"]]
    if not all(_in_place(group["slices"]) for group in groups):
        raise MergeError(
            f"{folder}: its merge moved layers, so that names do not tell which tensors belong together; "
            "give the output of a merge that kept all layers in their places"
        )
    sources = [source for group in groups for source in group["models"]]
    sources += [source for part in slices for source in part["sources"]]
    bases = {ModelRef(**each["base_model"]) for each in (recipe, *slices) if each["base_model"]}
    if len(bases) > 1:
        raise MergeError(
            f"{folder}: its merge has {len(bases)} bases ({', '.join(sorted(map(str, bases)))}), where one "
            "is needed; give the output of a merge with one base"
        )
    refs = dict.fromkeys(ModelRef(**source["model"]) for source in sources)
    return [ref for ref in refs if ref not in bases], next(iter(bases), None)


def _in_place(slices: Sequence[Mapping[str, Any]]) -> bool:
    """Whether every layer of every source stands where it does in the output."""
    reached = 0
    for part in slices:
        ranges = [source["layers"] for source in part["sources"]]
        if any(layers is not None and layers[0] != reached for layers in ranges):
            return False
        reached = max((layers[1] for layers in ranges if layers is not None), default=reached)
    return True


def _parent(folder: Path, ref: ModelRef, known: Mapping[str, Any]) -> Model:
    place = known.get(str(ref), {}).get("path")
    if place is None:
        raise MergeError(
            f"{folder}: its parent {ref} was made on the way and is not kept; merge it into a folder of its "
            "own first"
        )
    return open_reference(ref, Path(place))


def _inner(sources: Sequence[Source], size: int, *, relative: bool) -> Floats:
    """The Gram matrix of one tensor of all models."""
    space = Workspace()
    out = np.zeros((len(sources) - relative, len(sources) - relative))
    for _, rows, wrong in float_blocks(sources, size, space):
        if wrong:
            zeroed(rows)
        out += inner_products(rows, space, relative=relative)
    return out
