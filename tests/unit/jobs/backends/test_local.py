"""What the local backend does beyond the contract: its files, its wrappers, and what outlives them."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from modelyard.core.errors import SubmitError
from modelyard.core.files import read_json
from modelyard.core.processes import is_alive, started_ticks
from modelyard.jobs.backends.local import MARK, available_cpus, total_memory_gib
from modelyard.jobs.job import JobState
from modelyard.jobs.step import Resources

WAIT = "echo $$ > pid; while [ ! -e go ]; do sleep 0.01; done"


def claimant(native_id: str) -> int:
    return int((Path(native_id) / "claim").read_text().partition(":")[0])


def test_a_job_is_a_folder_that_tells_everything(open_local, make_step, ended):
    backend = open_local()
    native_id = backend.submit(
        make_step(script="sleep 0.1; echo hello", env={"LR": "1"}, timeout_s=60.0), "key-1"
    )
    report = ended(backend, native_id)
    folder = Path(native_id)
    assert folder.name == "key-1"
    assert {p.name for p in folder.iterdir()} == {
        "request.json", "environment.json", "claim", "started.json", "heartbeat", "stdout.log", "stderr.log",
        "exit.json",
    }  # fmt: skip
    request = read_json(folder / "request.json")
    assert (request["argv"], request["timeout_s"], request["env"]) == (
        ["sleep 0.1; echo hello"],
        60.0,
        {"LR": "1"},
    )
    ended_record = read_json(folder / "exit.json")
    assert (ended_record["exit_code"], ended_record["reason"]) == (0, "exit")
    assert report.cpu_s is not None
    assert report.max_rss_bytes > 100_000
    assert read_json(folder / "started.json")["started_at"] == report.started_at


def test_the_tightest_limit_holds(open_local, make_step):
    step = make_step(timeout_s=9.0, resources=Resources(wall_time_s=5.0))
    assert open_local().render(step).body["timeout_s"] == 5.0
    assert open_local().render(make_step()).body["timeout_s"] is None


def test_recorded_environment_names_the_rest_without_values(open_local, make_step, ended):
    given = {"PATH": os.environ["PATH"], "UNTELLING": "value-1", "HF_TOKEN": "value-2", "HF_HOME": "value-3"}
    backend = open_local(environment=given)
    native_id = backend.submit(make_step(), "key")
    ended(backend, native_id)
    text = (Path(native_id) / "environment.json").read_text()
    record = json.loads(text)
    assert record["variables"]["HF_HOME"] == "value-3"
    assert record["variables"]["HF_TOKEN"] == "[redacted]"
    assert record["other_names"] == ["UNTELLING"]
    assert "value-1" not in text
    assert "value-2" not in text


def test_a_killed_wrapper_is_a_lost_job_and_nothing_of_it_lives_on(
    open_local, make_step, ended, wait_until, tmp_path
):
    backend = open_local()
    script = "setsid sleep 600 & echo $! > stray; " + WAIT
    native_id = backend.submit(make_step(script=script), "key")
    wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    os.kill(claimant(native_id), signal.SIGKILL)
    report = ended(backend, native_id)
    assert (report.state, report.reason) == (JobState.LOST, "lost")
    assert backend.explain(native_id, report).retry
    for name in ("pid", "stray"):
        wait_until(lambda name=name: not started_ticks(int((tmp_path / name).read_text())))
    assert backend.free(Resources(cpus=2))


def test_a_wrapper_that_was_stopped_is_forced_when_a_cancel_goes_unheard(
    open_local, make_step, ended, wait_until, tmp_path
):
    backend = open_local(grace_s=-4.9)  # forced a tenth of a second after the cancel
    native_id = backend.submit(make_step(script=WAIT), "key")
    wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    os.kill(claimant(native_id), signal.SIGSTOP)
    report = ended(backend, native_id, cancel=True)
    assert report.state is JobState.LOST
    wait_until(lambda: not started_ticks(int((tmp_path / "pid").read_text())))


def test_the_mark_of_a_job_cannot_be_taken_off(open_local, make_step, ended):
    """By it strays are found."""
    backend = open_local()
    native_id = backend.submit(make_step(script=f'printf "$%s" "${MARK}"', env={MARK: "forged"}), "key")
    ended(backend, native_id)
    assert backend.logs(native_id, "stdout")[0] == b"$key"


def test_a_variable_of_the_step_wins_over_what_is_set_for_it(open_local, make_step, ended):
    backend = open_local(gpus=("0",))
    step = make_step(script='echo "$OMP_NUM_THREADS,$CUDA_VISIBLE_DEVICES"',
                     env={"OMP_NUM_THREADS": "7", "CUDA_VISIBLE_DEVICES": "5"})  # fmt: skip
    native_id = backend.submit(step, "key")
    ended(backend, native_id)
    assert backend.logs(native_id, "stdout")[0] == b"7,5\n"


def test_a_job_submitted_again_before_its_wrapper_took_it_keeps_its_gpu(
    open_local, make_step, ended, wait_until, tmp_path
):
    """The second call must not write a request with another GPU than the one that the command sees."""
    backend = open_local(gpus=("0", "1", "2"))
    step = make_step(script="echo $CUDA_VISIBLE_DEVICES; " + WAIT, resources=Resources(gpus=1))
    for number in range(5):
        key = f"key-{number}"
        native_id = backend.submit(step, key)
        assert backend.submit(step, key) == native_id
        assert read_json(Path(native_id) / "request.json")["gpu_ids"] == ["0"]
        (tmp_path / "go").touch()
        ended(backend, native_id)
        (tmp_path / "go").unlink()


def test_relative_folders_of_jobs_mean_those_of_whoever_opened_the_backend(
    open_local, make_step, ended, tmp_path, monkeypatch
):
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    backend = open_local(jobs_dir=Path("jobs"))
    native_id = backend.submit(make_step(script="echo hello", cwd=str(tmp_path / "there")), "key")
    assert ended(backend, native_id).state is JobState.SUCCEEDED
    assert (tmp_path / "here/jobs/key/stdout.log").read_text() == "hello\n"


def test_a_folder_that_cannot_be_made_refuses_the_job(open_local, make_step, tmp_path):
    (tmp_path / "file").write_text("")
    backend = open_local(jobs_dir=tmp_path / "file")
    with pytest.raises(SubmitError, match="train/one: could not be started in"):
        backend.submit(make_step(), "key")
    assert backend.free(Resources(cpus=2))


def test_a_damaged_exit_record_is_a_lost_job(open_local, make_step, ended):
    backend = open_local()
    native_id = backend.submit(make_step(), "key")
    ended(backend, native_id)
    (Path(native_id) / "exit.json").write_text('{"exit_')
    assert backend.poll([native_id])[native_id].detail == "its exit record is damaged"


def test_an_adopted_job_is_watched_though_another_wrapper_was_started_for_it(
    open_local, make_step, ended, wait_until, tmp_path
):
    """A wrapper that came second ends at once; watching that one would make every wait return at once."""
    first = open_local()
    step = make_step(script=WAIT)
    native_id = first.submit(step, "key")
    wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    claim = Path(native_id) / "claim"
    kept = claim.read_text()
    # As at the moment before the claim: a second backend submits the key too.
    claim.rename(claim.with_name("claim.away"))
    second = open_local()
    second.submit(step, "key")
    loser = second._held[native_id].wrapper
    second_claim = wait_until(lambda: claim.exists() and claim.read_text())
    assert second_claim == loser
    os.kill(int(loser.partition(":")[0]), signal.SIGKILL)
    wait_until(lambda: not is_alive(loser))
    claim.with_name("claim.away").replace(claim)
    assert second.poll([native_id])[native_id].state is JobState.RUNNING
    assert second._held[native_id].wrapper == kept
    (tmp_path / "go").touch()
    assert ended(second, native_id).state is JobState.SUCCEEDED
    ended(first, native_id)


def test_memory_is_held_too(open_local, make_step, ended, tmp_path):
    backend = open_local()
    half = total_memory_gib() * 0.6
    assert backend.fits(Resources(memory_gib=half)) == ""
    assert "GiB" in backend.fits(Resources(memory_gib=total_memory_gib() * 2))
    native_id = backend.submit(make_step(script=WAIT, resources=Resources(memory_gib=half)), "key")
    assert not backend.free(Resources(memory_gib=half))
    assert backend.free(Resources())
    (tmp_path / "go").touch()
    ended(backend, native_id)
    assert backend.free(Resources(memory_gib=half))


def test_one_machine_is_one_node(open_local):
    assert "one" in open_local().fits(Resources(nodes=2))


def test_slots_are_the_cores_unless_told(open_local):
    cores = available_cpus()
    assert cores >= 1
    backend = open_local(slots=None)
    assert backend.fits(Resources(cpus=cores)) == ""
    assert backend.fits(Resources(cpus=cores + 1)) != ""
