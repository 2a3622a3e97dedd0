"""The float64 references against stored answers of mergekit 0.1.5 (`tests/reference/oracle`), and by hand.

Where the two differ, the test says how and why. A failing test of this file means that a reference is
wrong, whatever the package does.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from tests.reference import merge_methods as reference

GOLDEN = Path(reference.__file__).parent / "oracle" / "golden.safetensors"
TENSORS = ("matrix", "vector", "cube")
#: Largest difference, relative to the largest entry, by the type that mergekit computed in.
TOLERANCE = {"float32": 2e-6, "float64": 1e-13}
#: mergekit keeps the factors of these methods (rescaling, RAM+) in float32 whatever the type.
FLOAT32_FACTORS = ("dare", "della", "ramplus_tl")
#: Equal magnitudes at the threshold: mergekit keeps an arbitrary part of them.
TIED = {"ties_equal_deltas", "ties_steps"}
#: Where ours departs from mergekit on purpose; each has a test of its own.
DEPARTING = {"small_model_stock", "small_karcher", "cancelling_ties"}

Array = np.ndarray
Case = dict[str, Any]


@cache
def cases() -> dict[str, Case]:
    """The stored cases by name."""
    with safe_open(GOLDEN, framework="numpy") as file:
        return {c["name"]: c for c in json.loads(file.metadata()["cases"])}


@cache
def stored(name: str) -> Array:
    """One stored tensor, in float64."""
    with safe_open(GOLDEN, framework="numpy") as file:
        return file.get_tensor(name).astype(np.float64)


@cache
def draws() -> int:
    """Over how many seeds the stored frequencies were counted."""
    with safe_open(GOLDEN, framework="numpy") as file:
        return int(file.metadata()["draws"])


def given(case: Case, tensor: str) -> tuple[Array, list[Array]]:
    """The base (zeros where there is none) and the models of a case."""
    models = [stored(f"input/{name}/{tensor}") for name in case["models"]]
    base = stored(f"input/{case['base']}/{tensor}") if case["base"] else np.zeros(models[0].shape)
    return base, models


def options(case: Case, *names: str, **renamed: str) -> dict[str, Any]:
    """The case's parameters of these names, those left out of the case left out; `ours=theirs` renames."""
    wanted = {**{n: n for n in names}, **renamed}
    return {ours: case["given"][theirs] for ours, theirs in wanted.items() if theirs in case["given"]}


def each(case: Case, name: str, default: float) -> Sequence[float]:
    """A parameter that every model has, or its default for all."""
    return case["given"].get(name, [default] * len(case["models"]))


def answer(case: Case, tensor: str, masks: Sequence[Array] | None = None) -> Array:
    """What the reference makes of a case; `masks` for the random methods."""
    base, models = given(case, tensor)
    family = FAMILIES.get(case["method"])
    if family is not None:
        return family(case, base, models, masks)
    return SIMPLE[case["method"]](case, base, models)


def _nuslerp(case: Case, base: Array, models: list[Array]) -> Array:
    return reference.nuslerp(
        *models,
        weights=case["given"]["weight"],
        base=base if case["base"] else None,
        **options(case, flatten="nuslerp_flatten", row_wise="nuslerp_row_wise"),
    )


def _multislerp(case: Case, base: Array, models: list[Array]) -> Array:
    return reference.multislerp(
        models, base=base if case["base"] else None, **options(case, "normalize_weights", weights="weight")
    )


SIMPLE: dict[str, Callable[[Case, Array, list[Array]], Array]] = {
    "linear": lambda c, b, x: reference.linear(x, **options(c, "normalize", weights="weight")),
    "passthrough": lambda c, b, x: reference.passthrough(x[0], scale=c["given"]["scale"][0]),
    "slerp": lambda c, b, x: reference.slerp(b, x[0], **options(c, "t")),
    "nuslerp": _nuslerp,
    "multislerp": _multislerp,
    "karcher": lambda c, b, x: reference.karcher(x, **options(c, "max_iter", "tol")),
    "nearswap": lambda c, b, x: reference.nearswap(b, x[0], **options(c, "t")),
    "model_stock": lambda c, b, x: reference.model_stock(b, x, **options(c, "filter_wise")),
    "sce": lambda c, b, x: reference.sce(b, x, **options(c, "select_topk")),
    "arcee_fusion": lambda c, b, x: reference.arcee_fusion(b, x[0]),
    "ram": lambda c, b, x: reference.ram(b, x, **options(c, "epsilon")),
    "ramplus_tl": lambda c, b, x: reference.ramplus_tl(b, x, **options(c, "epsilon", "r", "alpha")),
    "task_arithmetic": lambda c, b, x: reference.task_arithmetic(
        b, x, **options(c, "normalize", weights="weight", lam="lambda")
    ),
}


def _ties(case: Case, base: Array, models: list[Array], masks: Sequence[Array] | None) -> Array:
    return reference.ties(
        base,
        models,
        densities=each(case, "density", 1.0),
        **options(case, "normalize", "rescale", weights="weight", lam="lambda"),
    )


def _breadcrumbs(case: Case, base: Array, models: list[Array], masks: Sequence[Array] | None) -> Array:
    return reference.breadcrumbs(
        base,
        models,
        densities=each(case, "density", 1.0),
        gammas=each(case, "gamma", 0.01),
        consensus=case["method"].endswith("ties"),
        **options(case, "normalize", "rescale", weights="weight", lam="lambda"),
    )


def _dropped(case: Case, base: Array, models: list[Array], masks: Sequence[Array] | None) -> Array:
    return reference.dropped(
        base,
        models,
        masks=masks or [np.ones(base.shape, dtype=bool)] * len(models),
        consensus=case["method"] in ("dare_ties", "della"),
        rescale="l1" if case["given"].get("rescale", True) else "none",
        **{"normalize": case["method"] == "della"}
        | options(case, "normalize", weights="weight", lam="lambda"),
    )


FAMILIES: dict[str, Callable[[Case, Array, list[Array], Sequence[Array] | None], Array]] = {
    "ties": _ties,
    "breadcrumbs": _breadcrumbs,
    "breadcrumbs_ties": _breadcrumbs,
    "dare_linear": _dropped,
    "dare_ties": _dropped,
    "della_linear": _dropped,
    "della": _dropped,
}


def drawn(case: Case) -> bool:
    """Whether mergekit drew a mask in this case."""
    return case["method"].startswith(("dare", "della")) and "density" in case["given"]


def close(ours: Array, case: Case, kind: str, tensor: str) -> None:
    """Ours and mergekit's answer agree up to the rounding of mergekit's type."""
    theirs = stored(f"{case['name']}/{kind}/{tensor}")
    tolerance = TOLERANCE["float32" if case["method"].startswith(FLOAT32_FACTORS) else kind]
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * float(np.abs(theirs).max()))


@pytest.mark.parametrize("kind", TOLERANCE)
@pytest.mark.parametrize("name", [n for n, c in cases().items() if not (drawn(c) or n in TIED | DEPARTING)])
def test_the_reference_answers_as_mergekit(name: str, kind: str) -> None:
    for tensor in TENSORS:
        close(answer(cases()[name], tensor), cases()[name], kind, tensor)


@pytest.mark.parametrize("kind", TOLERANCE)
@pytest.mark.parametrize("name", [n for n, c in cases().items() if drawn(c)])
def test_random_methods_answer_as_mergekit_with_its_masks(name: str, kind: str) -> None:
    case = cases()[name]
    for tensor in TENSORS:
        base, models = given(case, tensor)
        changed = stored(f"{name}/{kind}/{tensor}") != base
        # No entry is changed by two models here, so what mergekit kept of each can be read off.
        touched = [x != base for x in models]
        assert sum(t.astype(int) for t in touched).max() == 1
        masks = [changed & t for t in touched]
        assert all(0 < m.sum() < t.sum() for m, t in zip(masks, touched, strict=True))
        close(answer(case, tensor, masks), case, kind, tensor)


def test_mergekit_keeps_as_often_as_the_probabilities_say() -> None:
    # 24 entries, two-sided, 4.5 standard errors: a correct pair fails once in 6,000 draws of the file,
    # and the file is fixed.
    ranked = stored("ranked")
    expected = {
        "della_linear": reference.keep_probabilities(ranked, density=0.5, epsilon=0.3),
        "dare_linear": np.full(ranked.shape, 0.3),
    }
    for method, p in expected.items():
        error = np.sqrt(p * (1 - p) / draws())
        assert (np.abs(stored(f"frequency/{method}") - p) < 4.5 * error).all(), method


@pytest.mark.parametrize("kind", TOLERANCE)
@pytest.mark.parametrize("name", sorted(TIED))
def test_only_equal_magnitudes_at_the_threshold_differ(name: str, kind: str) -> None:
    case = cases()[name]
    for tensor in TENSORS:
        base, models = given(case, tensor)
        size = np.abs(models[0] - base)
        ours, theirs = answer(case, tensor), stored(f"{name}/{kind}/{tensor}")
        threshold = size[ours != base].min()
        np.testing.assert_array_equal(ours[size != threshold], theirs[size != threshold])
        # As many kept, each of them whole.
        assert (ours != base).sum() == (theirs != base).sum()
        np.testing.assert_array_equal(theirs[theirs != base], models[0][theirs != base])


def test_mergekit_ranks_a_cube_along_its_middle_axis_and_ours_along_its_last() -> None:
    cube = stored("ranked").reshape(2, 3, 4)
    middle = np.swapaxes(cube, 1, 2)
    theirs = np.swapaxes(reference.keep_probabilities(middle, density=0.5, epsilon=0.3), 1, 2)
    error = np.sqrt(theirs * (1 - theirs) / draws())
    assert (np.abs(stored("frequency/della_linear_cube") - theirs) < 4.5 * error).all()
    ours = reference.keep_probabilities(cube, density=0.5, epsilon=0.3)
    assert np.abs(ours - theirs).max() > 0.2


def test_mergekit_takes_the_cosine_of_small_task_vectors_to_be_nearly_zero() -> None:
    # It divides <d_1, d_2> by no less than 1e-6; the task vectors here have norms of 2.4e-4 and 3.5e-4.
    for tensor in TENSORS:
        base, models = given(cases()["small_model_stock"], tensor)
        cosine = 4096.0**-2 / 1e-6
        t = 2 * cosine / (1 + cosine)
        theirs = stored(f"small_model_stock/float64/{tensor}")
        np.testing.assert_allclose(theirs, t * (models[0] + models[1]) / 2 + (1 - t) * base, atol=1e-12)
        right = 2 * np.sqrt(0.5) / (1 + np.sqrt(0.5))
        ours = answer(cases()["small_model_stock"], tensor)
        np.testing.assert_allclose(ours, right * (models[0] + models[1]) / 2 + (1 - right) * base, atol=1e-12)


def test_mergekit_takes_a_norm_below_the_tolerance_of_the_angle_to_be_zero() -> None:
    case = cases()["small_karcher"]
    for tensor in TENSORS:
        _, (model, speck) = given(case, tensor)
        theirs = stored(f"small_karcher/float64/{tensor}")
        norms = reference.norm(model), reference.norm(speck)
        np.testing.assert_allclose(theirs, model / norms[0] * sum(norms) / 2, atol=1e-12)
        assert np.abs(answer(case, tensor) - theirs).max() > 0.01


def test_mergekit_divides_by_the_rounding_error_of_weights_that_cancel() -> None:
    # .5 - 1.2 + .7 is 6e-8 in float32; ours does not divide where the sum is below 1e-8 in float64.
    theirs = np.concatenate([stored(f"cancelling_ties/float32/{t}").ravel() for t in TENSORS])
    ours = np.concatenate([answer(cases()["cancelling_ties"], t).ravel() for t in TENSORS])
    assert np.abs(theirs).max() > 1e5
    assert np.abs(ours).max() < 10


def test_every_method_of_mergekit_is_compared() -> None:
    assert {c["method"] for c in cases().values()} == {*SIMPLE, *FAMILIES}
    assert len({*SIMPLE, *FAMILIES}) == 20
