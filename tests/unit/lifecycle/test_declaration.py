"""yard.yaml: what it may say, and every fault with its file, key, value and remedy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelyard.core.faults import Faults, Section
from modelyard.ensemble.policies.settings import read_settings
from modelyard.jobs.step import Resources
from modelyard.lifecycle.declaration import METHODS, Declaration, read_declaration
from modelyard.lifecycle.triggers import Retrain, WatchSettings

Declared = Callable[..., Declaration]
Refused = Callable[..., list[str]]
Model = Callable[..., dict[str, Any]]
DATA = {"dataset": "d.csv", "test_dataset": "t.csv", "truth": "truth.csv"}


def test_the_defaults(declared: Declared) -> None:
    yard = declared(prepare=None, schema=None)
    assert (yard.name, yard.horizon, yard.period, yard.step_s, yard.seed) == ("small", 3, 24, 3600.0, 42)
    assert (yard.continue_on_error, yard.disk_gib, yard.preparations) == (False, 1.0, ())
    settings = yard.ensemble
    assert (settings.method, settings.beta, settings.dirty_interval) == ("auto", 0.99, 3)
    assert (settings.amplitude_window, settings.mutant_epsilon) == (24, None)


def test_everything_a_yard_can_say(declared: Declared, declare_model: Model) -> None:
    yard = declared(
        period=7,
        seed=1,
        step="1d",
        on_error="continue",
        disk_gib=0.5,
        context={"lr": 0.1},
        prepare=[{"name": "p", "run": "a | b", "shell": True, "retries": 2, "resources": {"gpus": 1}}],
        models=[declare_model("solo", enabled=True, required=False)],
        ensemble={
            "method": "boa",
            "beta": 0.9,
            "dirty_interval": 0,
            "amplitude_window": 1,
            "mutant_epsilon": 0.3,
            "validation_until": "2024-01-01T00:00+02:00",
        },
    )
    assert (yard.period, yard.seed, yard.step_s, yard.continue_on_error) == (7, 1, 86400.0, True)
    (made,) = yard.preparations
    assert (made.name, made.run, made.shell, made.outputs) == ("p", "a | b", True, ())
    assert (made.limits.retries, made.limits.resources) == (2, Resources(gpus=1))
    assert yard.scope.values["lr"] == 0.1
    settings = yard.ensemble
    assert (settings.method, settings.beta, settings.mutant_epsilon) == ("boa", 0.9, 0.3)
    assert (settings.dirty_interval, settings.amplitude_window) == (0, 1)
    assert settings.validation_until == "2024-01-01T00:00:00+02:00"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30min", 1800), ("1h", 3600), ("1.5 h", 5400), ("2d", 172800), ("0.25s", 0.25)],
)
def test_durations(declared: Declared, text: str, seconds: float) -> None:
    assert declared(step=text).step_s == seconds


@pytest.mark.parametrize(
    "text", ["0h", "1m", "one hour", "1h30min", "-1h", "h", "1 hour", "1e3s", "P1D", "∞h"]
)
def test_what_is_no_duration(refused: Refused, text: str) -> None:
    (told,) = refused(step=text)
    assert told.startswith("step = ")
    assert told.endswith("is not a duration; write a number and s, min, h or d, such as 30min")


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2024-01-02", "2024-01-02T00:00:00+00:00"),
        ("2024-01-02T03:04", "2024-01-02T03:04:00+00:00"),
        ("2024-01-02 03:04:05", "2024-01-02T03:04:05+00:00"),
        ("2024-01-02T03:04:05Z", "2024-01-02T03:04:05+00:00"),
        ("2024-01-02T03:04:05+05:30", "2024-01-02T03:04:05+05:30"),
    ],
)
@pytest.mark.parametrize("quote", ["", '"'])
def test_moments_with_and_without_a_zone_quoted_or_not(
    write: Callable[..., Path], text: str, moment: str, quote: str
) -> None:
    path = write(ensemble=None)
    path.write_text(path.read_text() + f"ensemble:\n  validation_until: {quote}{text}{quote}\n")
    assert read_declaration(path, Path("/runs/r")).ensemble.validation_until == moment


UNTIL = "write an ISO 8601 time: earlier truth teaches the policy, later truth tests it"
OWN = "is a name of modelyard's own; choose another name"
FAULTS = [
    (
        {"schema": "modelyard.yard/2"},
        'schema = "modelyard.yard/2": is not known; use one of modelyard.yard/1',
    ),
    ({"horizon": None}, "horizon: is missing; write an integer of at least 1"),
    ({"horizon": 0}, "horizon = 0: is out of range; use at least 1 and at most 10000"),
    ({"horizon": 10_001}, "horizon = 10001: is out of range; use at least 1 and at most 10000"),
    ({"period": "24"}, 'period = "24": is not an integer; write an integer of at least 1'),
    ({"seed": -1}, "seed = -1: is out of range; use at least 0"),
    ({"seed": 10**20}, f"seed = {10**20}: is out of range; use at least 0 and at most {2**53 - 1}"),
    ({"step": 3600}, "step = 3600: is not a non-empty string; write a string"),
    ({"on_error": "go on"}, 'on_error = "go on": is not known; use one of stop, continue'),
    ({"disk_gib": 0}, "disk_gib = 0: is out of range; use a number above 0"),
    (
        {"promotion": {}},
        "promotion = {}: is an unknown key; known keys: context, data, disk_gib, ensemble, gateway, "
        "governance, horizon, judge, models, name, notify, on_error, period, pool, prepare, schema, seed, "
        "step, watch",
    ),
    ({"horizont": 3}, "horizont = 3: is an unknown key; did you mean horizon?"),
    ({"context": {"run_dir": "x"}}, f'context.run_dir = "x": {OWN}'),
    ({"context": {"seed": 1}}, f"context.seed = 1: {OWN}"),
    ({"context": {"model_dir": "x"}}, f'context.model_dir = "x": {OWN}'),
    ({"data": {**DATA, "python": "x"}}, f'data.python = "x": {OWN}'),
    ({"data": {**DATA, "horizon": "x"}}, f'data.horizon = "x": {OWN}'),
    ({"data": {**DATA, "extra": None}}, "data.extra: is not a scalar; use a string, a number or a boolean"),
    (
        {"data": {**DATA, "extra": ["a"]}},
        'data.extra = ["a"]: is not a scalar; use a string, a number or a boolean',
    ),
    (
        {"data": {**DATA, "extra": "{data_dri}/x"}},
        'data.extra = "{data_dri}/x": unknown placeholder {data_dri}; did you mean {data_dir}?',
    ),
    (
        {"data": {"dataset": "d.csv", "test_dataset": "t.csv"}},
        "data.truth: is missing; give the file with columns target_time and y",
    ),
    ({"ensemble": {}}, f"ensemble.validation_until: is missing; {UNTIL}"),
    (
        {"ensemble": {"validation_until": "soon"}},
        f'ensemble.validation_until = "soon": is not a time; {UNTIL}',
    ),
    (
        {"ensemble": {"validation_until": 20240101}},
        f"ensemble.validation_until = 20240101: is not a time; {UNTIL}",
    ),
    (
        {"ensemble": {"validation_until": "2024-01-01", "beta": 1}},
        "ensemble.beta = 1: is out of range; use a number above 0 and below 1",
    ),
    (
        {"ensemble": {"validation_until": "2024-01-01", "method": "magic"}},
        'ensemble.method = "magic": is not known; use one of auto, committee, boa, mlpoly, adahedge, '
        "fixed_share, nnls, greedy, inverse_score, uniform",
    ),
    (
        {"ensemble": {"validation_until": "2024-01-01", "amplitude_window": 0}},
        "ensemble.amplitude_window = 0: is out of range; use at least 1 and at most 100000",
    ),
    (
        {"ensemble": {"validation_until": "2024-01-01", "mutant_epsilon": 0}},
        "ensemble.mutant_epsilon = 0: is out of range; use a number above 0",
    ),
    (
        {"ensemble": {"validation_until": "2024-01-01", "epsilon": 1}},
        "ensemble.epsilon = 1: is an unknown key; did you mean mutant_epsilon?",
    ),
    ({"models": []}, "models: has no enabled model; declare at least one"),
    ({"models": "near"}, 'models = "near": is not a list; write a list of mappings'),
    ({"prepare": [{"name": "p"}]}, "prepare[0].run: is missing; write a string"),
    (
        {"prepare": [{"name": "p", "run": "x", "run_dir": "y"}]},
        'prepare[0].run_dir = "y": is an unknown key; did you mean run?',
    ),
    (
        {"prepare": [{"name": "p q", "run": "x"}]},
        "prepare[0].name = \"p q\": is not a name; use letters, digits, '.', '_', '-'",
    ),
    (
        {"prepare": [{"name": "p", "run": "make {datadir}"}]},
        'prepare[0].run = "make {datadir}": unknown placeholder {datadir}; did you mean {data_dir}?',
    ),
    (
        {"prepare": [{"name": "p", "run": "x", "outputs": ["a", "{datadir}/b"]}]},
        'prepare[0].outputs[1] = "{datadir}/b": unknown placeholder {datadir}; did you mean {data_dir}?',
    ),
    ({"watch": {"every": "0.5s"}}, 'watch.every = "0.5s": is shorter than a second; write 1s or more'),
    (
        {"watch": {"every": "often"}},
        'watch.every = "often": is not a duration; write a number and s, min, h or d, such as 30min',
    ),
    ({"watch": {"evry": "1h"}}, 'watch.evry = "1h": is an unknown key; did you mean every?'),
    (
        {"notify": {"run": "tell {stat}"}},
        'notify.run = "tell {stat}": unknown placeholder {stat}; did you mean {state}?',
    ),
    (
        {"notify": {"run": "tell | wc"}},
        'notify.run = "tell | wc": holds the shell\'s |, but commands run without a shell; '
        "set shell: true, or quote it if it is meant literally",
    ),
    ({"notify": {"on": ["failed"]}}, "notify.run: is missing; write a string"),
    (
        {"notify": {"run": "tell", "on": ["failed", "late"]}},
        'notify.on[1] = "late": never happens; use some of failed, retrained, succeeded',
    ),
    (
        {"prepare": [{"name": "p", "run": "a > b"}]},
        'prepare[0].run = "a > b": holds the shell\'s >, but commands run without a shell; '
        "set shell: true, or quote it if it is meant literally",
    ),
]


@pytest.mark.parametrize(("change", "told"), FAULTS, ids=[str(change)[:60] for change, _ in FAULTS])
def test_a_fault_tells_file_key_value_and_remedy(refused: Refused, change: dict[str, Any], told: str) -> None:
    assert told in refused(**change)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            {"predict": None},
            "models[0].predict: is missing; give the command that writes the member's forecasts",
        ),
        (
            {"outputs": {"model": "{model_dir}/m"}},
            "models[0].outputs.predictions: is missing; give the file that the predict command writes",
        ),
        (
            {"outputs": {"predictions": "{model}/m"}},
            'models[0].outputs.predictions = "{model}/m": unknown placeholder {model}; '
            "did you mean {model_dir}?",
        ),
        (
            {"predict": "tell {dataste}"},
            'models[0].predict = "tell {dataste}": unknown placeholder {dataste}; did you mean {dataset}?',
        ),
        ({"train_cmd": "x"}, 'models[0].train_cmd = "x": is an unknown key; did you mean train?'),
    ],
)
def test_a_members_fault_tells_where_it_stands(
    refused: Refused, declare_model: Model, change: dict[str, Any], told: str
) -> None:
    assert refused(models=[declare_model("near", **change)]) == [told]


def test_all_faults_are_told_at_once(refused: Refused) -> None:
    told = refused(horizon=0, period=0, ensemble={"beta": 2, "validation_until": "x"}, colour="red")
    keys = [line.partition(" = ")[0] for line in told]
    assert sorted(keys) == ["colour", "ensemble.beta", "ensemble.validation_until", "horizon", "period"]


def test_a_disabled_member_is_no_pool(refused: Refused, declare_model: Model) -> None:
    told = refused(models=[declare_model("near", enabled=False)])
    assert told == ["models: has no enabled model; declare at least one"]


def test_paths_start_from_the_file_and_urls_and_homes_are_kept(declared: Declared, tmp_path: Path) -> None:
    data = {
        "dataset": "d.csv",
        "test_dataset": "/t.csv",
        "truth": "{data_dir}/truth.csv",
        "far": "s3://bucket/x",
        "home": "~/x",
        "tagged": "{tag}/x",
    }
    yard = declared(data=data, context={"tag": "blue"})
    values = yard.scope.values
    assert yard.truth == values["truth"] == "/runs/r/data/truth.csv"
    assert values["dataset"] == values["train_dataset"] == str(tmp_path / "d.csv")
    assert (values["test_dataset"], values["far"]) == ("/t.csv", "s3://bucket/x")
    assert (values["home"], values["tagged"]) == (str(Path.home() / "x"), str(tmp_path / "blue" / "x"))
    assert "truth" not in yard.scope.datasets and "far" in yard.scope.datasets


@pytest.mark.parametrize(
    ("value", "word"), [(True, "True"), (3, "3"), (0.5, "0.5"), ("a b", "a b"), ("2024-01-02", "2024-01-02")]
)
def test_scalars_of_the_context_are_placeholders(declared: Declared, value: Any, word: str) -> None:
    assert str(declared(context={"tag": value}).scope.values["tag"]) == word


def test_a_file_wins_over_a_context_of_its_name(declared: Declared, tmp_path: Path) -> None:
    assert declared(context={"dataset": "other"}).scope.values["dataset"] == str(tmp_path / "d.csv")


def test_the_methods_are_those_of_the_ensemble(declared: Declared) -> None:
    for method in METHODS:
        yard = declared(ensemble={"validation_until": "2024-01-01", "method": method})
        faults = Faults(file="spec.json")
        spec = {"method": yard.ensemble.method, "horizon": 3, "period": 24, "step_s": 3600}
        until = {"validation_until": yard.ensemble.validation_until}
        assert read_settings(Section(spec | until, faults=faults)).method == method
        assert faults.found == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"retrain": {"age": "old"}}, 'models[0].retrain.age = "old": is not a duration'),
        ({"retrain": {"drift": "yes"}}, 'models[0].retrain.drift = "yes": is not a boolean'),
        ({"retrain": {"drift": False}}, "never trains anything anew; give age"),
        ({"retrain": {"ages": "7d"}}, "is an unknown key; did you mean age?"),
        ({"retrain": {"age": "7d"}, "train": None}, "has nothing to run again"),
        (
            {"retrain": {"age": "7d"}, "outputs": {"predictions": "{model_dir}/out.csv"}},
            "needs an output of the training",
        ),
        (
            {"retrain": {"age": "7d"}, "outputs": {"model": "/m", "predictions": "{model_dir}/out.csv"}},
            'models[0].outputs.model = "/m": lies outside the run\'s folder',
        ),
    ],
    ids=str,
)
def test_what_cannot_be_trained_anew(
    refused: Refused, declare_model: Model, change: dict[str, Any], told: str
) -> None:
    assert any(told in line for line in refused(models=[declare_model("near", **change)]))


def test_what_makes_members_train_anew(declared: Declared, declare_model: Model) -> None:
    near = declare_model("near", retrain={"age": "7d", "drift": True})
    declaration = declared(
        models=[near, declare_model("far")],
        watch={"every": "10min", "recent": 5},
        notify={"run": "tell {run} {step} {state}", "on": ["retrained"], "secrets": ["HOOK"]},
    )
    assert declaration.retrain == {"near": Retrain(age_s=7 * 86400.0, drift=True)}
    assert declaration.watch == WatchSettings(every_s=600.0, recent=5, level=0.05)
    notify = declaration.notify
    assert notify is not None and (notify.on, notify.secrets, notify.timeout_s) == (
        ("retrained",),
        ("HOOK",),
        30.0,
    )
    assert declared().notify is None


def test_a_bare_on_is_a_key(write: Callable[..., Path], tmp_path: Path) -> None:
    path = write()
    path.write_text(path.read_text() + "notify: {run: tell, on: [succeeded]}\n")
    notify = read_declaration(path, tmp_path / "run").notify
    assert notify is not None and notify.on == ("succeeded",)


def test_the_ensembles_names_are_those_of_its_room():
    from modelyard.ensemble.combining.rules import METHODS as RULES
    from modelyard.ensemble.runtime.drift import DETECTORS as THEIRS
    from modelyard.lifecycle.declaration import DETECTORS, METHODS

    assert ("auto", *RULES) == METHODS and DETECTORS == THEIRS
