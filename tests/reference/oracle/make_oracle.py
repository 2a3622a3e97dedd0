"""Runs mergekit 0.1.5 on small seeded tensors and stores what it answers, for the tests to compare with.

Needs a Python with mergekit==0.1.5 and torch (no test does); called with the path of the file to write.
Every case is run in float32 and in float64. The inputs are multiples of 1/4096, so that they and their
differences are exact in both. The file's metadata holds the cases as JSON; tensors are named
`input/MODEL/TENSOR` and `CASE/float32/TENSOR`, `CASE/float64/TENSOR`.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import torch
from mergekit.merge_methods import merge_tensors
from safetensors.numpy import save_file

SHAPES = {"matrix": (10, 14), "vector": (37,), "cube": (2, 3, 4)}
DTYPES = {"float32": torch.float32, "float64": torch.float64}
DRAWS = 4000
#: Three rows of the same ranks in another order, without equal magnitudes within a row.
RANKED = np.array(
    [[1.0, 2, 3, 4, 5, 6, 7, 8], [8, -7, 6, -5, 4, -3, 2, -1], [10, 80, 20, 70, 30, 60, 40, 50]]
)

Case = dict[str, Any]


def case(
    name: str, method: str, models: str, *, base: str | None = "base", seed: int = 0, **given: Any
) -> Case:
    """One call: models by name, separated by blanks; a list is one value a model."""
    return {
        "name": name, "method": method, "models": models.split(), "base": base, "seed": seed, "given": given,
    }  # fmt: skip


def rotation_cases() -> list[Case]:
    """Averages, arcs and interpolations."""
    none: Case = {"base": None}
    pair = {"weight": [0.6, 0.9]}
    trio = {"weight": [0.5, 0.3, 0.7]}
    return [
        case("linear", "linear", "a b c", **none, **trio),
        case("linear_sum", "linear", "a b c", **none, weight=[0.5, -0.3, 2.0], normalize=False),
        case("passthrough", "passthrough", "a", **none, scale=[-1.5]),
        *(case(f"slerp_{t}", "slerp", "a", t=t) for t in (0.0, 0.3, 1.0, 1.25)),
        case("slerp_apart", "slerp", "far", t=0.35),
        case("slerp_near", "slerp", "near", t=0.35),
        case("slerp_opposite", "slerp", "opposite", t=0.35),
        case("slerp_zero", "slerp", "zero", t=0.3),
        case("nuslerp", "nuslerp", "base far", **none, **pair),
        case("nuslerp_last_axis", "nuslerp", "base far", **none, **pair, nuslerp_flatten=False),
        case("nuslerp_first_axis", "nuslerp", "base far", **none, **pair, nuslerp_flatten=False,
             nuslerp_row_wise=True),
        case("nuslerp_base", "nuslerp", "a b", **pair),
        case("nuslerp_base_last_axis", "nuslerp", "a b", **pair, nuslerp_flatten=False),
        case("nuslerp_cancelling_weights", "nuslerp", "base far", **none, weight=[1.0, -1.0]),
        case("nuslerp_beyond", "nuslerp", "base far", **none, weight=[-1.0, 3.0]),
        case("nuslerp_zero", "nuslerp", "a zero", **none, **pair),
        case("multislerp", "multislerp", "base far a", **none, **trio),
        case("multislerp_sum", "multislerp", "base far a", **none, **trio, normalize_weights=False),
        case("multislerp_base", "multislerp", "a b c", **trio),
        case("multislerp_negative", "multislerp", "a b c", weight=[0.5, -0.2, 0.7]),
        case("multislerp_zero", "multislerp", "far zero", **none, weight=[0.5, 0.5]),
        case("multislerp_alone", "multislerp", "far", **none, weight=[0.5], normalize_weights=False),
        case("multislerp_antipodal", "multislerp", "base opposite", **none, weight=[0.5, 0.5]),
        case("karcher", "karcher", "base far wide", **none),
        case("karcher_one_step", "karcher", "base far wide", **none, max_iter=1),
        case("karcher_loose", "karcher", "base far wide", **none, tol=0.02),
        case("karcher_no_step", "karcher", "base far wide", **none, max_iter=0),
        case("karcher_zero", "karcher", "base far zero", **none),
        case("karcher_alone", "karcher", "far", **none),
        case("nearswap", "nearswap", "a", t=0.03),
        case("nearswap_none", "nearswap", "a", t=0.0),
        case("model_stock", "model_stock", "related_a related_b related_c"),
        case("model_stock_rows", "model_stock", "related_a related_b related_c", filter_wise=True),
        case("model_stock_two", "model_stock", "related_a related_b"),
        case("model_stock_unrelated", "model_stock", "a b c"),
        case("model_stock_one_is_base", "model_stock", "base2 related_a related_b"),
    ]  # fmt: skip


def task_vector_cases() -> list[Case]:
    """Sparsified, weighted and agreed sums in which nothing is drawn."""
    trio = {"weight": [0.5, 1.2, 0.7]}
    uneven = {"density": [0.3, 0.55, 0.8]}
    crumbs = {**trio, **uneven, "gamma": [0.01, 0.1, 0.4]}
    return [
        case("task_arithmetic", "task_arithmetic", "a b c", **trio),
        case("task_arithmetic_mean", "task_arithmetic", "a b c", **trio, normalize=True, **{"lambda": 1.4}),
        case("task_arithmetic_cancelling", "task_arithmetic", "a b", weight=[1.0, -1.0], normalize=True),
        case("task_arithmetic_one_is_base", "task_arithmetic", "base2 b", weight=[1.0, 2.0], normalize=True),
        case("ties_full", "ties", "a b c", **trio),
        case("ties", "ties", "a b c", **trio, **uneven),
        case("ties_sum", "ties", "a b c", **trio, **uneven, normalize=False, **{"lambda": 0.7}),
        case("ties_rescaled", "ties", "a b c", **trio, **uneven, rescale=True),
        case("ties_negative", "ties", "a b c", weight=[0.5, -1.1, 0.7], **uneven),
        case("ties_one_entry", "ties", "a b", weight=[1.0, 1.0], density=[0.001, 0.5]),
        case("ties_nothing", "ties", "a b", weight=[1.0, 1.0], density=[0.0, 0.0]),
        case("ties_equal_deltas", "ties", "equal", weight=[1.0], density=[0.4]),
        case("ties_steps", "ties", "steps", weight=[1.0], density=[0.45]),
        case("ties_one_is_base", "ties", "base2 b", weight=[1.0, 2.0], density=[0.5, 0.5]),
        case("breadcrumbs", "breadcrumbs", "a b c", **crumbs),
        case("breadcrumbs_rescaled", "breadcrumbs", "a b c", **crumbs, rescale=True, normalize=True),
        case("breadcrumbs_all", "breadcrumbs", "a b c", **trio, gamma=[0.1, 0.3, 0.9]),
        case("breadcrumbs_ties", "breadcrumbs_ties", "a b c", **crumbs),
        case("breadcrumbs_ties_mean", "breadcrumbs_ties", "a b c", **crumbs, normalize=True),
        case("sce", "sce", "a b c"),
        case("sce_selected", "sce", "a b c", select_topk=0.33),
        case("sce_disjoint", "sce", "even odd", select_topk=0.5),
        case("sce_alone", "sce", "a"),
        case("sce_one_is_base", "sce", "base2 b"),
        case("arcee_fusion", "arcee_fusion", "a"),
        case("arcee_fusion_far", "arcee_fusion", "far"),
        case("arcee_fusion_shift", "arcee_fusion", "equal"),
        case("ram", "ram", "a b c", epsilon=0.05),
        case("ram_steps", "ram", "steps even odd"),
        case("ramplus_tl", "ramplus_tl", "a b c", epsilon=0.1, r=0.5, alpha=10.0),
        case("ramplus_tl_steps", "ramplus_tl", "steps even odd"),
    ]


def drawn_cases() -> list[Case]:
    """One model, or two that change different entries: the mask can be read off the answer."""
    alone = {"weight": [1.0], "density": [0.4]}
    apart = {"weight": [0.5, 2.0], "density": [0.4, 0.7]}
    magnitude = {"epsilon": [0.2]}
    cases = [
        case("dare_linear_all", "dare_linear", "a b c", weight=[0.5, 1.2, 0.7]),
        case("dare_ties_all", "dare_ties", "a b c", weight=[0.5, 1.2, 0.7]),
        case("della_linear_all", "della_linear", "a b c", weight=[0.5, 1.2, 0.7]),
        case("della_all", "della", "a b c", weight=[0.5, 1.2, 0.7]),
        case("dare_linear", "dare_linear", "a", **alone),
        case("dare_linear_plain", "dare_linear", "a", **alone, rescale=False),
        case("dare_linear_mean", "dare_linear", "even odd", **apart, normalize=True),
        case("dare_ties", "dare_ties", "even odd", **apart),
        case("dare_ties_mean", "dare_ties", "even odd", **apart, normalize=True, **{"lambda": 0.6}),
        case("della_linear", "della_linear", "a", **alone, **magnitude),
        case("della", "della", "even odd", **apart, epsilon=[0.2, 0.1]),
        case("della_sum", "della", "even odd", **apart, epsilon=[0.2, 0.1], normalize=False, rescale=False),
    ]
    return [{**c, "seed": 7 + i} for i, c in enumerate(cases)]


def departing_cases() -> list[Case]:
    """Where the references deliberately answer otherwise; the test says why."""
    return [
        case("small_model_stock", "model_stock", "speck_a speck_b"),
        case("small_karcher", "karcher", "base speck", base=None, tol=1e-3),
        case("cancelling_ties", "ties", "a b c", weight=[0.5, -1.2, 0.7]),
    ]


def inputs() -> dict[str, dict[str, np.ndarray]]:
    """The models by name; the same generator for all, so the order is part of the file."""
    generator = np.random.default_rng(20260)
    models: dict[str, dict[str, np.ndarray]] = {}
    for tensor, shape in SHAPES.items():
        for name, value in models_of(generator, shape).items():
            models.setdefault(name, {})[tensor] = value
    return models


def models_of(generator: np.random.Generator, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """The models of one shape: near and far from the base, related, equal, opposite, zero."""

    def normal(scale: float) -> np.ndarray:
        return np.round(generator.normal(scale=scale, size=shape) * 4096) / 4096

    base, common = normal(0.5), normal(0.15)
    first = np.arange(base.size).reshape(shape) % 2 == 0
    entries = np.arange(base.size).reshape(shape)
    steps = np.round(generator.normal(scale=2, size=shape)) / 8
    return {
        "base": base, "base2": base, "zero": np.zeros(shape), "opposite": -2 * base,
        "a": base + normal(0.1), "b": base + normal(0.1), "c": base + normal(0.2),
        "far": normal(0.5), "wide": normal(2.0), "near": base + normal(0.001),
        "related_a": base + common + normal(0.1), "related_b": base + common + normal(0.1),
        "related_c": base + common + normal(0.15), "equal": base + 0.125, "steps": base + steps,
        "speck": (entries == 0) / 4096, "speck_a": base + (entries == 0) / 4096,
        "speck_b": base + (entries < 2) / 4096, "even": base + first * normal(0.1),
        "odd": base + ~first * normal(0.1),
    }  # fmt: skip


def answer(asked: Case, tensors: list[np.ndarray], dtype: torch.dtype) -> np.ndarray:
    """What mergekit makes of it, with torch's generator set to the case's seed."""
    torch.manual_seed(asked["seed"])
    given = [torch.from_numpy(t).to(dtype) for t in tensors]
    index = 0 if asked["base"] else None
    merged = merge_tensors(
        given, asked["method"], parameters=asked["given"], base_index=index, name="weight", dtype=dtype
    )
    return np.ascontiguousarray(merged.numpy())


def frequencies() -> dict[str, np.ndarray]:
    """How often each entry of `RANKED` is kept, over `DRAWS` seeds."""
    magnitude = {"density": [0.5], "epsilon": [0.3]}
    rows: dict[str, tuple[np.ndarray, dict[str, Any]]] = {
        "della_linear": (RANKED, magnitude),
        "della_linear_cube": (RANKED.reshape(2, 3, 4), magnitude),
        "dare_linear": (RANKED, {"density": [0.3]}),
    }
    counts = {}
    for name, (delta, parameters) in rows.items():
        kept = np.zeros(delta.shape)
        for seed in range(DRAWS):
            given = {"weight": [1.0], "rescale": False, **parameters}
            asked = case("draw", name.removesuffix("_cube"), "ranked", seed=seed, **given)
            kept += answer(asked, [np.zeros(delta.shape), delta], torch.float32) != 0
        counts[f"frequency/{name}"] = kept / DRAWS
    return counts


def main(path: str) -> None:
    """Writes all inputs and answers to `path`."""
    torch.set_num_threads(1)
    models = inputs()
    stored = {f"input/{m}/{t}": v.astype(np.float32) for m, ts in models.items() for t, v in ts.items()}
    cases = [*rotation_cases(), *task_vector_cases(), *drawn_cases(), *departing_cases()]
    for asked in cases:
        names = [asked["base"], *asked["models"]] if asked["base"] else asked["models"]
        for tensor in SHAPES:
            for label, dtype in DTYPES.items():
                merged = answer(asked, [models[n][tensor] for n in names], dtype)
                stored[f"{asked['name']}/{label}/{tensor}"] = merged
    stored |= {"ranked": RANKED, **frequencies()}
    about = {"mergekit": "0.1.5", "cases": json.dumps(cases), "draws": str(DRAWS)}
    save_file(stored, path, metadata=about)


if __name__ == "__main__":
    main(sys.argv[1])
