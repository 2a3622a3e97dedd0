"""Every merge method, run on real files, against the float64 references of `tests/reference`.

Inputs are of several types and cross a block's edge; the output must be the reference's result rounded
to its type, up to the last place. The random methods' references get the masks that were drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.reference import merge_by_decomposition as decomposition
from tests.reference import merge_methods as reference
from tests.unit.merging.bench import Bench, Typed, merged, opened, typed, ulps

from modelyard.artifacts.safetensors import DType
from modelyard.merging.blocks import BLOCK
from modelyard.merging.method import method_names

F32, BF16, F16, F64 = DType.F32, DType.BF16, DType.F16, DType.F64
#: Odd sizes; the first has more elements than a block.
LARGE = (363, 365)
SHAPES = [LARGE, (11, 23), (23, 11), (37,), (3, 5, 7), (1, 9), (9, 1), (1,), ()]
#: Types of the base and of each model, and of the output.
TYPES = {"bf16": (BF16, [BF16, BF16, BF16, BF16], BF16), "mixed": (BF16, [F32, F16, BF16, F64], F32)}
WEIGHTS = [0.7, -0.4, 1.3, 0.25]
DENSITIES = [0.5, 0.31, 1.0, 0.77]
GAMMAS = [0.01, 0.2, 0.1, 0.6]
EPSILONS = [0.15, 0.3, 0.1, 0.2]

Array = np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A method with settings, and the reference's answer to base, models and random numbers."""

    method: str
    answer: Callable[[Array, list[Array], list[Array]], Array]
    count: int = 3
    base: bool = True
    settings: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return "-".join([self.method, *(f"{k}" for k in self.settings if k != "weight"), f"of{self.count}"])


def case(method, answer, count=3, *, base=True, **settings) -> Case:
    return Case(method=method, answer=answer, count=count, base=base, settings=settings)


def dropped(keep, **options):
    """The reference of DARE or DELLA; `keep(b, x_j, j)` gives the probabilities of model j."""

    def answer(b, x, u):
        chances = [keep(b, x[j], j) for j in range(len(x))]
        masks = [u[j] < chances[j] for j in range(len(x))]
        return reference.dropped(b, x, weights=WEIGHTS[: len(x)], masks=masks, keep=chances, **options)

    return answer


def dare(b, x, j):
    return np.full(b.shape, DENSITIES[j])


def magprune(b, x, j):
    return reference.keep_probabilities(x - b, density=DENSITIES[j], epsilon=EPSILONS[j])


def weighted(function, count, **options):
    return lambda b, x, u: function(b, x, weights=WEIGHTS[:count], **options)


W, D = {"weight": WEIGHTS}, {"weight": WEIGHTS, "density": DENSITIES}
DE = {**D, "epsilon": EPSILONS}
D3, G3 = {"densities": DENSITIES[:3]}, {"gammas": GAMMAS[:3]}
ref, dec = reference, decomposition
CASES = [
    case("linear", lambda b, x, u: ref.linear(x, weights=WEIGHTS[:3]), base=False, **W),
    case("linear", lambda b, x, u: ref.linear(x, weights=WEIGHTS, normalize=False), 4, base=False,
         normalize=False, **W),
    case("passthrough", lambda b, x, u: ref.passthrough(x[0], scale=1.7), 1, base=False, scale=1.7),
    case("slerp", lambda b, x, u: ref.slerp(b, x[0], t=0.3), 1, t=0.3),
    case("nuslerp", lambda b, x, u: ref.nuslerp(*x, weights=(0.7, 1.1)), 2, base=False, weight=[0.7, 1.1]),
    case("nuslerp", lambda b, x, u: ref.nuslerp(*x, weights=(0.7, 1.1), base=b), 2, weight=[0.7, 1.1]),
    case("nuslerp", lambda b, x, u: ref.nuslerp(*x, weights=(0.7, 1.1), base=b, flatten=False), 2,
         weight=[0.7, 1.1], nuslerp_flatten=False),
    case("nuslerp", lambda b, x, u: ref.nuslerp(*x, weights=(1, 2), flatten=False, row_wise=True), 2,
         base=False, weight=[1, 2], nuslerp_flatten=False, nuslerp_row_wise=True),
    case("multislerp", lambda b, x, u: ref.multislerp(x, weights=WEIGHTS), 4, base=False, **W),
    case("multislerp", lambda b, x, u: ref.multislerp(x, weights=WEIGHTS[:3], base=b), **W),
    case("multislerp", lambda b, x, u: ref.multislerp(x, weights=WEIGHTS[:3], normalize_weights=False),
         base=False, normalize_weights=False, **W),
    case("karcher", lambda b, x, u: ref.karcher(x), base=False),
    case("karcher", lambda b, x, u: ref.karcher(x, max_iter=3, tol=0.0), 4,
         base=False, max_iter=3, tol=0.0),
    case("model_stock", lambda b, x, u: ref.model_stock(b, x), 4),
    case("model_stock", lambda b, x, u: ref.model_stock(b, x, filter_wise=True), filter_wise=True),
    # With inner products: test_regmean.py.
    case("regmean", lambda b, x, u: ref.linear(x, weights=[1.0] * 3), base=False, grams=""),
    case("nearswap", lambda b, x, u: ref.nearswap(b, x[0], t=0.007), 1, t=0.007),
    case("arcee_fusion", lambda b, x, u: ref.arcee_fusion(b, x[0]), 1),
    case("task_arithmetic", weighted(ref.task_arithmetic, 3, lam=0.6), **W, **{"lambda": 0.6}),
    case("task_arithmetic", weighted(ref.task_arithmetic, 4, normalize=True), 4, normalize=True, **W),
    case("ties", weighted(ref.ties, 3, **D3), **D),
    case("ties", weighted(ref.ties, 3, **D3, rescale=True, normalize=False, lam=1.4),
         rescale=True, normalize=False, **D, **{"lambda": 1.4}),
    case("dare_linear", dropped(dare, consensus=False), **D),
    case("dare_linear", dropped(dare, consensus=False, rescale="density", normalize=True),
         rescale_by="density", normalize=True, **D),
    case("dare_ties", dropped(dare, consensus=True), **D),
    case("dare_ties", dropped(dare, consensus=True, rescale="none", lam=0.5), rescale=False, **D,
         **{"lambda": 0.5}),
    case("breadcrumbs", weighted(ref.breadcrumbs, 3, **D3, **G3), gamma=GAMMAS, **D),
    case("breadcrumbs", weighted(ref.breadcrumbs, 3, **D3, **G3, rescale=True, normalize=True, lam=0.9),
         gamma=GAMMAS, rescale=True, normalize=True, **D, **{"lambda": 0.9}),
    case("breadcrumbs_ties", weighted(ref.breadcrumbs, 3, **D3, **G3, consensus=True), gamma=GAMMAS, **D),
    case("della_linear", dropped(magprune, consensus=False), **DE),
    case("della_linear", dropped(magprune, consensus=False, rescale="density", normalize=True),
         rescale_by="density", normalize=True, **DE),
    case("della", dropped(magprune, consensus=True, normalize=True), **DE),
    case("della", dropped(magprune, consensus=True, rescale="none", lam=1.2), rescale=False,
         normalize=False, **DE, **{"lambda": 1.2}),
    case("sce", lambda b, x, u: ref.sce(b, x)),
    case("sce", lambda b, x, u: ref.sce(b, x, select_topk=0.37), 4, select_topk=0.37),
    case("ram", lambda b, x, u: ref.ram(b, x, epsilon=0.006), 4, epsilon=0.006),
    case("ramplus_tl", lambda b, x, u: ref.ramplus_tl(b, x, r=0.4, alpha=0.8, epsilon=0.015),
         r=0.4, alpha=0.8, epsilon=0.015),
    case("tsv_merge", lambda b, x, u: dec.tsv_merge(b, x, lam=0.8), 2, **{"lambda": 0.8}),
    case("iso_c", lambda b, x, u: dec.iso_c(b, x, lam=0.8), **{"lambda": 0.8}),
    case("knots", lambda b, x, u: dec.knots(b, x, weights=[1, 2, 0.5], densities=DENSITIES[:3], lam=0.9),
         weight=[1, 2, 0.5], density=DENSITIES, **{"lambda": 0.9}),
]  # fmt: skip
#: What a sum in float64 of entries of about 0.2 may be off, where they cancel.
ROUNDING = 1e-16
#: Rank-deficient: there the reference takes the singular vectors that LAPACK happens to give.
DECOMPOSED = {"tsv_merge", "iso_c", "knots"}


def inputs(shape, types, count) -> tuple[Typed, list[Typed]]:
    """A base and fine-tunes of it; a quarter of the differences is zero, as in sparse fine-tuning."""
    chance = np.random.default_rng([*shape, count])
    base = typed(0.05 * chance.standard_normal(shape), types[0])
    models = []
    for dtype in types[1][:count]:
        change = 0.01 * chance.standard_normal(shape) * (chance.random(shape) < 0.75)
        models.append(typed(base.values + change, dtype))
    return base, models


def drawn(bench: Bench, models, base, method, settings) -> list[Array]:
    """The random numbers of each model at this tensor."""
    with opened(bench, models, base, settings, method) as tensors:
        return [tensors.uniforms(j).reshape(tensors.shape) for j in range(tensors.count)]


def compared(folder: Path, given: Case, shape, types) -> tuple[Typed, Typed]:
    """The method's output, and what it should be."""
    base, models = inputs(shape, types, given.count)
    bench = Bench(folder=folder, dtype=types[2], seed=11)
    settings = {k: v[: given.count] if isinstance(v, list) else v for k, v in given.settings.items()}
    out = merged(bench, given.method, models, base if given.base else None, **settings)
    uniforms = drawn(bench, models, base, given.method, settings)
    # A number is a vector of one element, for the references as for the methods.
    b, *x = (np.atleast_1d(tensor.values) for tensor in (base, *models))
    expected = given.answer(b, x, [np.atleast_1d(u) for u in uniforms])
    return out, typed(expected.reshape(shape), types[2])


def compared_shapes():
    """Each case with its shapes; the singular vectors of a single row or column are arbitrary."""
    thin = {(1, 9), (9, 1)}
    return [
        (given, shape)
        for given in CASES
        for shape in SHAPES
        if given.method not in DECOMPOSED or shape not in thin
    ]


@pytest.mark.parametrize("types", TYPES)
@pytest.mark.parametrize(("given", "shape"), compared_shapes(), ids=str)
def test_the_output_is_the_rounded_reference(tmp_path, given, shape, types):
    out, expected = compared(tmp_path, given, shape, TYPES[types])
    assert np.isfinite(out.values).all()
    assert ulps(out, expected, rounding=ROUNDING) <= 1


def test_every_installed_method_is_compared():
    ours = {name for name in method_names() if not name.startswith("_")}
    assert {given.method for given in CASES} == ours


def test_the_large_shape_crosses_a_block():
    assert np.prod(LARGE) > BLOCK
