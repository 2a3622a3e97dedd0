"""The tests' own Slurm: on loopback, in one folder, and it ends what it started and nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from modelyard.core.errors import JobError
from modelyard.core.processes import identity, is_alive
from modelyard.testing.slurm_campaign import DaemonKill, mixed_kills
from modelyard.testing.slurm_cluster import Node, Shape, SlurmCluster, configuration_text, why_not


def lines_of(shape: Shape, folder: Path = Path("/x")) -> list[str]:
    return configuration_text(folder, shape, [7000, 7001, 7002]).splitlines()


def test_everything_is_in_the_folder_and_on_loopback():
    lines = lines_of(Shape())
    assert "CommunicationParameters=NoCtldInAddrAny,NoInAddrAny" in lines
    assert next(line for line in lines if line.startswith("SlurmctldHost=")).endswith("(127.0.0.1)")
    assert all("NodeAddr=127.0.0.1" in line for line in lines if line.startswith("NodeName="))
    paths = [word for line in lines for word in line.split("=") if word.startswith("/")]
    assert len(paths) >= 7
    assert all(path.startswith("/x/") for path in paths)


def test_a_shape_says_what_nodes_there_are():
    lines = lines_of(
        Shape(nodes=(Node(cpus=2, gpus=0, memory_mib=512), Node(cpus=8, gpus=1)), completions=False)
    )
    first, second = [line for line in lines if line.startswith("NodeName=")]
    assert "CPUs=2" in first and "RealMemory=512" in first and "Gres" not in first and "Port=7001" in first
    assert "CPUs=8" in second and "Gres=gpu:1" in second and "Port=7002" in second
    assert "JobCompType=jobcomp/none" in lines


def test_it_goes_up_and_down_and_twice_is_once(tmp_path):
    reason = why_not()
    if reason:
        pytest.skip(reason)
    cluster = SlurmCluster(tmp_path / "c")
    bystander = subprocess.Popen(["sleep", "600"], env={"SLURM_CONF": str(cluster.configuration)})
    try:
        words = [sys.executable, "-m", "modelyard.testing.slurm_cluster"]
        told = subprocess.run(
            [*words, "up", str(cluster.folder)], capture_output=True, text=True, check=True
        ).stdout
        assert told == f"export SLURM_CONF={cluster.configuration}\n"
        names = [name for name in ("munged", "slurmctld", "n1", "n2") if cluster.alive(name)]
        assert names == ["munged", "slurmctld", "n1", "n2"]
        before = (cluster.folder / "processes.json").read_text()
        SlurmCluster(cluster.folder).up()
        assert (cluster.folder / "processes.json").read_text() == before
        cluster.kill("n2")
        assert not cluster.alive("n2")
        cluster.up()
        assert cluster.alive("n2")
        subprocess.run([*words, "down", str(cluster.folder), "--purge"], check=True)
        assert not cluster.folder.exists()
        assert is_alive(identity(bystander.pid))
    finally:
        cluster.down()
        bystander.kill()
        bystander.wait()


def test_where_there_is_no_slurm_the_remedy_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(JobError, match="apt-get install slurm-wlm munge"):
        SlurmCluster(tmp_path).up()


def test_a_campaign_kills_everyone_in_equal_parts():
    kills = mixed_kills(60, within_s=2.0, seed=3)
    daemons = [kill.daemon for kill in kills if isinstance(kill, DaemonKill)]
    assert len(kills) == 60
    assert {name: daemons.count(name) for name in sorted(set(daemons))} == {
        "nodes": 10,
        "slurmctld": 20,
        "slurmd": 10,
    }
    assert kills == mixed_kills(60, within_s=2.0, seed=3)
    assert all(0.0 <= kill.after_s <= 2.0 for kill in kills)
