"""`modelyard up` on a small yard with real commands: whole, broken, stopped, killed, resumed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from modelyard.core.journal import Journal
from modelyard.testing.kills import Kill, Trial, survive
from modelyard.verify.journal import verify_journal

pytestmark = pytest.mark.slow

MODELYARD = [sys.executable, "-m", "modelyard.cli.main"]


def test_from_the_file_to_the_report(tmp_path, small_yard, modelyard, run_dir, read) -> None:
    small_yard()
    done = modelyard("up", "yard.yaml", "--json")
    assert done.returncode == 0, done.stderr
    run = run_dir()
    policy = read(run / "policy.json")
    assert policy["schema"] == "elpa.policy/2" and policy["skill"] == "ELPA"
    assert policy["method"]["name"] == "committee"
    assert set(policy["online_models"]) == {"naive", "seasonal"} and policy["offline_models"] == ["offline"]
    assert abs(sum(policy["online_weights"].values()) - 1) < 1e-9
    assert (run / "report.html").read_text().startswith("<!doctype html>")
    kinds = {row["kind"] for row in read(run / "backtest" / "backtest.json")["table"]}
    hindsight = {"best_single_hindsight", "best_convex_hindsight", "best_switching_hindsight"}
    assert kinds == {"expert", "uniform", "inverse_score", "policy"} | hindsight
    assert modelyard("audit", "verify").returncode == 0
    again = modelyard("up", "yard.yaml")
    assert again.returncode == 0
    assert "running" not in again.stderr, "what has succeeded was repeated"
    stored = [e for e in Journal(tmp_path / ".modelyard" / "journal").read() if e.kind == "artifact.stored"]
    assert {"predictions", "truth", "policy", "results", "report"} <= {e.data["kind"] for e in stored}
    (page,) = (e for e in stored if e.data["kind"] == "report")
    assert page.data["parents"], "the report has no lineage"


def test_the_views_and_a_damaged_index_is_made_anew(tmp_path: Path, small_yard, modelyard, run_dir) -> None:
    small_yard()
    planned = modelyard("plan", "yard.yaml")
    assert planned.returncode == 0 and "predict/naive" in planned.stdout
    assert modelyard("status").returncode == 1  # nothing was written by planning
    assert modelyard("up", "yard.yaml").returncode == 0
    name = run_dir().name
    listed = modelyard("status")
    assert name in listed.stdout and "succeeded" in listed.stdout
    shown = modelyard("status", name[:8])
    assert "SUCCEEDED  predict/naive" in shown.stdout
    assert '"state": "succeeded"' in modelyard("status", name, "--json").stdout
    assert "succeeded" in modelyard("status", name, "--follow").stdout
    assert '"truth_rows"' in modelyard("logs", name, "collect").stdout
    wrong = modelyard("logs", name, "predict/nobody")
    assert wrong.returncode == 1 and "is not a step" in wrong.stderr
    (tmp_path / ".modelyard" / "yard.db").write_text("junk" * 2000)
    done = modelyard("status")
    assert done.returncode == 0 and "succeeded" in done.stdout


#: What members do wrong, and what is then told of them.
TROUBLES = {
    "true": "the promised output is missing",
    "touch {model_dir}/predictions.csv": "the promised output is empty",
    "{python} member.py nan {history} {model_dir}/predictions.csv {horizon}": "finite",
    "{python} member.py naive {history} {model_dir}/predictions.csv 1": "lead",
    "false": "exit status 1",
}


def test_broken_members_are_excluded_and_the_pool_goes_on(
    small_yard, modelyard, run_dir, read, member
) -> None:
    telling = {f"broken{i}": told for i, told in enumerate(TROUBLES.values())}
    small_yard(
        *(
            {**member("naive", "online"), "name": f"broken{i}", "predict": bad}
            for i, bad in enumerate(TROUBLES)
        )
    )
    done = modelyard("up", "yard.yaml", "--continue-on-error")
    assert done.returncode == 3, done.stderr
    policy = read(run_dir() / "policy.json")
    reasons = {each["name"]: each["reason"] for each in policy["excluded"]}
    assert reasons.keys() == telling.keys()
    assert [name for name, told in telling.items() if told not in reasons[name]] == [], reasons
    assert set(policy["online_weights"]) == {"naive", "seasonal"}
    members = {m["name"]: m for m in read(run_dir() / "manifest.json")["models"]}
    assert {name: members[name]["status"] for name in telling} == dict.fromkeys(telling, "failed")
    assert [name for name, told in telling.items() if told not in members[name]["reason"]] == []


@pytest.mark.parametrize(
    "trouble", ["true", "{python} member.py nan {history} {model_dir}/predictions.csv 2"]
)
def test_without_continue_on_error_a_failed_member_fails_the_run(
    small_yard, modelyard, run_dir, member, trouble: str
) -> None:
    small_yard({**member("naive", "online"), "name": "broken", "predict": trouble})
    assert modelyard("up", "yard.yaml").returncode == 1
    assert not (run_dir() / "policy.json").exists()


def test_a_member_that_is_mended_joins_on_resume(
    tmp_path: Path, small_yard, modelyard, run_dir, read, member
) -> None:
    once = "{python} late.py {history} {model_dir}/predictions.csv {horizon}"
    (tmp_path / "late.py").write_text("raise SystemExit(5)\n")
    small_yard({**member("naive", "online"), "name": "late", "predict": once}, on_error="continue")
    assert modelyard("up", "yard.yaml").returncode == 3
    first = read(run_dir() / "policy.json")
    source = (tmp_path / "member.py").read_text().replace("sys.argv[1], sys.argv[2]", "'naive', sys.argv[1]")
    (tmp_path / "late.py").write_text(
        source.replace("sys.argv[3], int(sys.argv[4])", "sys.argv[2], int(sys.argv[3])")
    )
    assert modelyard("up", "yard.yaml").returncode == 0
    second = read(run_dir() / "policy.json")
    assert "late" not in first["online_models"] and "late" in second["online_models"]
    assert second["excluded"] == []


def test_a_changed_script_runs_again_and_what_hangs_on_it(tmp_path: Path, small_yard, modelyard) -> None:
    small_yard()
    assert modelyard("up", "yard.yaml").returncode == 0
    source = (tmp_path / "member.py").read_text()
    (tmp_path / "member.py").write_text(source.replace("0.8 * y[", "0.9 * y["))
    again = modelyard("up", "yard.yaml")
    assert again.returncode == 0
    assert "predict/naive                running" in again.stderr
    assert "report                       running" in again.stderr
    assert (
        "prepare/series               ok" in again.stderr
        and "prepare/series               running" not in again.stderr
    )


def test_what_an_older_attempt_left_is_not_taken_for_new(
    tmp_path: Path, small_yard, modelyard, member
) -> None:
    copy = "sh copy.sh {model_dir}/../naive/predictions.csv {model_dir}/predictions.csv"
    (tmp_path / "copy.sh").write_text("sleep 1; cp $1 $2\n")
    small_yard(member("naive", "online", name="copier", predict=copy))
    assert modelyard("up", "yard.yaml", "--jobs", "1").returncode == 0
    (tmp_path / "copy.sh").write_text("exit 0\n")
    again = modelyard("up", "yard.yaml", "--continue-on-error")
    assert again.returncode == 3
    assert "copier" in again.stderr and "the promised output is missing" in again.stderr


def test_an_output_belongs_to_one_step_alone(small_yard, modelyard, member) -> None:
    theirs = {"predictions": "{model_dir}/../naive/predictions.csv"}
    small_yard(member("naive", "online", name="thief", outputs=theirs))
    done = modelyard("plan", "yard.yaml")
    assert done.returncode == 2 and "is also left by" in done.stderr
    small_yard(member("naive", "online", name="vandal", outputs={"predictions": "{truth}"}))
    done = modelyard("plan", "yard.yaml")
    assert done.returncode == 2 and "is a data file of the document" in done.stderr


def test_mistakes_that_no_plan_can_bear(tmp_path: Path, small_yard, modelyard, member) -> None:
    settings = {"validation_until": "9999-12-31", "amplitude_window": 10**12}
    path = small_yard(
        member("naive", "online", name="env", env={"B=C": "x"}), step="1000000000d", ensemble=settings
    )
    done = modelyard("plan", "yard.yaml")
    assert done.returncode == 2
    known = (
        "is not within the years",
        "ensemble.amplitude_window",
        "is not a duration",
        "cannot name a variable",
    )
    assert [telling for telling in known if telling not in done.stderr] == []
    bomb = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    bomb += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    path.write_text("\n".join(["name: bomb", *bomb]))
    done = modelyard("plan", "yard.yaml")
    assert done.returncode == 2 and "aliases" in done.stderr
    (tmp_path / "file").write_text("")
    for wrong in (
        ["init", "file"],
        ["up", "yard.yaml", "--yard", "file/x"],
        ["status", "--yard", "/dev/null/x"],
    ):
        done = modelyard(*wrong)
        assert done.returncode in (1, 2) and "Traceback" not in done.stderr, done.stderr


def test_fresh_begins_anew_and_is_taken_up_without_it(tmp_path: Path, small_yard, modelyard) -> None:
    small_yard()
    assert modelyard("up", "yard.yaml").returncode == 0
    assert modelyard("up", "yard.yaml", "--fresh").returncode == 0
    runs = sorted(path.name for path in (tmp_path / ".modelyard" / "runs").iterdir())
    assert len(runs) == 2 and runs[1] == f"{runs[0]}-2"
    assert f"run {runs[1]}: succeeded" in modelyard("up", "yard.yaml").stdout


def test_cancel_leaves_nothing_alive_and_a_run_to_resume(
    tmp_path: Path, small_yard, modelyard, run_dir, member, wait_until
) -> None:
    slow = (
        '{python} -c \'import os, time; open("go", "w"); time.sleep(0 if os.path.exists("fast") else 600)\''
    )
    small_yard(member("naive", "online", name="slow", train=slow))
    process = subprocess.Popen([*MODELYARD, "up", "yard.yaml"], cwd=tmp_path, stderr=subprocess.DEVNULL)
    wait_until((tmp_path / "go").exists)
    run = run_dir().name
    assert '"state": "running"' in modelyard("status", run, "--json").stdout
    done = modelyard("cancel", run)
    assert done.returncode == 0, done.stderr
    assert process.wait(timeout=60) == 130
    assert "cancelled" in modelyard("status").stdout
    (tmp_path / "fast").touch()
    assert modelyard("up", "yard.yaml").returncode == 0


def test_cancel_ends_jobs_that_outlived_their_driver(
    tmp_path: Path, small_yard, modelyard, run_dir, read, member, wait_until
) -> None:
    slow = '{python} -c \'import time; open("go", "w"); time.sleep(600)\''
    small_yard(member("naive", "online", name="slow", train=slow))
    process = subprocess.Popen([*MODELYARD, "up", "yard.yaml"], cwd=tmp_path, stderr=subprocess.DEVNULL)
    wait_until((tmp_path / "go").exists)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert "interrupted" in modelyard("status").stdout
    done = modelyard("cancel", run_dir().name)
    assert done.returncode == 0 and "outlived" in done.stdout
    assert "cancelled" in modelyard("status").stdout
    (folder,) = (run_dir() / "jobs").glob("train-slow*")
    assert read(folder / "exit.json")["reason"] == "cancelled"


def test_two_drivers_of_one_run(tmp_path: Path, small_yard, modelyard, member, wait_until) -> None:
    slow = '{python} -c \'import time; open("go", "w"); time.sleep(600)\''
    small_yard(member("naive", "online", name="slow", train=slow))
    process = subprocess.Popen([*MODELYARD, "up", "yard.yaml"], cwd=tmp_path, stderr=subprocess.DEVNULL)
    wait_until((tmp_path / "go").exists)
    second = modelyard("up", "yard.yaml")
    process.terminate()
    assert process.wait(timeout=60) == 130
    assert second.returncode == 1 and "drives this run" in second.stderr


@pytest.mark.kill
@pytest.mark.parametrize(
    "kill",
    [Kill(after_s=2.5, anyone=True), Kill(failpoint="artifacts.before_rename:2")],
    ids=str,
)
def test_a_killed_up_is_taken_up(tmp_path: Path, small_yard, run_dir, read, kill: Kill) -> None:
    small_yard()
    manifest = tmp_path / ".modelyard" / "runs"
    trial = Trial(
        argv=[*MODELYARD, "up", "yard.yaml"],
        cwd=tmp_path,
        environment={**os.environ, "OMP_NUM_THREADS": "1"},
        json_files=[manifest / "none"],
    )
    survival = survive(trial, kill, seed=3)
    assert survival.done, survival.stderr
    assert not survival.left_alive
    assert read(run_dir() / "policy.json")["schema"] == "elpa.policy/2"
    assert not verify_journal(tmp_path / ".modelyard" / "journal").faults


def test_all_faults_of_a_yard_at_once(tmp_path: Path, small_yard, modelyard) -> None:
    path = small_yard({"name": "x y", "group": "odd", "predict": "cat {nope} | wc"}, horizont=3)
    done = modelyard("up", "yard.yaml")
    assert done.returncode == 2
    known = ("horizont", "did you mean horizon?", 'models[3].name = "x y"', "{nope}", "'s |", '"odd"')
    assert [telling for telling in (*known, "outputs.predictions") if telling not in done.stderr] == []
    assert not (tmp_path / ".modelyard").exists()
    path.write_text("name: a\nname: b\n")
    twice = modelyard("up", "yard.yaml")
    assert twice.returncode == 2 and "stands twice" in twice.stderr and "line 2" in twice.stderr


def test_init_writes_a_yard_that_plans(tmp_path: Path, modelyard) -> None:
    assert modelyard("init", "mine").returncode == 0
    assert (tmp_path / "mine" / "yard.yaml").exists()
    (tmp_path / "mine" / "prepare.py").write_text("# mine\n")
    assert modelyard("init", "mine").returncode == 0
    assert (tmp_path / "mine" / "prepare.py").read_text() == "# mine\n"
    assert modelyard("plan", "mine/yard.yaml").returncode == 0
