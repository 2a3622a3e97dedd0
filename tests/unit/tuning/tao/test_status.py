"""`query_status`: others ask for runs and sessions while they go on, after a kill and in the end."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys

import pytest
from tests.unit.tuning.tao.sessions import far, trained

from modelyard.core.errors import TuneError
from modelyard.core.locks import held
from modelyard.testing.bench import fork
from modelyard.tuning.study import Study
from modelyard.tuning.tao import automl, automl_runner
from modelyard.tuning.tao.record import RECORD_FILE
from modelyard.tuning.tao.status import query_status
from modelyard.tuning.view import study_url, view_study

_ASK = (
    "import json, sys; from modelyard.tuning.tao.status import query_status\n"
    "print(json.dumps(query_status(sys.argv[1])))"
)
TWO = [{"metric": "loss"}, {"metric": "latency", "weight": 0.1, "scale": 10}]


def elsewhere(place):
    """What another process is told."""
    asked = subprocess.run(
        [sys.executable, "-c", _ASK, str(place)], capture_output=True, text=True, check=False
    )
    assert asked.returncode == 0, asked.stderr
    return json.loads(asked.stdout)


def holds(asked, own):
    """Whether a status has all that a session's own snapshot has, with the same values."""
    progress = {**asked["progress"], **own["progress"]}
    return asked == {**asked, **own, "progress": progress}


def two_of(rec):
    return {"loss": far(rec), "latency": rec["train.optim.momentum"]}


# -- sessions -----------------------------------------------------------------------------------------------


def test_the_ways_to_it_are_those_of_the_originals_users():
    assert automl.query_status is automl_runner.query_status is query_status


def test_another_process_asks_while_a_session_goes_on(begin, tmp_path):
    session = begin({"automl_max_concurrent": 2})
    assert query_status(tmp_path / "workspace")["progress"] == {
        **session.get_progress(), "succeeded": 0, "failed": 0, "canceled": 0, "pending": 0,
    }  # fmt: skip
    first, second = session.next_recommendation()
    first.assign_job_id("job-0")
    second.assign_job_id("job-1")
    session.report_result(0, 0.5, best_epoch=2, feedback={"note": "good"})
    (third,) = session.next_recommendation()
    session.report_result(third.id, None)
    for ask, place in ((elsewhere, tmp_path / "workspace"), (query_status, session.run_dir)):
        asked = ask(place)
        assert holds(asked, session.get_status())
        assert asked["experiment_id"] == session.run_dir.name
        assert asked["active_jobs"] == [{"rec_id": 1, "job_id": "job-1"}]
        counts = ("completed", "succeeded", "failed", "pending", "total", "best_rec_id", "best_metric")
        assert [asked["progress"][name] for name in counts] == [2, 1, 1, 1, 4, 0, 0.5]
        told = asked["recommendations"]
        assert [each["status"] for each in told] == ["success", "running", "failure"]
        assert told[0]["feedback"] == {"note": "good"} and told[0]["specs"] == dict(first)
        assert told[2]["failure_reason"] == "no value of loss was reported"


@pytest.mark.parametrize(
    "settings",
    [
        {"algorithm": "asha", "automl_max_epochs": 3, "automl_max_recommendations": 3},
        {"algorithm": "hyperband", "automl_max_epochs": 3, "automl_max_recommendations": None},
        {"algorithm": "pbt", "automl_population_size": 3, "automl_max_generations": 2},
    ],
)
def test_a_session_that_has_ended_is_told_as_it_tells_itself(begin, settings):
    session = begin({"automl_max_recommendations": None, **settings})
    trained(session)
    asked = query_status(session.run_dir)
    assert holds(asked, session.get_status())
    assert asked["progress"]["completed"] == asked["progress"]["total"] == len(session.get_history())
    epochs = [each["specs"]["train.num_epochs"] for each in asked["recommendations"]]
    assert epochs == [rec.budget for rec in session.get_history()] and len(set(epochs)) == 2


@pytest.mark.parametrize("algorithm", ["tpe", "cmaes"])
def test_several_objectives_of_a_session(begin, algorithm):
    session = begin({"algorithm": algorithm, "objectives": TWO})
    trained(session, two_of)
    asked = query_status(session.run_dir)
    assert holds(asked, session.get_status())
    assert asked["best"]["objective_values"].keys() == {"loss", "latency"}
    assert asked["best"]["objective_score"] == session.get_best().objective_score
    assert [each["rec_id"] for each in asked["pareto_front"]] == [r.id for r in session.get_pareto_front()]
    weights = [
        (each["metric"], each["weight"], each["scale"])
        for each in asked["progress"]["objectives"]["objectives"]
    ]
    assert weights == [("loss", 1.0, 1.0), ("latency", 0.1, 10.0)]


def test_a_session_that_was_killed_is_told_as_it_stood(begin):
    told, tell = os.pipe()

    def session():
        own = begin({"session_id": "killed", "automl_max_concurrent": 2})
        for rec in own.next_recommendation():
            rec.assign_job_id(f"job-{rec.id}")
        own.report_result(0, 0.5)
        os.write(tell, json.dumps([str(own.run_dir), own.get_status()]).encode())
        os.kill(os.getpid(), signal.SIGKILL)

    pid = fork(session)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    folder, status = json.loads(os.read(told, 1 << 20))
    os.close(told)
    os.close(tell)
    asked = elsewhere(folder)
    assert holds(asked, status)
    assert asked["active_jobs"] == [{"rec_id": 1, "job_id": "job-1"}]
    again = begin({"session_id": "killed", "automl_max_concurrent": 2}, resume=True)
    assert holds(query_status(folder), again.get_status())
    trained(again)
    assert query_status(folder)["progress"]["completed"] == 4


def test_a_recommendation_that_is_half_told_still_runs(begin):
    """A process was killed after it had noted what belongs to the end, and before it said that it ended."""
    session = begin()
    session.next_recommendation()
    before = session.get_status()
    study = Study(
        study_url(session.run_dir, None), session.run_dir.name, directions=["minimize"], dimensions=(),
        lock=session.run_dir / "study.lock",
    )  # fmt: skip
    study.note(0, why="reported as failure", cause="", feedback=[1], objective_values={"loss": 0.5})
    study.close()
    assert session.get_status() == before
    assert holds(query_status(session.run_dir), before)


def test_whoever_asks_while_a_session_writes_is_told_nothing_half(begin, tmp_path):
    settings = {"automl_max_recommendations": 15, "automl_max_concurrent": 3}

    def session():
        own = begin(settings)
        while not own.is_complete():
            for rec in own.next_recommendation():
                rec.assign_job_id(f"job-{rec.id}")
            for number in own.get_status()["active_rec_ids"]:
                bad = number % 5 == 4
                own.report_result(number, None if bad else far(own.get_history()[number]), feedback=[number])

    pid, seen, ended = fork(session), [], (0, 0)
    while ended == (0, 0):
        ended = os.waitpid(pid, os.WNOHANG)
        asked = query_status(tmp_path / "workspace")
        if "error" not in asked:
            seen.append(asked)
    assert os.waitstatus_to_exitcode(ended[1]) == 0
    completed = [asked["progress"]["completed"] for asked in seen]
    assert completed == sorted(completed) and completed[-1] == 15 and len(set(completed)) > 3
    for asked in seen:
        recs, progress = asked["recommendations"], asked["progress"]
        assert [each["rec_id"] for each in recs] == list(range(len(recs)))
        assert progress["completed"] + progress["pending"] == len(recs)
        for each in recs:
            number, status = each["rec_id"], each["status"]
            assert each["specs"].keys() == {"train.optim.lr", "train.optim.momentum"}
            if status == "running":
                assert each["metric_value"] is each["failure_reason"] is each["feedback"] is None
                continue
            assert status == ("failure" if number % 5 == 4 else "success")
            assert each["metric_value"] == (None if status == "failure" else far(each["specs"]))
            assert each["feedback"] == [number] and each["job_id"] == f"job-{number}"
        values = [each["metric_value"] for each in recs if each["status"] == "success"]
        assert asked["best"].get("metric_value") == min(values, default=None)


# -- runs beside them ---------------------------------------------------------------------------------------


def test_of_runs_and_sessions_the_one_written_to_last_is_told(bench, begin):
    def newest():
        return query_status(bench.workspace)["experiment_id"]

    session = begin({"session_id": "a"})
    bench.run(settings={"num_recommendations": 1})
    assert newest() == bench.run_dir.name
    (rec,) = session.next_recommendation()
    assert newest() == "automl_a"
    bench.run(settings={"num_recommendations": 2}, resume=True)
    assert newest() == bench.run_dir.name
    session.report_result(rec.id, 0.5)
    other = begin({"session_id": "b"})
    assert newest() == "automl_b"
    session.next_recommendation()
    assert newest() == "automl_a"
    for looked_at in (other.run_dir, bench.run_dir):  # whoever looks at one does not make it the newest
        query_status(looked_at)
        view_study(looked_at)
    assert newest() == "automl_a"
    assert query_status(bench.run_dir)["progress"]["completed"] == 2


def test_another_process_asks_while_a_run_goes_on_and_after_it_was_killed(bench, wait_until):
    hold = bench.folder / "hold"
    hold.touch()
    pid = fork(lambda: bench.run(env_vars={"HOLD": str(hold)}))
    (started,) = wait_until(lambda: list(bench.folder.glob("platform/*/started.json")))
    wait_until(lambda: query_status(bench.workspace)["active_jobs"])
    asked = elsewhere(bench.workspace)
    assert asked["active_jobs"] == [{"rec_id": 0, "job_id": started.parent.name}]
    assert (asked["progress"]["pending"], asked["progress"]["total"]) == (1, 3)
    os.kill(pid, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    assert elsewhere(bench.workspace) == asked
    hold.unlink()
    wait_until((started.parent / "exit.json").exists)
    assert query_status(bench.workspace) == asked  # nobody has settled it yet


def test_a_run_and_a_session_that_take_turns_are_told_in_turns(bench, begin):
    told = []

    def ask():
        told.append(query_status(bench.workspace)["experiment_id"].split("_")[0])

    def go_on_with_a_session(*_):
        ask()
        begin().next_recommendation()
        ask()

    bench.run(
        settings={"num_recommendations": 2}, on_recommendation=go_on_with_a_session,
        on_result=go_on_with_a_session,
    )  # fmt: skip
    assert told == ["run", "automl"] * 4


@pytest.mark.parametrize("algorithm", ["tpe", "cmaes"])
def test_several_objectives_of_a_run(bench, algorithm):
    result = bench.run(settings={"algorithm": algorithm, "objectives": TWO, "num_recommendations": 4})
    asked = query_status(bench.workspace)
    for name, value in asked["best"].items():
        assert result["best"][name] == value
    assert {**asked["progress"], **result["progress"]} == asked["progress"]
    fronts = [[each["rec_id"] for each in told["pareto_front"]] for told in (asked, result)]
    assert fronts[0] == fronts[1]


def test_a_run_of_something_else_leaves_the_status_as_it_is(bench):
    bench.run(settings={"num_recommendations": 2})
    before = query_status(bench.workspace)
    with pytest.raises(TuneError, match="begun with another"):
        bench.run(settings={"metric": "latency", "num_recommendations": 9}, resume=True)
    assert query_status(bench.workspace) == before


# -- what is not there, is held, or is damaged --------------------------------------------------------------


def test_where_nothing_is_that_is_told(tmp_path):
    (tmp_path / "run_1").mkdir()
    (tmp_path / "automl_1").mkdir()
    for place in (tmp_path, tmp_path / "run_1", tmp_path / "automl_1", tmp_path / "nowhere"):
        assert query_status(place) == {"error": f"no AutoML state found at {place}"}


def test_nobody_is_waited_for(begin):
    session = begin()
    session.report_result(session.next_recommendation()[0].id, 0.5)
    status = session.get_status()
    writer = sqlite3.connect(session.run_dir / "study.db")
    writer.execute("BEGIN IMMEDIATE")
    with held(session.run_dir / "study.lock"):
        assert holds(query_status(session.run_dir), status)
    writer.close()


def test_who_asks_makes_nothing(begin):
    session = begin()
    trained(session)
    session.finish()
    before = {path.name: path.read_bytes() for path in session.run_dir.iterdir() if path.is_file()}
    query_status(session.run_dir)
    assert {path.name: path.read_bytes() for path in session.run_dir.iterdir() if path.is_file()} == before


def test_a_damaged_file_is_never_read_as_something_else(begin, tmp_path):
    older, session = begin({"session_id": "older"}), begin({"session_id": "torn"})
    trained(older)
    trained(session)
    session.finish()
    whole = query_status(session.run_dir)
    refused = 0
    for name in (RECORD_FILE, "run.json", "study.db"):
        path = session.run_dir / name
        data, written = path.read_bytes(), path.stat()
        for part in (0, 1, 10, len(data) // 4, len(data) // 2, len(data) - 2):
            path.write_bytes(data[:part])
            os.utime(session.run_dir / RECORD_FILE, (4e9, 4e9))
            try:
                assert query_status(tmp_path / "workspace") == whole
            except TuneError as error:
                refused += 1
                assert "automl_torn" in str(error)
            assert path.stat().st_size == part
        path.write_bytes(data)
        os.utime(path, ns=(written.st_atime_ns, written.st_mtime_ns))
    assert refused >= 6 + 6 + 4
    (session.run_dir / "study.db").unlink()
    with pytest.raises(TuneError, match=r"automl_torn: .*study\.db"):
        query_status(session.run_dir)
    assert not (session.run_dir / "study.db").exists()


def test_a_record_of_another_version_is_refused(begin):
    session = begin()
    (session.run_dir / RECORD_FILE).write_text('{"schema": 2}')
    with pytest.raises(TuneError, match="its schema is not 1"):
        query_status(session.run_dir)


def test_no_key_of_a_session_is_written_down(begin, tmp_path):
    session = begin({"llm_api_key": "xyzzy-4711", "api_key": "xyzzy-4711"})
    trained(session)
    session.finish()
    query_status(session.run_dir)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files and all(b"xyzzy-4711" not in path.read_bytes() for path in files)
