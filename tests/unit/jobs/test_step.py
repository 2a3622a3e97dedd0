"""Steps: records that come back from JSON, and digests of what a step does and nothing else."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.jobs.step import Output, Resources, Step, is_name, step_digest, step_from, step_record

words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,8}", fullmatch=True)
plain_env = st.dictionaries(st.sampled_from(["PATH", "LR", "OMP_NUM_THREADS", "é"]), words)
steps = st.builds(
    Step,
    name=names,
    argv=st.lists(words, min_size=1, max_size=4).map(tuple),
    shell=st.booleans(),
    cwd=words,
    env=plain_env,
    secrets=st.lists(st.just("HF_TOKEN"), max_size=1).map(tuple),
    image=st.none() | words,
    inputs=st.lists(words, max_size=2).map(tuple),
    outputs=st.lists(st.builds(Output, path=words, kind=words), max_size=2).map(tuple),
    needs=st.lists(names, max_size=2).map(tuple),
    after=st.lists(names, max_size=2).map(tuple),
    resources=st.builds(
        Resources,
        nodes=st.integers(1, 4),
        cpus=st.integers(1, 64),
        gpus=st.integers(0, 8),
        memory_gib=st.floats(0, 1e4),
        wall_time_s=st.none() | st.floats(0.1, 1e6),
    ),
    retries=st.integers(0, 5),
    timeout_s=st.none() | st.floats(0.1, 1e6),
    seed=st.none() | st.integers(0, 2**31),
    member=st.none() | names,
    required=st.booleans(),
)
BASE = Step(
    name="train/tide",
    argv=("python", "train.py", "--out", "/runs/a/models/tide"),
    cwd="/code",
    env={"LR": "0.1"},
    inputs=("/data/train.csv",),
    outputs=(Output(path="/runs/a/models/tide/model.bin", kind="model"),),
    seed=42,
)


def digest(step: Step, run_dir: str = "/runs/a") -> str:
    return step_digest(step, run_dir=run_dir)


def moved(value: object, old: str, new: str) -> object:
    """The step as it would be in another run directory."""
    return step_from(json.loads(json.dumps(step_record(value)).replace(old, new)))  # type: ignore[arg-type]


@given(steps)
def test_a_step_comes_back_from_json(step):
    assert step_from(json.loads(json.dumps(step_record(step)))) == step


@given(steps)
def test_reading_a_step_back_keeps_its_digest(step):
    again = step_from(json.loads(json.dumps(step_record(step))))
    assert digest(again) == digest(step)


def test_secrets_never_stand_in_a_record():
    step = dataclasses.replace(BASE, env={"HF_TOKEN": "hunter2", "MINE": "hunter3"}, secrets=("MINE",))
    assert "hunter" not in json.dumps(step_record(step))


@pytest.mark.parametrize("run_dir", ["/runs/b", "/runs/a/deeper", "/x", "/runs/a2", "/runs/a (1)+[x]"])
def test_the_digest_does_not_see_the_run_directory(run_dir):
    assert digest(moved(BASE, "/runs/a", run_dir), run_dir) == digest(BASE)


@pytest.mark.parametrize("beside", ["/runs/a-data/train.csv", "/runs/ab", "/runs/a.csv", "/runs/a_2/x"])
def test_a_path_that_only_begins_like_the_run_directory_is_another(beside):
    """The same input in two runs is the same step, though one run's name is the beginning of the input's."""
    step = dataclasses.replace(BASE, inputs=(beside,))
    elsewhere = dataclasses.replace(moved(BASE, "/runs/a", "/other/run"), inputs=(beside,))
    assert digest(step) == digest(elsewhere, "/other/run")


@pytest.mark.parametrize(
    "argv",
    [
        ("run", "/runs/a"),
        ("run", "--out=/runs/a/x"),
        ("cd '/runs/a' && run \"/runs/a/x\"",),
        ("-I/runs/a:/usr",),
    ],
)
def test_the_run_directory_is_found_inside_words(argv):
    step = dataclasses.replace(BASE, argv=argv)
    assert digest(step) == digest(moved(step, "/runs/a", "/other/run"), "/other/run")


@pytest.mark.parametrize(
    "same",
    [{"name": "other"}, {"required": False}, {"member": "tide"}, {"retries": 3}, {"backoff_s": 9.0},
     {"backend": "slurm"}],
)  # fmt: skip
def test_the_digest_does_not_see_how_a_step_is_named_or_treated(same):
    assert digest(dataclasses.replace(BASE, **same)) == digest(BASE)


@pytest.mark.parametrize(
    "other",
    [
        {"argv": ("python", "train.py")},
        {"shell": True},
        {"cwd": "/elsewhere"},
        {"env": {"LR": "0.2"}},
        {"secrets": ("HF_TOKEN",)},
        {"image": "pytorch:2"},
        {"inputs": ()},
        {"outputs": ()},
        {"outputs": (Output(path="/runs/a/models/tide/model.bin", kind="file"),)},
        {"needs": ("prepare",)},
        {"after": ("prepare",)},
        {"resources": Resources(cpus=2)},
        {"timeout_s": 5.0},
        {"seed": 43},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_digest_sees_what_a_step_does(other):
    assert digest(dataclasses.replace(BASE, **other)) != digest(BASE)


def test_every_field_is_on_one_of_the_two_lists():
    seen = {"argv", "shell", "cwd", "env", "secrets", "image", "inputs", "outputs", "needs", "after",
            "resources", "timeout_s", "seed"}  # fmt: skip
    unseen = {"name", "required", "member", "retries", "backoff_s", "backend"}
    assert seen | unseen == {field.name for field in dataclasses.fields(Step)}


@pytest.mark.parametrize("name", ["a", "train/tide", "A.b_c-1", "0/1/2", "x" * 100])
def test_names(name):
    assert is_name(name)


@pytest.mark.parametrize(
    "name",
    ["", "..", "../x", "a/../b", "/a", "a/", "a//b", ".hidden", "a/.b", "-a", "a b", "é", "a\n", "x" * 101],
)
def test_what_cannot_be_a_name(name):
    assert not is_name(name)


@given(st.text(max_size=20))
def test_no_name_leaves_its_folder(text):
    if is_name(text):
        assert not text.startswith(("/", "."))
        assert ".." not in text.split("/")
