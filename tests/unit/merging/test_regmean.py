"""RegMean with real files of inner products: against the closed form, against least squares, and refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tests.reference import merge_by_decomposition as reference
from tests.unit.merging.made import llama, loaded, source, written

from modelyard.core.errors import CheckpointError, DocumentError, MergeError
from modelyard.merging.engine import MergeOptions, read_record, run_merge
from modelyard.merging.planning import plan_merge
from modelyard.merging.recipe import Recipe
from modelyard.merging.verification import verify_merge

QUERY = "model.layers.0.self_attn.q_proj.weight"
DOWN = "model.layers.1.mlp.down_proj.weight"
SAMPLES = 40


class Family:
    """Two models, the inputs that their layers saw, and the files of these inputs' inner products."""

    def __init__(self, folder: Path, *, dtype=np.float32) -> None:
        base = llama(0)
        self.tensors = [llama(seed, around=base, spread=0.1) for seed in (1, 2)]
        self.models = [written(folder / f"model{j}", t) for j, t in enumerate(self.tensors)]
        chance = np.random.default_rng(3)
        scales = {name: 1 + 5 * chance.random((2, base[name].shape[1])) for name in (QUERY, DOWN)}
        self.inputs = [
            {
                name: scale[j] * chance.standard_normal((SAMPLES, scale.shape[1]))
                for name, scale in scales.items()
            }
            for j in range(2)
        ]
        self.grams = [{n: (x.T @ x).astype(dtype) for n, x in inputs.items()} for inputs in self.inputs]
        self.files = [folder / f"grams{j}.safetensors" for j in range(2)]
        self.save()

    def save(self):
        for grams, file in zip(self.grams, self.files, strict=True):
            save_file(grams, file)

    def recipe(self, **settings):
        sources = tuple(
            source(model, grams=str(file)) for model, file in zip(self.models, self.files, strict=True)
        )
        return Recipe(method="regmean", models=sources, dtype="float32", settings=settings)

    def plan(self, **settings):
        return plan_merge(self.recipe(**settings), file="merge.yml", folder=Path())

    def merge(self, out, **settings):
        run_merge(self.plan(**settings), out, MergeOptions())
        return loaded(out)

    def error(self, weight, name):
        """The squared error of a layer's outputs on both models' own inputs."""
        pairs = zip(self.inputs, self.tensors, strict=True)
        return sum(np.square(x[name] @ (weight - t[name].astype(float)).T).sum() for x, t in pairs)


@pytest.fixture
def family(tmp_path):
    return Family(tmp_path)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.9, 1.0])
def test_layers_with_inner_products_are_the_closed_form(family, tmp_path, alpha):
    merged = family.merge(tmp_path / "out", alpha=alpha)
    for name in (QUERY, DOWN):
        models = [t[name].astype(np.float64) for t in family.tensors]
        grams = [g[name].astype(np.float64) for g in family.grams]
        expected = reference.regmean(models, grams, alpha=alpha).astype(np.float32)
        np.testing.assert_array_max_ulp(merged[name], expected, maxulp=1)


def test_other_tensors_are_the_mean(family, tmp_path):
    merged = family.merge(tmp_path / "out")
    for name in merged.keys() - {QUERY, DOWN}:
        mean = np.mean([t[name].astype(np.float64) for t in family.tensors], axis=0)
        np.testing.assert_array_max_ulp(merged[name], mean.astype(np.float32), maxulp=1)


def test_with_all_inner_products_it_is_the_least_squares_solution(tmp_path):
    family = Family(tmp_path, dtype=np.float64)
    merged = family.merge(tmp_path / "out", alpha=1.0)
    for name in (QUERY, DOWN):
        stacked = np.concatenate([x[name] for x in family.inputs])
        targets = [
            x[name] @ t[name].astype(float).T for x, t in zip(family.inputs, family.tensors, strict=True)
        ]
        expected = np.linalg.lstsq(stacked, np.concatenate(targets), rcond=None)[0].T
        np.testing.assert_allclose(merged[name], expected, rtol=0, atol=1e-6)
        average = np.mean([t[name].astype(float) for t in family.tensors], axis=0)
        assert family.error(merged[name].astype(float), name) < 0.9 * family.error(average, name)


def test_weights_that_are_stored_the_other_way_round(family, tmp_path):
    turned = [
        {n: np.ascontiguousarray(v.T) if n in (QUERY, DOWN) else v for n, v in t.items()}
        for t in family.tensors
    ]
    expected = family.merge(tmp_path / "out")
    family.models = [written(tmp_path / f"turned{j}", t) for j, t in enumerate(turned)]
    merged = family.merge(tmp_path / "turned", transposed=True)
    for name in (QUERY, DOWN):
        np.testing.assert_array_equal(merged[name].T, expected[name])


def test_a_singular_sum_is_inverted_in_its_range(family, tmp_path):
    for grams in family.grams:
        grams[QUERY][0, :] = grams[QUERY][:, 0] = 0  # an input that is always 0
    family.save()
    assert np.isfinite(family.merge(tmp_path / "out")[QUERY]).all()


def test_what_was_read_beside_the_models_is_recorded(family, tmp_path):
    family.merge(tmp_path / "out")
    assert set(read_record(tmp_path / "out")["side_files"]) == {str(file) for file in family.files}
    assert verify_merge(tmp_path / "out").faults == ()
    assert any(warning.startswith("2 of ") for warning in family.plan().warnings)


def faults(family, **settings):
    with pytest.raises(DocumentError) as caught:
        family.plan(**settings)
    return [str(fault) for fault in caught.value.faults]


def test_shapes_that_do_not_fit_are_refused_before_a_byte_of_a_tensor_is_read(family):
    family.grams[0][QUERY] = family.grams[0][QUERY][:3, :3]
    family.save()
    wrong, alone = faults(family)
    assert QUERY in wrong and "[3, 3]" in wrong and "belongs to the model" in wrong
    assert QUERY in alone and "compute it for all models" in alone


def test_what_only_some_models_have_is_refused(family):
    family.grams[1].pop(DOWN)
    family.save()
    (told,) = faults(family)
    assert DOWN in told and str(family.files[1]) in told and "compute it for all models" in told


def test_names_that_no_matrix_has_are_refused(family):
    for grams in family.grams:
        grams["model.layers.0.self_attn.q_proj"] = grams.pop(QUERY)
    family.save()
    told = faults(family)
    assert len(told) == 2 and all(
        "1 of 2 tensors" in each and "use the weights' names" in each for each in told
    )


def test_inner_products_that_are_not_symmetric_are_an_error(family, tmp_path):
    family.grams[1][QUERY][0, 1] += 1
    family.save()
    with pytest.raises(MergeError, match=f"{QUERY}.*model 2 are not symmetric"):
        family.merge(tmp_path / "out")


def test_files_that_are_none_are_refused(family):
    family.files[0].write_bytes(b"no header")
    (told, *_) = faults(family)
    assert str(family.files[0]) in told and "name a safetensors file" in told


def test_narrow_types_are_refused(tmp_path):
    family = Family(tmp_path, dtype=np.float16)
    told = [each for each in faults(family) if "F16" in each]
    assert len(told) == 4 and all("store float32 or float64" in each for each in told)


def test_values_that_are_not_finite_are_an_error(family, tmp_path):
    family.grams[0][QUERY][0, 0] = np.nan
    family.save()
    with pytest.raises(CheckpointError, match=f"{QUERY} has NaN"):
        family.merge(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_merge_with_other_files_is_another(family, tmp_path):
    family.merge(tmp_path / "out")
    family.grams[0][QUERY] *= 2
    family.save()
    changed = run_merge(family.plan(), tmp_path / "out", MergeOptions(resume=True, overwrite=True))
    assert changed.resumed == 0
