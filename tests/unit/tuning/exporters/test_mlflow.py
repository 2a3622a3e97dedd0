"""Studies in MLflow: its own client reads what was written to a database and, if one is given, a server."""

from __future__ import annotations

import json
from datetime import datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.mlflow_server import KINDS, MARKS, free_port, mlflow_uri
from tests.unit.tuning.exporters.digits import LOSS, NEW, SIZE, SPACE, TRIALS, end

from modelyard.core.errors import PluginError, TuneError
from modelyard.core.locks import held
from modelyard.testing.made_studies import MadeTrial, make_study
from modelyard.tuning.exporters import GROUP, exporter_names, make_exporter, trial_key
from modelyard.tuning.exporters.mlflow import MlflowExporter, allowed_names
from modelyard.tuning.spaces.scalars import Range
from modelyard.tuning.spaces.space import Parameter, Space
from modelyard.tuning.view import view_study

pytestmark = MARKS


@pytest.fixture(scope="module", params=KINDS)
def uri(request, tmp_path_factory):
    """Where MLflow keeps runs: a database, or a real server before one."""
    with mlflow_uri(request.param, tmp_path_factory.mktemp("mlflow")) as found:
        yield found


@pytest.fixture
def there(uri, request):
    """Exports into an experiment of the test's own, and reads it with MLflow's client."""
    return There(uri, request.node.name)


@pytest.fixture(scope="module")
def exported(uri, tmp_path_factory):
    """A study as it is, what its export told, and what is there: for tests that only read."""
    run_dir = tmp_path_factory.mktemp("study") / "digits"
    make_study(run_dir, SPACE, [LOSS], TRIALS)
    view, there = view_study(run_dir), There(uri, "only read")
    return view, there.export(view), there


class There:
    def __init__(self, uri, experiment):
        from mlflow import MlflowClient

        self.client, self.experiment = MlflowClient(tracking_uri=uri), experiment
        self.exporter = MlflowExporter(tracking_uri=uri, experiment=experiment)
        self.export = self.exporter.export

    @property
    def runs(self):
        found = self.client.get_experiment_by_name(self.experiment)
        return self.client.search_runs([found.experiment_id], order_by=["attributes.start_time"])

    @property
    def parents(self):
        return [run for run in self.runs if "mlflow.parentRunId" not in run.data.tags]

    @property
    def trials(self):
        """Runs of trials by number; two of one number are a fault."""
        runs = [run for run in self.runs if "mlflow.parentRunId" in run.data.tags]
        found = {int(run.data.tags["modelyard.trial"]): run for run in runs}
        assert len(found) == len(runs)
        return found

    def curve(self, run, name):
        return {each.step: each.value for each in self.client.get_metric_history(run.info.run_id, name)}

    def everything(self):
        """All that can be read of the experiment."""
        runs = [run.to_dictionary() for run in self.runs]
        curves = [self.curve(run, name) for run in self.runs for name in run.data.metrics]
        return runs, curves


def test_a_study_is_a_run_and_every_ended_trial_one_nested_in_it(exported):
    _, done, there = exported
    assert (done.added, done.known, done.running) == ((0, 1, 2, 4), (), (3,))
    (parent,) = there.parents
    assert parent.info.run_name == parent.data.tags["modelyard.study"] == "digits"
    assert {run.data.tags["mlflow.parentRunId"] for run in there.trials.values()} == {parent.info.run_id}
    names = {number: run.info.run_name for number, run in there.trials.items()}
    assert names == {0: "digits-0", 1: "digits-1", 2: "digits-2", 4: "digits-4"}
    assert {number: run.info.status for number, run in there.trials.items()} == {
        0: "FINISHED", 1: "FAILED", 2: "KILLED", 4: "FINISHED",
    }  # fmt: skip


def test_the_run_of_a_study_says_how_it_stands(exported):
    _, _, there = exported
    (parent,) = there.parents
    assert parent.info.status == "RUNNING" and parent.data.tags["modelyard.best_trial"] == "4"
    assert json.loads(parent.data.tags["modelyard.counts"]) == {
        "RUNNING": 1, "COMPLETE": 2, "PRUNED": 1, "FAILED": 1,
    }  # fmt: skip
    assert json.loads(parent.data.tags["modelyard.objectives"]) == [["loss", "minimize"]]
    assert there.curve(parent, "best/loss") == {4: 0.25}


def test_parameters_are_those_of_the_trial_under_names_that_mlflow_takes(exported):
    _, _, there = exported
    assert there.trials[4].data.params == {"lr": "0.01", "layers_0_.width": "8", "solver": "sgd"}
    assert there.trials[0].data.params["lr"] == "0.1"


def test_the_curve_is_whole_and_only_a_complete_trial_has_the_objective(exported):
    _, _, there = exported
    trials = there.trials
    assert there.curve(trials[0], "loss") == {1: 2.0, 3: 0.5, 4: 0.75}
    assert there.curve(trials[2], "loss") == {0: 2.0, 3: 1.5}
    assert there.curve(trials[0], "acc") == {4: 0.75} and there.curve(trials[0], "objective/loss") == {4: 0.5}
    assert [n for n, run in trials.items() if "objective/loss" in run.data.metrics] == [0, 4]
    value = "metrics.`objective/loss`"
    found = there.client.search_runs([trials[0].info.experiment_id], f"{value} < 10", order_by=[value])
    assert [run.data.tags["modelyard.trial"] for run in found] == ["4", "0"]


def test_tags_tell_the_rest_and_what_there_is_not_has_no_tag(exported):
    _, _, there = exported
    told = {name.removeprefix("modelyard."): value for name, value in there.trials[1].data.tags.items()}
    assert {name: told[name] for name in ("state", "source", "why", "cause", "job")} == {
        "state": "FAILED", "source": "random", "why": "it broke", "cause": "code", "job": "job-1",
    }  # fmt: skip
    assert "budget" not in told and "parent" not in told
    tags = there.trials[4].data.tags
    assert (tags["modelyard.budget"], tags["modelyard.parent"]) == ("27", "0")
    assert "modelyard.why" not in tags


def test_runs_have_the_times_of_the_trials(exported):
    view, _, there = exported
    info = there.trials[4].info
    began, ended = (datetime.fromisoformat(at) for at in (view.trials[4].started_at, view.trials[4].ended_at))
    assert abs(info.start_time / 1000 - began.timestamp()) < 0.002
    assert abs(info.end_time / 1000 - ended.timestamp()) < 0.002


def test_a_second_export_changes_nothing(study, there):
    view = study()
    there.export(view)
    before = there.everything()
    done = there.export(view)
    assert (done.added, done.known, done.running) == ((), (0, 1, 2, 4), (3,))
    assert there.everything() == before


def test_a_second_export_adds_what_is_new_and_nothing_else(study, there, tmp_path):
    there.export(study())
    before = {number: run.to_dictionary() for number, run in there.trials.items()}
    end(tmp_path / "digits", 3)
    done = there.export(study([NEW]))
    assert (done.added, done.known, done.running) == ((3, 5), (0, 1, 2, 4), ())
    after = {number: run.to_dictionary() for number, run in there.trials.items()}
    assert sorted(after) == [0, 1, 2, 3, 4, 5] and {n: after[n] for n in before} == before
    assert there.curve(there.trials[3], "loss") == {1: 0.0}
    (parent,) = there.parents
    assert parent.info.status == "FINISHED" and parent.data.tags["modelyard.best_trial"] == "5"
    assert there.curve(parent, "best/loss") == {4: 0.25, 6: 0.125}


def test_a_trial_that_was_half_written_is_written_anew(study, there):
    """A run has its status last: what a kill leaves says RUNNING."""
    view = study()
    there.export(view)
    half = there.trials[0]
    there.client.update_run(half.info.run_id, status="RUNNING")
    done = there.export(view)
    assert (done.added, done.known) == ((0,), (1, 2, 4))
    assert there.trials[0].info.run_id != half.info.run_id and there.trials[0].info.status == "FINISHED"
    assert there.trials[0].data.params == half.data.params
    assert there.curve(there.trials[0], "loss") == {1: 2.0, 3: 0.5, 4: 0.75}


def test_another_study_of_the_same_name_is_another(study, there, tmp_path):
    first = study()
    there.export(first)
    (tmp_path / "digits").rename(tmp_path / "old")
    afresh = study([NEW])
    assert trial_key(afresh, afresh.trials[0]) != trial_key(first, first.trials[0])
    assert there.export(afresh).added == (0,)
    assert len(there.parents) == 2 and len(there.runs) == 2 + 4 + 1


def test_every_objective_has_its_value_and_nothing_is_made_of_a_study_without_ended_trials(study, there):
    assert there.export(study([TRIALS[3]], name="empty")).running == (0,)
    assert there.client.get_experiment_by_name(there.experiment) is None
    there.export(study([MadeTrial(values=(1.0, 7.0), metrics={"size": 8.0})], "two", SPACE, (LOSS, SIZE)))
    metrics = there.trials[0].data.metrics
    assert metrics == {"objective/loss": 1.0, "objective/size": 7.0, "size": 8.0}


def test_more_than_one_request_holds(study, there):
    space = Space([Parameter(name=f"p{n}", domain=Range(low=0, high=1)) for n in range(130)])
    curve = {step: float(step) for step in range(2300)}
    there.export(study([MadeTrial(values=(1.0,), curve=curve, why="w" * 9000)], "long", space))
    run = there.trials[0]
    assert len(run.data.params) == 130 and there.curve(run, "loss") == curve
    assert run.data.tags["modelyard.why"] == "w" * 4997 + "..."


def test_the_experiment_is_that_of_the_environment_or_modelyard(study, uri, monkeypatch):
    from mlflow import MlflowClient

    MlflowExporter(tracking_uri=uri).export(study())
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "elsewhere")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert MlflowExporter().export(study([])).place == uri
    client = MlflowClient(tracking_uri=uri)
    for name in ("modelyard", "elsewhere"):
        identity = client.get_experiment_by_name(name).experiment_id
        assert len(client.search_runs([identity])) == 5
        client.delete_experiment(identity)
    with pytest.raises(TuneError, match="elsewhere: this experiment was deleted; restore it"):
        MlflowExporter().export(study([]))


@given(st.lists(st.text(min_size=1), max_size=8))
@example(["a[0]", "a_0_", "a(0)", "/a", "../a", ".", "..", "a//b", "a/", "./a", "x" * 400, "a b", "é", "a\n"])
def test_every_name_has_one_of_its_own_that_mlflow_takes(names):
    from mlflow.utils.validation import _validate_metric_name, _validate_param_name

    allowed = allowed_names(names)
    assert set(allowed) == set(names) and len(set(allowed.values())) == len(allowed)
    for name in allowed.values():
        _validate_metric_name(name)
        _validate_param_name(name)


@pytest.mark.parametrize("name", ["loss", "val/loss", "val_loss", "a.b-c", "top 5: acc"])
def test_names_that_mlflow_takes_stay(name):
    assert allowed_names([name]) == {name: name}


def test_a_server_that_is_not_there_is_an_error_that_hides_the_password(study, uri):
    place = f"http://me:secret@127.0.0.1:{free_port()}"
    with pytest.raises(TuneError, match="start the server, or give another --tracking-uri") as refused:
        MlflowExporter(tracking_uri=place).export(study())
    assert "me:***@127.0.0.1" in str(refused.value) and "secret" not in str(refused.value)


@pytest.mark.parametrize("place", ["nothing://there", "sqlite:////dev/null/m.db", "/dev/null/m"])
def test_a_place_that_mlflow_does_not_take_is_an_error(study, uri, place):
    with pytest.raises(TuneError, match=place):
        MlflowExporter(tracking_uri=place).export(study())


def test_the_command_tells_where_and_how_many(call, uri):
    options = ("--to", "mlflow", "--tracking-uri", uri, "--experiment", "commanded")
    made = call(*options)
    assert (made.exit_code, made.stdout) == (
        0, f"{uri}: 4 trials added, 0 there already, 1 still running\n",
    ), made.exception  # fmt: skip
    told = json.loads(call(*options, "--json").stdout)
    assert told == {
        "study": "digits", "to": "mlflow", "place": uri, "added": [], "known": [0, 1, 2, 4], "running": [3],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "give either --out FILE or --to NAME"),
        (("--out", "x.csv", "--to", "mlflow"), "give either --out FILE or --to NAME"),
        (("--out", "x.csv", "--tracking-uri", "u"), "--tracking-uri goes with --to NAME"),
    ],
)
def test_a_file_or_a_tool_is_asked_for(call, options, words):
    refused = call(*options)
    assert refused.exit_code == 2 and words in refused.output


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        (("--to", "paper"), PluginError, "nothing is registered as 'paper' (known: mlflow, wandb"),
        (("--to", "mlflow", "--mode", "online"), TuneError,
         "--mode: mlflow has no such option; it takes --tracking-uri, --experiment"),
    ],
)  # fmt: skip
def test_what_the_exporter_does_not_know_is_refused(call, options, error, words):
    refused = call(*options)
    assert isinstance(refused.exception, error) and words in str(refused.exception)


def test_one_export_of_a_study_at_a_time(call, uri, tmp_path):
    with held(tmp_path / ".modelyard" / "runs" / "digits" / "export.lock"):
        refused = call("--to", "mlflow", "--tracking-uri", uri, "--experiment", "held")
    assert isinstance(refused.exception, TuneError)
    assert "another process exports this study" in str(refused.exception)


def test_exporters_are_known_by_name():
    assert {"mlflow", "wandb"} <= set(exporter_names()) and GROUP == "modelyard.exporters"
    made = make_exporter("mlflow", {"experiment": "e"})
    assert made == MlflowExporter(experiment="e")
