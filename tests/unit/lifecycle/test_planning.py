"""From a yard to its plan, and the specs that our own steps read while the run goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modelyard.core.errors import DocumentError
from modelyard.core.faults import Faults
from modelyard.core.processes import interpreter
from modelyard.ensemble.__main__ import read_spec as read_elpa_spec
from modelyard.ensemble.report.inputs import read_spec as read_report_spec
from modelyard.jobs.job import Job, JobState, Report
from modelyard.jobs.plan import Plan
from modelyard.jobs.progress import Progress, StepProgress, StepStatus
from modelyard.jobs.step import Resources
from modelyard.lifecycle.declaration import Declaration
from modelyard.lifecycle.planning import Places, SpecWriter, up_plan
from modelyard.results.collect import read_spec as read_collect_spec

Declared = Callable[..., Declaration]
Model = Callable[..., dict[str, Any]]
OWN = ["collect", "integrate", "backtest", "report"]
DONE, FAILED, SKIPPED = StepStatus.SUCCEEDED, StepStatus.FAILED, StepStatus.SKIPPED


def planned(declaration: Declaration) -> Plan:
    return up_plan(declaration, Faults(file="yard.yaml"))


def test_the_steps_in_their_order(declared: Declared) -> None:
    names = [step.name for step in planned(declared()).steps]
    members = {"train/near", "predict/near", "train/far", "predict/far"}
    assert names[0] == "prepare/series" and set(names[1:5]) == members and names[5:] == OWN


def test_who_waits_for_whom(declared: Declared) -> None:
    plan = planned(declared())
    edges = {step.name: (step.needs, step.after) for step in plan.steps}
    assert edges == {
        "prepare/series": ((), ()),
        "train/near": (("prepare/series",), ()),
        "train/far": (("prepare/series",), ()),
        "predict/near": (("train/near",), ()),
        "predict/far": (("train/far",), ()),
        "collect": (("prepare/series",), ("predict/near", "predict/far")),
        "integrate": (("collect",), ()),
        "backtest": (("integrate",), ()),
        "report": (("backtest",), ()),
    }


def test_what_every_step_promises(declared: Declared) -> None:
    outputs = {
        step.name: [(output.path, output.kind) for output in step.outputs]
        for step in planned(declared()).steps
    }
    run = "/runs/r"
    assert outputs == {
        "prepare/series": [(f"{run}/data/truth.csv", "file")],
        "train/near": [(f"{run}/models/near/model", "model")],
        "train/far": [(f"{run}/models/far/model", "model")],
        "predict/near": [(f"{run}/models/near/out.csv", "predictions.online")],
        "predict/far": [(f"{run}/models/far/out.csv", "predictions.offline")],
        "collect": [
            (f"{run}/tables/predictions.parquet", "predictions"),
            (f"{run}/tables/truth.parquet", "truth"),
        ],
        "integrate": [(f"{run}/policy.json", "policy")],
        "backtest": [
            (f"{run}/backtest/{name}", "results")
            for name in ("backtest.json", "backtest.parquet", "weights.parquet")
        ],
        "report": [(f"{run}/report.html", "report")],
    }


def test_our_own_steps_are_commands_with_specs(declared: Declared) -> None:
    plan = planned(declared())
    modules = {name: plan.step(name).argv[2:-1] for name in OWN}
    assert modules == {
        "collect": ("modelyard.results", "collect"),
        "integrate": ("modelyard.ensemble", "integrate"),
        "backtest": ("modelyard.ensemble", "backtest"),
        "report": ("modelyard.ensemble.report",),
    }
    for name in OWN:
        step = plan.step(name)
        assert step.argv[:2] == (interpreter(), "-m")
        assert step.argv[-1] == f"/runs/r/specs/{name}.json"
        assert step.member is None and step.required


def test_the_truth_is_missed_before_anything_runs(declared: Declared, tmp_path: Path) -> None:
    data = {"dataset": "d.csv", "test_dataset": "t.csv", "truth": "truth.csv"}
    plan = planned(declared(data=data, prepare=None))
    assert plan.step("collect").inputs == (str(tmp_path / "truth.csv"),)


def test_a_member_that_comes_trained_waits_for_the_data_alone(
    declared: Declared, declare_model: Model
) -> None:
    one = declare_model("near", train=None, outputs={"predictions": "{model_dir}/out.csv"})
    plan = planned(declared(models=[one]))
    assert [step.name for step in plan.steps] == ["prepare/series", "predict/near", *OWN]
    assert plan.step("predict/near").needs == ("prepare/series",)


def test_a_disabled_member_is_not_planned(declared: Declared, declare_model: Model) -> None:
    plan = planned(declared(models=[declare_model("near"), declare_model("far", enabled=False)]))
    assert not [step.name for step in plan.steps if step.member == "far"]
    assert plan.step("collect").after == ("predict/near",)


def test_members_do_not_wait_for_each_other(declared: Declared, declare_model: Model) -> None:
    plan = planned(declared(models=[declare_model(f"m{i}") for i in range(40)], prepare=None))
    assert all(not step.needs for step in plan.steps if step.name.startswith("train/"))
    assert len(plan.step("collect").after) == 40


def test_a_preparation_is_as_it_was_declared(declared: Declared) -> None:
    made = {"name": "p", "run": "a {horizon} | b", "shell": True, "retries": 2, "timeout_s": 9}
    step = planned(declared(prepare=[{**made, "resources": {"cpus": 2}}])).step("prepare/p")
    assert (step.argv, step.shell, step.retries, step.timeout_s) == (("a 3 | b",), True, 2, 9.0)
    assert (step.resources, step.seed, step.member) == (Resources(cpus=2), 42, None)


def test_two_steps_never_write_one_file(declared: Declared, declare_model: Model) -> None:
    models = [declare_model(name, outputs={"predictions": "/same.csv"}) for name in ("near", "far")]
    with pytest.raises(
        DocumentError, match=r'predict/far\.outputs = "/same\.csv": is also left by predict/near'
    ):
        planned(declared(models=models))


def test_two_preparations_have_two_names(declared: Declared) -> None:
    with pytest.raises(DocumentError, match=r'"prepare/p": names two steps'):
        planned(declared(prepare=[{"name": "p", "run": "a"}, {"name": "p", "run": "b"}]))


@pytest.fixture
def place(declared: Declared, tmp_path: Path) -> Declaration:
    """The sound yard with its run in the test's folder."""
    yard = declared()
    return replace(yard, scope=replace(yard.scope, run_dir=tmp_path / "run"))


@pytest.fixture
def progress(place: Declaration) -> Progress:
    return Progress(planned(place))


def stand(item: StepProgress, status: StepStatus, note: str = "") -> StepProgress:
    """Let a step stand so, after ten seconds."""
    item.status, item.note = status, note
    report = Report(
        state=JobState.SUCCEEDED if status is DONE else JobState.FAILED,
        started_at="2026-01-02T03:04:00+00:00",
        finished_at="2026-01-02T03:04:10.5+00:00",
        cpu_s=4.0,
    )
    if status is not SKIPPED:
        attempt = len(item.jobs) + 1
        name = item.step.name
        item.jobs.append(
            Job(key=name, step=name, step_digest="d", attempt=attempt, backend="local", report=report)
        )
    return item


def specs(place: Declaration) -> Path:
    return place.scope.run_dir / "specs"


def test_specs_are_written_when_every_forecast_has_ended(place: Declaration, progress: Progress) -> None:
    writer = SpecWriter(place)
    for name in ("prepare/series", "train/near", "train/far", "predict/near"):
        writer(stand(progress[name], DONE))
        assert not specs(place).exists()
    progress["predict/far"].status = StepStatus.RUNNING
    writer(progress["predict/far"])
    assert not specs(place).exists()
    writer(stand(progress["predict/far"], DONE))
    assert sorted(path.stem for path in specs(place).iterdir()) == sorted([*OWN, "members"])


def ended(place: Declaration, progress: Progress, **far: Any) -> SpecWriter:
    """All ended well, save what is said of `far`."""
    writer = SpecWriter(place)
    for name in ("train/near", "predict/near"):
        writer(stand(progress[name], DONE))
    writer(stand(progress["train/far"], far.get("train", DONE), far.get("note", "")))
    writer(stand(progress["predict/far"], far.get("predict", DONE), far.get("note", "")))
    return writer


def test_each_reader_accepts_its_spec(place: Declaration, progress: Progress) -> None:
    ended(place, progress)
    run = place.scope.run_dir
    collect = read_collect_spec(specs(place) / "collect.json")
    assert {source.name: str(source.path) for source in collect.models} == {
        name: f"{run}/models/{name}/out.csv" for name in ("near", "far")
    }
    assert str(collect.truth) == place.truth
    for name in ("integrate", "backtest"):
        elpa = read_elpa_spec(specs(place) / f"{name}.json")
        assert elpa.groups == {"near": "online", "far": "offline"} and elpa.excluded == ()
        assert (elpa.predictions, elpa.truth) == (collect.predictions_out, collect.truth_out)
        assert (elpa.settings.horizon, elpa.settings.step_s, elpa.settings.beta) == (3, 3600.0, 0.99)
        assert elpa.settings.validation_until.isoformat() == "2024-01-01T00:00:00+00:00"
        assert (elpa.policy, elpa.backtest) == (run / "policy.json", run / "backtest")
    inputs, out = read_report_spec(specs(place) / "report.json")
    assert (inputs.policy, inputs.backtest) == (run / "policy.json", run / "backtest")
    assert (inputs.members, inputs.title, out) == (
        specs(place) / "members.json",
        "small",
        run / "report.html",
    )


@pytest.mark.parametrize(
    ("standing", "reason"),
    [
        ({"predict": FAILED, "note": "exit status 7"}, "predict failed: exit status 7"),
        ({"train": FAILED, "predict": SKIPPED, "note": "no"}, "train failed: no"),
        ({"predict": StepStatus.CANCELLED, "note": "stopped"}, "predict cancelled: stopped"),
    ],
)
def test_who_has_no_forecast_is_excluded_with_the_reason(
    place: Declaration, progress: Progress, standing: dict[str, Any], reason: str
) -> None:
    ended(place, progress, **standing)
    elpa = read_elpa_spec(specs(place) / "integrate.json")
    assert elpa.groups == {"near": "online"}
    assert [(one.name, one.reason) for one in elpa.excluded] == [("far", reason)]
    assert [source.name for source in read_collect_spec(specs(place) / "collect.json").models] == ["near"]
    near, far = json.loads((specs(place) / "members.json").read_bytes())
    assert (near["status"], near["excluded"]) == ("ok", None)
    assert (far["status"], far["excluded"]) == ("excluded", reason)


def test_specs_are_written_anew_when_a_forecast_changes(place: Declaration, progress: Progress) -> None:
    writer = ended(place, progress, predict=FAILED, note="exit status 7")
    writer(stand(progress["predict/far"], DONE))
    assert read_elpa_spec(specs(place) / "integrate.json").excluded == ()
    before = (specs(place) / "integrate.json").stat().st_mtime_ns
    writer(stand(progress["collect"], DONE))
    assert (specs(place) / "integrate.json").stat().st_mtime_ns == before


def test_what_a_member_took_is_told(place: Declaration, progress: Progress) -> None:
    ended(place, progress, predict=SKIPPED)
    near, far = json.loads((specs(place) / "members.json").read_bytes())
    assert (near["name"], near["group"], near["attempts"]) == ("near", "online", 2)
    assert (near["train_s"], near["predict_s"], near["cpu_s"]) == (10.5, 10.5, 8.0)
    assert (far["attempts"], far["train_s"], far["predict_s"], far["cpu_s"]) == (1, 10.5, None, 4.0)


def test_a_disabled_member_is_not_waited_for(
    declared: Declared, declare_model: Model, tmp_path: Path
) -> None:
    yard = declared(models=[declare_model("near"), declare_model("far", enabled=False)])
    yard = replace(yard, scope=replace(yard.scope, run_dir=tmp_path / "run"))
    progress = Progress(planned(yard))
    writer = SpecWriter(yard)
    writer(stand(progress["train/near"], DONE))
    writer(stand(progress["predict/near"], DONE))
    assert [row["name"] for row in json.loads((specs(yard) / "members.json").read_bytes())] == ["near"]


def test_places_lie_in_the_run() -> None:
    places = Places(run_dir=Path("/runs/r"))
    found = [
        places.predictions,
        places.truth,
        places.policy,
        places.backtest,
        places.report,
        places.spec("x"),
    ]
    assert all(path.is_relative_to("/runs/r") for path in found) and len(set(found)) == 6
