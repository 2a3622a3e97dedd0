"""The options of a Slurm cluster: read from one file, with every fault of it told."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from modelyard.core.errors import DocumentError
from modelyard.jobs.backends.slurm_options import SlurmOptions, options_from, read_options

FULL = """
partition: gpu,gpu-long
account: climate@h100
qos: normal
constraint: a100|h100
reservation: night_2
gpu_type: a100
gpus: 8
time: 2h
sbatch: [--exclusive, "--exclude=n[1-3]"]
setup: |
  module load cuda
  source env/bin/activate
python: /opt/py 3/bin/python
ssh: me@login.example
requeue: true
array: 50
poll: 30s
settle: 1min
silence: 2min
answer: 10s
"""


def read(tmp_path: Path, text: str) -> SlurmOptions:
    path = tmp_path / "slurm.yaml"
    path.write_text(text)
    return read_options(path)


def test_every_option_can_be_said(tmp_path):
    options = read(tmp_path, FULL)
    assert options == SlurmOptions(
        partition="gpu,gpu-long", account="climate@h100", qos="normal", constraint="a100|h100",
        reservation="night_2", gpu_type="a100", gpus=8, time_s=7200.0,
        sbatch=("--exclusive", "--exclude=n[1-3]"), setup="module load cuda\nsource env/bin/activate\n",
        python="/opt/py 3/bin/python", ssh="me@login.example", requeue=True, array=50, poll_s=30.0,
        settle_s=60.0, silence_s=120.0, answer_s=10.0,
    )  # fmt: skip
    default = SlurmOptions()
    unsaid = [f.name for f in fields(options) if getattr(options, f.name) == getattr(default, f.name)]
    assert unsaid == []


@pytest.mark.parametrize("text", ["", "{}", "# nothing\n"])
def test_nothing_said_is_the_cluster_s_own_choice(tmp_path, text):
    assert read(tmp_path, text) == SlurmOptions()


def test_the_environment_names_the_file(tmp_path):
    assert options_from({}) == SlurmOptions()
    (tmp_path / "s.yaml").write_text("partition: gpu\n")
    assert options_from({"MODELYARD_SLURM": str(tmp_path / "s.yaml")}).partition == "gpu"
    with pytest.raises(
        DocumentError, match=r"gone\.yaml: does not exist; write it, or unset MODELYARD_SLURM"
    ):
        options_from({"MODELYARD_SLURM": str(tmp_path / "gone.yaml")})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("partition: gpu long", "partition"),
        ("partition: --wrap=id", "partition"),
        ('account: "a\\nb"', "account"),
        ("qos: [1]", "qos"),
        ("ssh: -oProxyCommand=id", "ssh"),
        ("gpus: -1", "gpus"),
        ("time: soon", "time"),
        ("poll: 0s", "poll"),
        ("silence: 5s", "silence"),
        ("array: 0", "array"),
        ("requeue: 'yes'", "requeue"),
        ("sbatch: --exclusive", "sbatch"),
        ("sbatch: [exclusive]", "sbatch"),
        ("sbatch: ['--comment=a b']", "sbatch"),
        ("sbatch: ['--output=/tmp/x']", "sbatch"),
        ("sbatch: ['--array=1-3']", "sbatch"),
        ("sbatch: ['--time=5']", "sbatch"),
        ("partion: gpu", "partion"),
    ],
)
def test_a_fault_names_the_key(tmp_path, text, told):
    with pytest.raises(DocumentError) as raised:
        read(tmp_path, text)
    assert [fault.key for fault in raised.value.faults] == [told]
    assert raised.value.faults[0].remedy


def test_options_that_only_begin_like_ours_are_the_user_s(tmp_path):
    assert read(tmp_path, "sbatch: [--nodelist=n1, --mem-per-cpu=2G]").sbatch == (
        "--nodelist=n1",
        "--mem-per-cpu=2G",
    )


def test_all_faults_are_told_at_once(tmp_path):
    with pytest.raises(DocumentError) as raised:
        read(tmp_path, "gpus: many\ntime: soon\npartion: gpu\n")
    assert len(raised.value.faults) == 3
