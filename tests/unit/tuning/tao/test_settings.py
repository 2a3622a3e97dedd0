"""`automl_settings` as TAO writes them: every key, its aliases and defaults, and ways to get it wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.errors import DocumentError
from modelyard.tuning.searcher import Rungs
from modelyard.tuning.tao.settings import (
    ALGORITHMS,
    SAMPLE_COUNTS,
    implied_direction,
    read_tao_settings,
)

#: Every setting that the original knows, with a value that it takes.
EVERY = {
    "algorithm": "bayesian", "allow_unsafe_effective_batch": False, "api_key": "k",
    "automl_checkpoint_retention_strategy": "best", "automl_crossover_prob": 0.5,
    "automl_delete_intermediate_ckpt": False, "automl_early_stop_threshold": 0.1, "automl_eval_interval": 10,
    "automl_kde_samples": 64, "automl_max_concurrent": 4, "automl_max_epochs": 27,
    "automl_max_experiments": 50, "automl_max_generations": 20, "automl_max_recommendations": 12,
    "automl_max_trials": 9, "automl_min_early_stop_epochs": 3, "automl_min_points_in_model": 10,
    "automl_min_top_configs": 5, "automl_mutation_factor": 0.5, "automl_perturbation_factor": 1.2,
    "automl_population_size": 10, "automl_range_override": [{"parameter": "train.lr", "valid_min": 1e-5}],
    "automl_reduction_factor": 3, "automl_retain_failed_artifacts": False, "automl_top_n_percent": 15.0,
    "base_url": "http://localhost:1", "baseline_metric": 0.3, "baseline_record_path": "b.json",
    "direction": "minimize", "enable_llm_range_narrowing": True, "epoch_multiplier": 2,
    "evaluation_records_dir": "records", "evolvable_text_parameters": ["prompt"], "experiment_id": "e",
    "final_evaluation": {"metric_value": 0.2, "source": "eval"}, "final_evaluation_metric": 0.2,
    "final_evaluation_record_path": "f.json", "hybrid_enable_llm_range_narrowing": True,
    "include_latency": True, "latency_direction": "minimize", "latency_metric": "ms",
    "latency_objective": True, "latency_scale": 100, "latency_weight": 0.5, "llm_analysis_interval": 5,
    "llm_api_key": "k", "llm_endpoint": "http://localhost:1", "llm_max_tokens": 4096, "llm_model": "m",
    "llm_temperature": 0.7, "metric": "loss", "metric_scale": 2, "metric_weight": 0.5, "model": "m",
    "multi_objective": True, "objectives": [{"metric": "loss", "direction": "minimize"}, "acc"],
    "research_program": "p", "reuse_best_metric_for_final_evaluation": True, "run_baseline": True,
    "run_final_evaluation": True, "session_id": "s", "num_recommendations": 12,
    **dict.fromkeys(SAMPLE_COUNTS, 100),
}  # fmt: skip


def faults_of(**settings):
    with pytest.raises(DocumentError) as caught:
        read_tao_settings({"algorithm": "bayesian", **settings})
    return {fault.key: str(fault) for fault in caught.value.faults}


def read(**settings):
    return read_tao_settings({"algorithm": "bayesian", **settings})


def test_every_setting_is_known():
    found = read_tao_settings(EVERY)
    assert [o.metric for o in found.objectives] == ["loss", "acc", "ms"]
    assert found.ranges == {"train.lr": {"valid_min": 1e-5}}
    assert (found.max_recommendations, found.sample_count) == (12, 100)
    assert (found.llm.endpoint, found.llm.model, found.llm.api_key) == ("http://localhost:1", "m", "k")
    assert (found.retention.strategy, found.retention.delete_intermediate, found.retention.keep_failed) == (
        "best", False, False,
    )  # fmt: skip
    assert found.evaluations.final_given == {"metric_value": 0.2, "source": "eval"}
    assert (found.evaluations.baseline_record, found.evaluations.final_record) == ("b.json", "f.json")


@pytest.mark.parametrize("name", sorted(EVERY))
def test_every_setting_stands_alone(name):
    read_tao_settings({"algorithm": "asha", name: EVERY[name]})


@pytest.mark.parametrize("name", sorted(set(EVERY) - set(SAMPLE_COUNTS)))
def test_every_setting_that_is_misspelled_is_told_its_name(name):
    wrong = name[:-1] + "_"
    assert f"did you mean {name}?" in faults_of(**{wrong: 1})[wrong]


def test_nothing_given_is_the_originals_defaults_and_one_trial_at_a_time():
    found = read()
    assert (found.max_epochs, found.reduction_factor, found.epoch_multiplier) == (27, 3, 1)
    assert (found.recommendations, found.parallel, found.seed) == (20, 1, 0)
    assert [(o.metric, o.direction) for o in found.objectives] == [("loss", "minimize")]
    assert found.retention.delete_intermediate
    assert found.retention.keep_failed
    assert found.evaluations.baseline
    assert found.evaluations.final
    assert found.notes == ("loss is minimized, by its name; say direction to have it otherwise",)
    assert read(direction="maximize").notes == ()


@pytest.mark.parametrize(
    ("word", "name"), [("b", "bayesian"), ("H", "hyperband"), ("hes", "hyperband_es"), ("ASHA", "asha")]
)
def test_short_names_of_algorithms(word, name):
    assert read(algorithm=word).algorithm == name


def test_an_algorithm_is_required_and_must_be_known():
    with pytest.raises(DocumentError, match="algorithm: is missing"):
        read_tao_settings({})
    with pytest.raises(DocumentError, match="is not a mapping"):
        read_tao_settings(["algorithm"])
    told = faults_of(algorithm="bayes")["algorithm"]
    assert all(name in told for name in ALGORITHMS)


@pytest.mark.parametrize(
    ("metric", "direction"),
    [
        ("loss", "minimize"), ("Val_Loss", "minimize"), ("latency_ms", "minimize"), ("WER", "minimize"),
        ("perplexity", "minimize"), ("val_acc", "maximize"), ("mAP50", "maximize"), ("bleu", "maximize"),
    ],
)  # fmt: skip
def test_directions_by_name(metric, direction):
    assert implied_direction(metric) == direction
    assert read(metric=metric).objectives[0].direction == direction
    other = "maximize" if direction == "minimize" else "minimize"
    assert read(metric=metric, direction=other).objectives[0].direction == other


def test_several_objectives_with_weights_and_a_doubled_one():
    listed = [
        {"metric": "acc", "direction": "maximize", "weight": 2, "scale": 0.5}, {"name": "loss"}, "acc", "ppl",
    ]  # fmt: skip
    found = read(objectives=listed)
    assert [(o.metric, o.direction) for o in found.objectives] == [
        ("acc", "maximize"), ("loss", "minimize"), ("ppl", "minimize"),
    ]  # fmt: skip
    assert [(w.weight, w.scale) for w in found.weighing] == [(2, 0.5), (1, 1), (1, 1)]


def test_latency_is_one_more_objective_once():
    found = read(metric="acc", include_latency=True, latency_weight=0.1, latency_scale=100)
    assert [(o.metric, o.direction) for o in found.objectives] == [
        ("acc", "maximize"),
        ("latency", "minimize"),
    ]
    assert found.weighing[1].scale == 100
    found = read(objectives=["acc", "ms"], multi_objective=True, latency_metric="ms")
    assert len(found.objectives) == 2


def test_budgets_are_those_of_epochs():
    found = read(algorithm="hyperband", automl_max_epochs=9, epoch_multiplier=2)
    assert found.rungs == Rungs(low=2, high=18, eta=3)
    assert read().rungs is None


def test_how_many_trials():
    assert read(algorithm="asha", automl_max_trials=7).recommendations == 7
    assert read(algorithm="asha", automl_max_trials=7, num_recommendations=5).recommendations == 5
    assert read(algorithm="autoresearch").recommendations == 50
    assert read(automl_max_concurrent=8).parallel == 8


def test_a_session_gives_the_same_seed_in_every_process():
    assert read(session_id="abc").seed == 3128432319
    assert read(session_id="abd").seed != 3128432319
    assert read(session_id=7).session_id == "7"


def test_aliases_may_be_given_twice_if_they_agree():
    assert read(num_recommendations=5, automl_max_recommendations=5).max_recommendations == 5
    told = faults_of(num_recommendations=5, automl_max_recommendations=6)
    assert "another name" in told["num_recommendations"]
    told = faults_of(api_key="xyzzy", llm_api_key="other")
    assert "xyzzy" not in told["api_key"]


def test_a_key_is_shown_nowhere():
    assert "xyzzy" not in repr(read(llm_api_key="xyzzy"))
    assert "4711" not in "".join(faults_of(llm_api_key=["4711"]).values())


def test_texts_of_numbers_and_truths_are_taken_for_them():
    found = read(automl_max_epochs="9", num_recommendations=5.0, run_baseline="False", session_id="0042")
    assert (found.max_epochs, found.max_recommendations, found.evaluations.baseline) == (9, 5, False)
    assert found.session_id == "0042"


def test_null_is_not_given():
    assert read(automl_max_trials=None, direction=None, objectives=None, baseline_metric=None) == read()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("automl_max_recommendations", 0), ("automl_max_epochs", 2.5), ("automl_reduction_factor", 1),
        ("automl_crossover_prob", 1.5), ("automl_perturbation_factor", 1.0), ("automl_top_n_percent", 100),
        ("automl_population_size", 1), ("run_baseline", "perhaps"), ("direction", "up"),
        ("baseline_metric", float("nan")), ("final_evaluation", 0.5), ("final_evaluation_metric", "good"),
        ("automl_checkpoint_retention_strategy", "none"), ("objectives", "acc"), ("train_samples", -1),
        ("llm_temperature", -1), ("llm_endpoint", 5), ("metric", ""), ("evolvable_text_parameters", [1]),
        ("automl_range_override", [{"valid_min": 1}]), ("metric_scale", 0), ("latency_direction", "down"),
    ],
)  # fmt: skip
def test_a_value_of_the_wrong_kind_is_a_fault(name, value):
    extra = {"include_latency": True} if name.startswith("latency") else {}
    keys = faults_of(**{name: value}, **extra)
    assert any(name.removeprefix("metric_").removeprefix("latency_") in key for key in keys)


def test_all_faults_are_told_at_once():
    found = faults_of(
        automl_max_epoch=3, metric="", objectives=[{"metric": "a", "wieght": 1}], automl_max_trials=0
    )
    assert len(found) == 4
    assert "did you mean weight?" in found["objectives[0].wieght"]


@given(
    st.dictionaries(
        st.sampled_from(sorted(EVERY)) | st.text(max_size=8),
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(max_size=5)
        | st.lists(st.integers()),
        max_size=6,
    )
)
def test_whatever_is_given_is_read_or_refused_with_reasons(settings):
    try:
        found = read_tao_settings(settings)
    except DocumentError as error:
        assert all(fault.problem and fault.remedy for fault in error.faults)
    else:
        assert found.objectives
        assert found.recommendations >= 1
