"""The command line of 2023 (mergekit's first `main.py`), as a recipe that gives the same checkpoint.

What that program did, and newer ones do not: gradients whose knots are met twice, the final norm at
the last knot, embeddings cut to the rows that all models have, embeddings and head stored in
float32. Facts were found by running it (tag `legacy` of its repository); none of its text is here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

import numpy as np

from modelyard.core.errors import DocumentError, Fault
from modelyard.merging.recipe import Conditional, ModelRef, Recipe, Scalar, Setting, Source

#: What `ties` kept where nothing was said.
_DENSITY = 0.33
_FLOAT32 = (("model.embed_tokens.weight", "float32"), ("lm_head.weight", "float32"))


class HeadGradient(StrEnum):
    """Which value of a gradient the output head takes."""

    # As the program did, by a slip in a name: none, so that slerp keeps the base's head.
    BASE = "base"
    # As it meant to: the last.
    END = "end"


@dataclass(frozen=True, slots=True, kw_only=True)
class LegacyCommand:
    """The options of the command, in its words."""

    merge: tuple[str, ...]
    weight: tuple[float, ...] = ()
    density: tuple[float, ...] = ()
    layer_gradient: str | None = None
    method: str = "ties"
    base_model: str | None = None
    normalize: bool = True
    bf16: bool = True
    naive_count: bool = False
    head_gradient: HeadGradient = HeadGradient.BASE


def model_ref(text: str) -> ModelRef:
    """A model as `PATH` or `PATH+LORA`."""
    path, _, lora = text.partition("+")
    return ModelRef(path=path, lora=lora or None)


def legacy_recipe(command: LegacyCommand, *, layers: int) -> Recipe:
    """The recipe of a command.

    Args:
        command: Its options.
        layers: How many layers the models have; gradients depend on it.

    Raises:
        DocumentError: The options contradict one another.
    """
    models = [model_ref(text) for text in command.merge]
    base = model_ref(command.base_model) if command.base_model else None
    if base and base not in models:
        models.insert(0, base)
    if command.method == "slerp" and base is None:
        base = models[0]
    gradient = _gradient(command, models, layers)
    others = (
        [m for m in models if m != base]
        if command.method != "linear"
        else [model_ref(t) for t in command.merge]
    )
    return Recipe(
        method=command.method,
        base_model=base,
        models=_sources(command, models, others, gradient),
        settings=_settings(command, gradient),
        dtype="bfloat16" if command.bf16 else None,
        dtype_overrides=_FLOAT32,
        truncate_embeddings=True,
        skip_missing=True,
    )


def gradient_values(knots: Sequence[float], count: int) -> list[float]:
    """The program's values for `count` places: each segment evenly from knot to knot, both included.

    Neighbouring segments so meet their common knot twice; what division leaves over takes the last.

    Raises:
        DocumentError: There are more segments than places.
    """
    each = count // (len(knots) - 1)
    if each == 0:
        raise _refused(
            "--layer-gradient",
            json.dumps(list(knots)),
            f"has more knots than the {count} places",
            "give fewer knots",
        )
    values = [float(v) for a, b in pairwise(knots) for v in np.linspace(a, b, each)]
    return values + [float(knots[-1])] * (count - len(values))


def _gradient(
    command: LegacyCommand, models: Sequence[ModelRef], layers: int
) -> tuple[Conditional, ...] | None:
    """The gradient as values for tensor names: embedding, layers, final norm, head."""
    if command.layer_gradient is None:
        return None
    knots = _knots(command.layer_gradient)
    if len(models) != 2:
        raise _refused(
            "--layer-gradient", command.layer_gradient, f"needs exactly two models, not {len(models)}",
            "count the base model as one of them",
        )  # fmt: skip
    values = gradient_values(knots, layers + 2)
    faithful = command.head_gradient is HeadGradient.BASE and command.method == "slerp"
    return (
        Conditional(filter="embed_tokens", value=values[0]),
        *(Conditional(filter=f".layers.{i}.", value=values[i + 1]) for i in range(layers)),
        Conditional(filter="lm_head", value=0.0 if faithful else values[-1]),
        Conditional(value=values[-1]),
    )


def _knots(text: str) -> list[float]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if (
        isinstance(value, list)
        and len(value) >= 2
        and all(isinstance(k, int | float) and not isinstance(k, bool) and math.isfinite(k) for k in value)
    ):
        return [float(k) for k in value]
    raise _refused(
        "--layer-gradient", text, "is not a JSON list of two or more numbers", 'write it like "[0, 0.5, 1]"'
    )


def _sources(
    command: LegacyCommand, models: Sequence[ModelRef], others: Sequence[ModelRef],
    gradient: tuple[Conditional, ...] | None,
) -> tuple[Source, ...]:  # fmt: skip
    if command.method == "slerp":
        return tuple(Source(model=model) for model in others)
    merged = [model_ref(text) for text in command.merge]
    weights = (
        dict(zip(merged, _spread("--weight", command.weight, len(merged)), strict=True))
        if command.weight
        else {}
    )
    densities = (
        dict(zip(merged, _spread("--density", command.density, len(merged)), strict=True))
        if command.density
        else {}
    )
    if command.method == "linear" and not weights and gradient is None:
        raise _refused(
            "--weight", "", "is missing", "linear needs a weight for each --merge, or a --layer-gradient"
        )
    sources = []
    for model in others:
        weight: Setting = weights.get(model, 0.0 if command.method == "linear" else 1.0)
        if gradient is not None:
            weight = gradient if model == models[1] else _complement(gradient)
        settings: dict[str, Setting] = {"weight": weight}
        if command.method == "ties":
            settings["density"] = densities.get(model, _DENSITY)
        sources.append(Source(model=model, settings=settings))
    return tuple(sources)


def _settings(command: LegacyCommand, gradient: tuple[Conditional, ...] | None) -> dict[str, Setting]:
    if command.method == "slerp":
        if gradient is None and len(command.weight) != 1:
            raise _refused(
                "--weight",
                str(list(command.weight)),
                "is not exactly one value",
                "slerp takes one weight, its t",
            )
        return {"t": gradient if gradient is not None else command.weight[0]}
    settings: dict[str, Setting] = {"normalize": command.normalize}
    if command.method == "ties" and command.naive_count:
        settings["consensus_method"] = "count"
    return settings


def _complement(gradient: tuple[Conditional, ...]) -> tuple[Conditional, ...]:
    return tuple(Conditional(filter=c.filter, value=1.0 - _number(c.value)) for c in gradient)


def _number(value: Scalar | tuple[Scalar, ...]) -> float:
    return float(value) if not isinstance(value, tuple) else math.nan


def _spread(option: str, values: Sequence[float], count: int) -> list[float]:
    if not all(math.isfinite(value) for value in values):
        raise _refused(option, str(list(values)), "is not finite", "write numbers")
    if len(values) == 1:
        return [values[0]] * count
    if len(values) != count:
        raise _refused(
            option,
            str(list(values)),
            f"has {len(values)} values for {count} models",
            "give one for all, or one for each --merge",
        )
    return list(values)


def _refused(option: str, value: str, problem: str, remedy: str) -> DocumentError:
    return DocumentError(
        [Fault(file="merge legacy", key=option, value=value, problem=problem, remedy=remedy)]
    )
