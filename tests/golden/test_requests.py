"""What a dry run shows, byte for byte: the requests of steps, and the record of a plan.

When a difference is meant, write the files anew and read what changed before it is kept:

    python tests/golden/test_requests.py
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modelyard.core.faults import Faults
from modelyard.jobs.backend import BackendSettings
from modelyard.jobs.backends.local import LocalBackend
from modelyard.jobs.command import render_argv, render_shell
from modelyard.jobs.plan import make_plan, plan_record
from modelyard.jobs.step import Output, Resources, Step

FOLDER = Path(__file__).parent
RUN = "/runs/night"
VALUES = {
    "python": "/usr/bin/python3",
    "data": "/data/my flights.csv",
    "model_dir": f"{RUN}/models/tide",
    "lr": 0.01,
}

STEPS = (
    Step(
        name="prepare",
        argv=render_argv("{python} prepare.py --out {data}", VALUES),
        cwd="/code",
        outputs=(Output(path="/data/my flights.csv", kind="dataset"),),
    ),
    Step(
        name="train/tide",
        argv=render_shell(
            "set -e; cd src && {python} train.py --data {data} --lr '{lr}' | tee \"{model_dir}/log\"", VALUES
        ),
        shell=True,
        cwd="/code",
        env={"OMP_NUM_THREADS": "4", "TOKENIZERS_PARALLELISM": "false"},
        inputs=("/data/my flights.csv",),
        outputs=(Output(path=f"{RUN}/models/tide", kind="model"),),
        resources=Resources(cpus=4, gpus=2, memory_gib=1.5, wall_time_s=7200.0),
        timeout_s=3600.0,
        retries=2,
        seed=42,
        member="tide",
    ),
    Step(
        name="train/gated",
        argv=("torchrun", "--nproc-per-node=2", "finetune.py"),
        cwd="/code",
        env={"HF_TOKEN": "must not be shown", "HF_HOME": "/cache"},
        secrets=("HF_TOKEN", "WANDB_KEY"),
        needs=("prepare",),
        resources=Resources(wall_time_s=60.5),
        member="gated",
        required=False,
    ),
    Step(name="report", argv=("/usr/bin/python3", "-m", "report", f"{RUN}/plan.json"), cwd="/code",
         after=("train/tide", "train/gated")),
)  # fmt: skip


def requests() -> dict[str, object]:
    """Each golden file's content by its name."""
    backend = LocalBackend(BackendSettings(jobs_dir=Path(RUN, "jobs"), slots=8, gpus=("0", "1")))
    plan = make_plan("night", STEPS, run_dir=Path(RUN), faults=Faults(file="yard.yaml"))
    named = {f"request.{s.name.replace('/', '.')}.json": dict(backend.render(s).body) for s in plan.steps}
    return {**named, "plan.json": plan_record(plan)}


def text_of(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


@pytest.mark.parametrize("name", sorted(requests()))
def test_it_is_what_it_was(name):
    assert text_of(requests()[name]) == (FOLDER / name).read_text()


def test_no_golden_file_is_left_over_and_none_shows_a_secret():
    files = {path.name: path.read_text() for path in FOLDER.glob("*.json")}
    assert set(files) == set(requests())
    assert not [name for name, text in files.items() if "must not be shown" in text]


if __name__ == "__main__":
    for file_name, content in requests().items():
        (FOLDER / file_name).write_text(text_of(content))
