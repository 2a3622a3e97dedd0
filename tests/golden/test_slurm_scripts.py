"""What is submitted to Slurm, byte for byte: the scripts of jobs and of an array, and the whole request.

When a difference is meant, write the files anew and read what changed before it is kept:

    python -m tests.golden.test_slurm_scripts
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
from pathlib import Path

import pytest

from modelyard.jobs.backend import BackendSettings
from modelyard.jobs.backends.slurm import SlurmBackend
from modelyard.jobs.backends.slurm_options import SlurmOptions
from modelyard.jobs.backends.slurm_script import Place, array_script, array_submission, job_script
from modelyard.jobs.step import Resources, Step

FOLDER = Path(__file__).parent / "slurm"
RUN = "/shared/night run's"
PLACE = Place(jobs_dir=Path(RUN, "jobs"), python="/usr/bin/python3", grace_s=10.0)
FULL = SlurmOptions(
    partition="gpu,gpu-long",
    account="climate@h100",
    qos="normal",
    constraint="a100|h100",
    reservation="maintenance_2",
    gpu_type="a100",
    sbatch=("--exclude=n[1-3]", "--exclusive"),
    setup="module load cuda/12.4\nsource /shared/env/bin/activate\n",
    ssh="login.example",
    requeue=True,
)
PLAIN = Step(name="prepare", argv=("true",), cwd="/code")
WIDE = Step(
    name="train/tide",
    argv=("srun", "torchrun", "train.py", "--lr", "it's"),
    cwd="/code",
    env={"LR": "0.1", "NOTE": 'it\'s $(id) `id` "x" \\ *\nsecond line', "HF_TOKEN": "must not be shown"},
    secrets=("WANDB_KEY",),
    resources=Resources(nodes=2, cpus=8, gpus=4, memory_gib=1.5, wall_time_s=7200.0),
    timeout_s=3600.0,
    seed=42,
)
TWINS = tuple(dataclasses.replace(PLAIN, name=f"trial/{i}", timeout_s=30.0) for i in range(3))


def texts() -> dict[str, str]:
    """Each golden file's content by its name."""
    settings = BackendSettings(jobs_dir=Path(RUN, "jobs"), grace_s=10.0)
    options = dataclasses.replace(FULL, python="/usr/bin/python3")
    request = SlurmBackend(settings, options=options).render(WIDE)
    argv = array_submission("array-0123", PLACE)
    return {
        "prepare.sh": job_script(PLAIN, "prepare-1-0", place=PLACE, options=SlurmOptions()),
        "train.tide.sh": job_script(WIDE, "train-tide-1-0", place=PLACE, options=FULL),
        "array.sh": array_script(TWINS, "array-0123", place=PLACE, options=SlurmOptions(partition="cpu")),
        "array.json": json.dumps(argv, indent=2) + "\n",
        "request.json": json.dumps(dict(request.body), indent=2, ensure_ascii=False) + "\n",
    }


@pytest.mark.parametrize("name", sorted(texts()))
def test_it_is_what_it_was(name):
    assert texts()[name] == (FOLDER / name).read_text()


def test_no_golden_file_is_left_over_and_none_shows_a_secret():
    files = {path.name: path.read_text() for path in FOLDER.iterdir()}
    assert set(files) == set(texts())
    assert not [name for name, text in files.items() if "must not be shown" in text]


@pytest.mark.parametrize("name", [name for name in sorted(texts()) if name.endswith(".sh")])
def test_it_is_a_script(name):
    checked = subprocess.run(["bash", "-n", str(FOLDER / name)], capture_output=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, b"")


if __name__ == "__main__":
    for file_name, content in texts().items():
        (FOLDER / file_name).write_text(content)
