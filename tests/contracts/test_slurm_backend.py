"""The Slurm backend keeps the contract of backends, on a real Slurm of two nodes with fake GPUs.

After the contract come the ends that Slurm itself makes: a lost node, a preemption, a user's scancel, a
requeue, a controller that is gone for a while. Starting a job takes about a second there, so tests share.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelyard.core.errors import BackendUnreachable, SubmitError
from modelyard.jobs.backend import BackendSettings
from modelyard.jobs.backends.slurm import SlurmBackend
from modelyard.jobs.backends.slurm_options import SlurmOptions
from modelyard.jobs.backends.slurm_states import MEANINGS
from modelyard.jobs.job import JobState
from modelyard.jobs.step import Resources
from modelyard.testing.backend_contract import BackendContract
from modelyard.testing.bench import GPUS, Bench, contract_settings, lines_of, settle, wait_until
from modelyard.testing.kills import Kill
from modelyard.testing.slurm_campaign import run_trial
from modelyard.testing.slurm_cluster import SlurmCluster, running_cluster, why_not

QUICK = SlurmOptions(poll_s=0.1, settle_s=0.5, silence_s=1.0)
UNTIL_GO = "touch $MODELYARD_JOB_KEY; while [ ! -e go ]; do sleep 0.01; done"
Open = Callable[..., SlurmBackend]


@pytest.fixture(scope="module")
def cluster():
    reason = why_not()
    if reason:
        pytest.skip(reason)
    with running_cluster() as one:
        yield one


@pytest.fixture
def settings(tmp_path: Path, cluster: SlurmCluster) -> BackendSettings:
    settings = contract_settings(tmp_path / "jobs")
    return dataclasses.replace(settings, environment={**settings.environment, **cluster.environment})


class TestSlurmBackend(BackendContract):
    """Batch jobs."""

    @pytest.fixture
    def reopen(self, settings):
        return lambda: SlurmBackend(settings, options=dataclasses.replace(QUICK, gpus=len(GPUS)))

    @pytest.fixture
    def backend(self, reopen):
        return reopen()


class TestOnACluster:
    """What the contract does not ask of every backend."""

    @pytest.fixture
    def opened(self, settings):
        settings = dataclasses.replace(settings, slots=None)
        return lambda **options: SlurmBackend(settings, options=dataclasses.replace(QUICK, **options))

    @pytest.fixture
    def bench(self, opened, tmp_path):
        folder = tmp_path / "work"
        folder.mkdir()
        one = Bench(opened(), folder)
        yield one
        (folder / "go").touch()
        one.end()

    def begun(self, bench: Bench, *keys: str) -> None:
        wait_until(lambda: all((bench.folder / key).exists() for key in keys), what="the start")

    def test_the_states_are_slurm_s_own(self, cluster):
        later = {"LAUNCH_FAILED", "RECONFIG_FAIL"}  # of Slurm 24 and later
        cluster.run("squeue", "-h", "-t", ",".join(sorted(set(MEANINGS) - later)))

    def test_an_array_and_a_job_on_two_nodes(self, bench: Bench, cluster: SlurmCluster) -> None:
        both = bench.step("srun --label printenv SLURMD_NODENAME", resources=Resources(nodes=2))
        steps = [*(bench.step(f"echo $SLURM_ARRAY_TASK_ID; exit {n}") for n in (0, 3, 0)), both]
        with bench.backend.gathered():
            ids = [bench.submit(step) for step in steps]
        reports = settle(bench.backend, ids)
        assert [reports[key].exit_code for key in ids] == [0, 3, 0, 0]
        assert [bench.output(key) for key in ids[:3]] == ["0\n", "1\n", "2\n"]
        assert sorted(bench.output(ids[3]).splitlines()) == ["0: n1", "1: n2"]
        numbers = [bench.backend.job_id(key).partition("_") for key in ids]
        assert len({number for number, _, _ in numbers}) == 2

    def test_a_lost_node_a_preemption_and_a_user_s_scancel(
        self, bench: Bench, opened: Open, cluster: SlurmCluster
    ) -> None:
        on_n1, on_n2 = opened(sbatch=("--nodelist=n1",)), opened(sbatch=("--nodelist=n2",))
        whole = Resources(cpus=4)
        moved = bench.submit(bench.step(UNTIL_GO, resources=whole), backend=on_n1)
        lost = bench.submit(bench.step(UNTIL_GO), backend=on_n2)
        ended = bench.submit(bench.step(UNTIL_GO), backend=on_n2)
        self.begun(bench, moved, lost, ended)
        cluster.run("scancel", bench.backend.job_id(ended))
        assert settle(bench.backend, [ended])[ended].state is JobState.CANCELLED
        cluster.run("scontrol", "update", "nodename=n2", "state=down", "reason=test")
        urgent = opened(partition="urgent", sbatch=("--nodelist=n1",))
        first = bench.submit(bench.step("true", resources=whole), backend=urgent)
        reports = settle(bench.backend, [moved, lost, first])
        assert [reports[key].state.value for key in (moved, lost, first)] == ["LOST", "LOST", "SUCCEEDED"]
        assert "PREEMPTED" in reports[moved].detail
        assert "NODE_FAIL" in reports[lost].detail
        assert all(bench.backend.explain(key, reports[key]).retry for key in (moved, lost))
        cluster.run(
            "scontrol", "update", "nodename=n2", "state=resume", check=False
        )  # it may be back already
        cluster.wait_for_nodes()

    def test_a_job_that_slurm_requeues_is_one_job(self, bench: Bench, opened: Open, cluster) -> None:
        backend = opened(requeue=True)
        step = bench.step(f"echo started >> starts; [ -e again ] && exit 0; touch again; {UNTIL_GO}")
        key = bench.submit(step, backend=backend)
        self.begun(bench, key)
        number = backend.job_id(key)
        cluster.run("scontrol", "requeue", number)

        def waits() -> bool:
            report = backend.poll([key])[key]
            assert not report.state.final, report
            return report.state is JobState.PENDING

        wait_until(waits, what="the job's return to the queue")
        cluster.run("scontrol", "update", f"jobid={number}", "StartTime=now")
        assert settle(backend, [key])[key].state is JobState.SUCCEEDED
        assert lines_of(bench.folder / "starts") == ["started", "started"]

    def test_a_controller_that_is_gone_is_no_state_of_a_job(
        self, bench: Bench, opened: Open, cluster
    ) -> None:
        with pytest.raises(SubmitError, match="nvalid partition"):
            opened(partition="nowhere").submit(bench.step(), "refused-1-0")
        key = bench.submit(bench.step(UNTIL_GO))
        self.begun(bench, key)
        cluster.stop("slurmctld")
        try:
            with pytest.raises(BackendUnreachable):
                wait_until(lambda: bench.backend.poll([key]) and None, what="a question to the scheduler")
            (bench.folder / "go").touch()
        finally:
            cluster.start("slurmctld")
            cluster.wait_for_nodes()
        assert settle(bench.backend, [key])[key].state is JobState.SUCCEEDED

    def test_a_driver_killed_between_sbatch_and_its_note_loses_and_doubles_nothing(
        self, tmp_path: Path, cluster: SlurmCluster
    ) -> None:
        kill = Kill(failpoint="slurm.after_sbatch:1")
        survival, broken = run_trial(tmp_path / "trial", kill, cluster=cluster, pool=(2, 0.2), seed=0)
        assert broken == []
        assert survival.statuses == [-9, 0]

    def test_a_run_of_the_command_line(self, tmp_path: Path, cluster: SlurmCluster) -> None:
        models = [{"name": f"m{i}", "train_cmd": "printenv SLURM_JOB_ID"} for i in range(2)]
        (tmp_path / "train.json").write_text(json.dumps({"models": models}))
        (tmp_path / "slurm.yaml").write_text("poll: 0.2s\npartition: main\n")
        words = ["train", "--config", "train.json", "--execute", "--run-dir", "run", "--yard", "yard"]
        ended = modelyard(tmp_path, cluster, *words, "--backend", "slurm")
        assert ended.returncode == 0, ended.stderr
        logs = sorted((tmp_path / "run" / "jobs").glob("train-m*/stdout.log"))
        assert len({log.read_text() for log in logs}) == 2
        assert len(list((tmp_path / "run" / "jobs" / ".slurm").glob("array-*.sh"))) == 1


def modelyard(folder: Path, cluster: SlurmCluster, *words: str) -> subprocess.CompletedProcess[Any]:
    environment = {**os.environ, **cluster.environment, "MODELYARD_SLURM": "slurm.yaml"}
    argv = [sys.executable, "-m", "modelyard.cli.main", *words]
    return subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True, check=False)
