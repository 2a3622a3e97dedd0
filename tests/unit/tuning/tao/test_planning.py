"""What the settings come to: which algorithm with which options and budgets, and where it ends."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.tuning.tao_bench import make_skill

from modelyard.core.errors import DocumentError
from modelyard.core.faults import Faults
from modelyard.testing.process_sdk import BareProcessSdk, ProcessSdk
from modelyard.tuning.dimensions import Dimension
from modelyard.tuning.searcher import Rungs, SearcherSettings
from modelyard.tuning.tao.language import KEY_VARIABLE, advice_options, with_key
from modelyard.tuning.tao.planning import Ending, planned
from modelyard.tuning.tao.preparing import prepared
from modelyard.tuning.tao.request import RunRequest
from modelyard.tuning.tao.settings import read_tao_settings
from modelyard.tuning.trial import Proposal, Trial, TrialState

#: What a search that asks a model needs.
ASKED = {"llm_endpoint": "http://localhost:1/v1", "llm_model": "m"}


def plan_of(algorithm, *, rung_jobs=False, environment=None, **settings):
    faults = Faults(file="automl_settings")
    read = read_tao_settings({"algorithm": algorithm, **settings})
    plan = planned(read, rung_jobs=rung_jobs, environment=environment or {}, faults=faults)
    faults.raise_if_any()
    return plan


# -- options ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("algorithm", "settings", "options"),
    [
        ("pbt", {"automl_population_size": 6, "automl_perturbation_factor": 1.5},
         {"population": 6, "factor": 1.5}),
        ("dehb", {"automl_mutation_factor": 0.7, "automl_crossover_prob": 0.2},
         {"factor": 0.7, "crossover": 0.2, "cycles": 1}),
        ("bohb", {"automl_kde_samples": 32, "automl_top_n_percent": 12.4, "automl_min_points_in_model": 9},
         {"samples": 32, "top_percent": 12, "least": 5, "cycles": 1}),
        ("hyperband_es", {"automl_min_early_stop_epochs": 6}, {"least": 6, "cycles": 1}),
        ("hyperband_es", {"automl_min_early_stop_epochs": 1, "num_recommendations": 9}, {"least": 3}),
        ("hyperband", {}, {"cycles": 1}),
        ("hyperband", {"num_recommendations": 9}, {}),
        ("asha", {"automl_max_trials": 9}, {}),
        ("bayesian", {"automl_population_size": 6, "automl_kde_samples": 32}, {}),
    ],
)  # fmt: skip
def test_an_option_is_handed_on_by_its_meaning(algorithm, settings, options):
    plan = plan_of(algorithm, **settings)
    assert plan.options == options
    dimensions = (Dimension(name="x", kind="float", low=0.0, high=1.0),)
    rungs = replace(plan.rungs or Rungs(), promote=algorithm == "pbt")
    plan.made(SearcherSettings(dimensions=dimensions, directions=("minimize",), rungs=rungs))


def test_the_budgets_of_a_population_are_its_generations():
    plan = plan_of("pbt", rung_jobs=True, automl_eval_interval=4, automl_max_generations=5)
    assert plan.rungs == Rungs(low=4, high=20, promote=True)
    assert (plan.trials, plan.rung_jobs) == (10 * 5, True)
    assert plan_of("pbt", rung_jobs=True).rungs == Rungs(low=10, high=200, promote=True)  # TAO's defaults


@pytest.mark.parametrize(
    ("algorithm", "settings", "words"),
    [
        ("bayesian", {"automl_population_size": 6}, "automl_population_size has no effect on bayesian"),
        ("asha", {"automl_kde_samples": 6}, "it is for bohb"),
        ("pbt", {"automl_max_epochs": 9}, "it is for asha and bohb and dehb"),
        ("random", {"epoch_multiplier": 2}, "epoch_multiplier has no effect on random"),
        ("tpe", {"base_url": "http://localhost:1"}, "llm_endpoint has no effect on tpe"),
        ("hyperband_es", {"automl_early_stop_threshold": 0.8}, "no threshold"),
        ("hybrid", {"enable_llm_range_narrowing": True}, "never narrows the ranges"),
        ("hybrid", {"llm_analysis_interval": 5}, "share of the trials"),
        ("llm", {"research_program": "p"}, "it is for autoresearch"),
        ("autoresearch", {"evolvable_text_parameters": ["prompt"]}, "values that the space has"),
        ("hyperband", {"automl_max_trials": 9}, "it is for asha"),
    ],
)
def test_an_option_without_a_meaning_is_told(algorithm, settings, words):
    (note,) = read_tao_settings({"algorithm": algorithm, "direction": "minimize", **settings}).notes
    assert words in note


def test_an_option_that_says_no_is_no_news():
    own = {"algorithm": "tpe", "direction": "minimize", "enable_llm_range_narrowing": False,
           "llm_endpoint": None, "evolvable_text_parameters": []}  # fmt: skip
    assert read_tao_settings(own).notes == ()


# -- how many trials ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("algorithm", "rung_jobs", "settings", "trials", "exact"),
    [
        ("tpe", False, {}, 20, True),
        ("hyperband", False, {"automl_max_epochs": 9}, 9 + 5 + 3, True),
        ("hyperband", True, {"automl_max_epochs": 9}, (9 + 3 + 1) + (5 + 1) + 3, False),
        ("bohb", False, {"automl_max_epochs": 9}, 9 + 5 + 3, True),
        ("dehb", False, {"automl_max_epochs": 9}, (9 + 3 + 1) + (5 + 1) + 3, True),
        ("hyperband", True, {"automl_max_epochs": 9, "num_recommendations": 6}, 6 * 3, False),
        ("asha", False, {"automl_max_trials": 7}, 7, True),
        ("asha", True, {"automl_max_trials": 7}, 7 * 4, False),
        ("asha", False, {"automl_min_top_configs": 3}, 10_000, False),
        ("asha", False, {"automl_min_top_configs": 3, "num_recommendations": 9}, 9, False),
    ],
)
def test_how_many_trials_there_may_be(algorithm, rung_jobs, settings, trials, exact):
    plan = plan_of(algorithm, rung_jobs=rung_jobs, **settings)
    assert (plan.trials, plan.exact, plan.rung_jobs) == (trials, exact, rung_jobs)


def trial(number, *, budget=1, parent=None, state=TrialState.COMPLETE, source="asha"):
    values = (1.0,) if state is TrialState.COMPLETE else None
    return Trial(
        number=number, point={}, source=source, state=state, budget=budget, parent=parent, values=values
    )


def test_configurations_are_counted_and_not_their_promotions():
    ending = plan_of("asha", rung_jobs=True, num_recommendations=2).ending
    new, promoted = Proposal(point={}, source="asha"), Proposal(point={}, source="asha", parent=0)
    trials = [trial(0), trial(1, budget=3, parent=0), trial(2, source="retry")]
    assert ending.admits(trials, new)
    trials.append(trial(3, state=TrialState.RUNNING))
    assert not ending.admits(trials, new)
    assert ending.admits(trials, promoted)


def test_a_search_is_over_when_enough_have_come_to_the_end():
    ending = plan_of("asha", automl_max_epochs=9, automl_min_top_configs=2).ending
    assert ending == Ending(finished=2, top=9)
    trials = [trial(0, budget=9), trial(1, budget=3), trial(2, budget=9, state=TrialState.FAILED)]
    assert not ending.is_over(trials)
    assert ending.is_over([*trials, trial(3, budget=9)])


def test_with_a_number_of_configurations_all_of_them_are_begun_first():
    ending = plan_of("asha", rung_jobs=True, automl_max_trials=3, automl_min_top_configs=1).ending
    trials = [trial(0), trial(1, budget=27, parent=0), trial(2)]
    assert not ending.is_over(trials)
    assert ending.is_over([*trials, trial(3)])


# -- jobs for rungs -----------------------------------------------------------------------------------------


@pytest.fixture
def ready(tmp_path):
    skill = make_skill(tmp_path / "toy")

    def make(kind=ProcessSdk, environment=None, **arguments):
        settings = {"algorithm": "asha", "metric": "loss", **arguments.pop("settings", {})}
        request = RunRequest.of((), {"automl_settings": settings, **arguments})
        return prepared(request, skill, "train", kind(tmp_path / "platform"), environment=environment or {})

    return make


def test_how_trials_come_to_their_rungs_follows_from_what_can_be_known(ready):
    read = lambda _logs, _metric: 1.0  # noqa: E731
    assert not ready().plan.rung_jobs  # its metric is printed, and a bad one can be stopped
    assert ready(eval_fn=read).plan.rung_jobs
    assert ready(metric_extractor=read).plan.rung_jobs
    assert ready(BareProcessSdk).plan.rung_jobs  # it cannot be stopped
    assert ready(settings={"automl_rungs": "resume"}).plan.rung_jobs
    assert not ready(metric_extractor=read, settings={"automl_rungs": "stop"}).plan.rung_jobs
    assert ready(settings={"algorithm": "dehb"}).plan.rung_jobs  # it never stops a job
    assert ready(settings={"algorithm": "pbt", "automl_rungs": "stop"}).plan.rung_jobs
    assert not ready(settings={"algorithm": "tpe"}, eval_fn=read).plan.rung_jobs


def test_one_way_to_the_rungs_is_no_other_search(ready):
    first = ready().search(ready().skill.folder, poll_s=1, environment={}).identity
    other = ready(settings={"automl_rungs": "resume"}).search(ready().skill.folder, poll_s=1, environment={})
    assert first != other.identity


def test_too_few_configurations_for_a_bracket_are_told(ready):
    def note(**settings):
        own = {"automl_rungs": "resume", "automl_max_epochs": 9, **settings}
        return any("none is promoted" in each for each in ready(settings=own).notes)

    assert note(algorithm="hyperband", num_recommendations=8)
    assert not note(algorithm="hyperband", num_recommendations=9)
    assert not note(algorithm="hyperband")
    assert not note(algorithm="asha", num_recommendations=8)
    assert not note(algorithm="dehb", num_recommendations=8)


def test_a_kept_best_that_promotions_cannot_go_on_from_is_told(ready):
    own = {"automl_rungs": "resume", "automl_checkpoint_retention_strategy": "best"}
    assert any("go on from the last epoch" in note for note in ready(settings=own).notes)


# -- asking a model -----------------------------------------------------------------------------------------


def options_of(environment=None, **settings):
    llm = read_tao_settings({"algorithm": "llm", **settings}).llm
    faults = Faults(file="automl_settings")
    found = advice_options(llm, environment or {}, faults)
    faults.raise_if_any()
    return found


def test_the_settings_of_a_model_are_handed_on():
    own = {"llm_temperature": 0.2, "llm_max_tokens": 512, "llm_timeout": 30, "llm_max_cost_usd": 2,
           "llm_price_in": 0.25, "llm_price_out": 1, "llm_max_total_tokens": 9000,
           "llm_api_key_env": "MY_KEY"}  # fmt: skip
    assert options_of(**ASKED, **own) == {
        "endpoint": ASKED["llm_endpoint"], "model": "m", "api_key_env": "MY_KEY", "temperature": 0.2,
        "max_tokens": 512, "timeout_s": 30.0, "max_cost_usd": 2.0, "price_in": 0.25, "price_out": 1.0,
        "max_total_tokens": 9000,
    }  # fmt: skip


def test_the_environment_stands_in_for_the_settings():
    environment = {
        "AUTOML_LLM_ENDPOINT": "http://localhost:1/v1", "AUTOML_LLM_MODEL": "m", KEY_VARIABLE: "k",
        "AUTOML_LLM_TEMPERATURE": "0.1", "AUTOML_LLM_MAX_TOKENS": "99", "AUTOML_LLM_TIMEOUT": "600",
    }  # fmt: skip
    assert options_of(environment) == {
        "endpoint": "http://localhost:1/v1", "model": "m", "api_key_env": KEY_VARIABLE, "temperature": 0.1,
        "max_tokens": 99, "timeout_s": 120.0,
    }  # fmt: skip
    assert options_of(environment, llm_model="other")["model"] == "other"
    with pytest.raises(DocumentError, match="AUTOML_LLM_TIMEOUT"):
        options_of({**environment, "AUTOML_LLM_TIMEOUT": "soon"})


def test_a_key_is_named_and_never_an_option():
    given = read_tao_settings({"algorithm": "llm", **ASKED, "api_key": "xyzzy"}).llm
    assert "xyzzy" not in str(options_of(**ASKED, api_key="xyzzy"))
    assert options_of(**ASKED, api_key="xyzzy")["api_key_env"] == KEY_VARIABLE
    assert with_key(given, {"A": "b"}) == {"A": "b", KEY_VARIABLE: "xyzzy"}
    with pytest.raises(DocumentError, match="give one of them"):
        options_of(**ASKED, api_key="xyzzy", llm_api_key_env="MY_KEY")


@pytest.mark.parametrize(
    ("endpoint", "sent"),
    [
        ("https://inference-api.nvidia.com/v1", True), ("https://nvidia.com", True),
        ("https://nvidia.com.example.org/v1", False), ("http://localhost:1/v1", False),
    ],
)  # fmt: skip
def test_nvidias_key_goes_to_nvidia_alone(endpoint, sent):
    found = options_of({"NVIDIA_API_KEY": "k"}, llm_endpoint=endpoint, llm_model="m")
    assert ("api_key_env" in found) == sent


def test_a_model_that_is_not_named_is_a_fault_before_anything_is_made(ready):
    with pytest.raises(DocumentError) as caught:
        ready(settings={"algorithm": "hybrid"})
    assert "llm_endpoint" in str(caught.value)
    assert "AUTOML_LLM_MODEL" in str(caught.value)


def test_options_of_a_model_do_not_make_another_search(ready):
    def identity(**more):
        own = ready(settings={"algorithm": "hybrid", **ASKED, **more})
        return own.search(own.skill.folder, poll_s=1, environment={}).identity

    assert identity() == identity(llm_model="other", llm_max_total_tokens=50)
