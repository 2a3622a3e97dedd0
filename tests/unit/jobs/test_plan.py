"""Plans: an order that can run, every fault named, and what the machine lacks."""

from __future__ import annotations

import json
import os
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.errors import DocumentError
from modelyard.core.faults import Faults
from modelyard.jobs.plan import check_machine, make_plan, plan_from, plan_record
from modelyard.jobs.step import Output, Resources, Step

RUN = Path("/runs/a")


def step(name: str, **fields: object) -> Step:
    return Step(**{"name": name, "argv": ("true",), "cwd": "/", **fields})  # type: ignore[arg-type]


def plan_of(*steps: Step, run_dir: Path = RUN):
    return make_plan("test", steps, run_dir=run_dir, faults=Faults(file="yard.yaml"))


def problems(*steps: Step) -> list[tuple[str, str]]:
    with pytest.raises(DocumentError) as caught:
        plan_of(*steps)
    return [(fault.key, fault.problem) for fault in caught.value.faults]


@st.composite
def graphs(draw):
    """Steps in any order whose edges go one way: names, and for each the earlier ones it waits for."""
    count = draw(st.integers(0, 9))
    names = [f"s{i}" for i in range(count)]
    steps = []
    for i, name in enumerate(names):
        earlier = st.lists(st.sampled_from(names[:i]), max_size=3, unique=True) if i else st.just([])
        needs, after, reads = draw(earlier), draw(earlier), draw(earlier)
        steps.append(
            step(
                name,
                needs=tuple(needs),
                after=tuple(after),
                inputs=tuple(f"/out/{n}" for n in reads),
                outputs=(Output(path=f"/out/{name}"),),
            )
        )
    return draw(st.permutations(steps))


@given(graphs())
def test_each_step_comes_after_all_that_it_waits_for(steps):
    plan = plan_of(*steps)
    position = {s.name: i for i, s in enumerate(plan.steps)}
    assert sorted(position) == sorted(s.name for s in steps)
    for s in plan.steps:
        made = [path.removeprefix("/out/") for path in s.inputs]
        for need in (*s.needs, *s.after, *made):
            assert position[need] < position[s.name]
        assert set(made) <= set(s.needs) | set(s.after)


@given(graphs())
def test_planning_again_changes_nothing(steps):
    plan = plan_of(*steps)
    assert plan_of(*plan.steps) == plan


@given(graphs())
def test_a_plan_comes_back_from_json(steps):
    plan = plan_of(*steps)
    again = plan_from(json.loads(json.dumps(plan_record(plan))))
    assert again == plan
    assert again.digest == plan.digest == plan_record(plan)["digest"]


@given(graphs(), st.data())
def test_a_circle_is_named_with_its_path(steps, data):
    """Close a circle by letting a step wait for one that already waits for it."""
    edges = {s.name: {*s.needs, *s.after, *(p.removeprefix("/out/") for p in s.inputs)} for s in steps}
    candidates = [(a, b) for a, below in edges.items() for b in below]
    if not candidates:
        return
    late, early = data.draw(st.sampled_from(candidates))
    edges[early].add(late)
    closed = [
        step(s.name, needs=(*s.needs, late) if s.name == early else s.needs, after=s.after, inputs=s.inputs,
             outputs=s.outputs)
        for s in steps
    ]  # fmt: skip
    ((key, problem),) = problems(*closed)
    assert key == "steps"
    path = problem.removeprefix("the needs go in a circle: ").split(" -> ")
    assert len(path) >= 2
    assert path[0] == path[-1]
    for one, needed in pairwise(path):
        assert needed in edges[one]


def test_a_step_that_needs_itself_is_a_circle():
    assert problems(step("a", needs=("a",))) == [("steps", "the needs go in a circle: a -> a")]


def test_a_step_may_read_what_it_leaves():
    plan = plan_of(step("a", inputs=("/x",), outputs=(Output(path="/x"),)))
    assert plan.step("a").needs == ()


def test_the_maker_of_an_input_is_needed_unless_it_is_waited_for_softly():
    make = step("make", outputs=(Output(path="/x"),))
    hard, soft = step("hard", inputs=("/x",)), step("soft", inputs=("/x",), after=("make",))
    plan = plan_of(hard, soft, make)
    assert plan.step("hard").needs == ("make",)
    assert plan.step("soft").needs == ()
    assert plan.steps[0].name == "make"


def test_faults_are_found_all_at_once():
    found = problems(
        step("a"),
        step("a"),
        step("../b"),
        step("c", needs=("nope",), after=("nada",)),
        step("d", outputs=(Output(path="/x"),)),
        step("e", outputs=(Output(path="/x"),)),
    )
    assert found == [
        ("steps", "names two steps"),
        ("steps", "is not a name"),
        ("e.outputs", "is also left by d"),
        ("c.needs", "is not a step of this plan"),
        ("c.after", "is not a step of this plan"),
    ]


@pytest.mark.parametrize(
    ("env", "secrets"), [({"HF_TOKEN": "hunter2"}, ()), ({"MINE": "hunter2"}, ("MINE",))]
)
def test_a_secret_written_into_a_document_stays_out_of_the_record_and_of_the_digest(env, secrets):
    plan = plan_of(step("a", env=env, secrets=secrets))
    assert plan.step("a").env == env
    assert "hunter2" not in json.dumps(plan_record(plan))
    assert plan_from(json.loads(json.dumps(plan_record(plan)))).digest == plan.digest


def test_ordinary_variables_reach_the_plan_that_is_read_back():
    env = {"TOKENIZERS_PARALLELISM": "false", "MAX_TOKENS": "512", "LR": "0.1"}
    plan = plan_of(step("a", env=env))
    assert plan_from(json.loads(json.dumps(plan_record(plan)))).step("a").env == env


def test_an_unknown_step_is_a_key_error():
    with pytest.raises(KeyError):
        plan_of(step("a")).step("b")


def test_the_digest_of_a_plan_does_not_see_its_folder():
    def at(run_dir: str):
        return plan_of(
            step("a", argv=("run", f"{run_dir}/x")), step("b", needs=("a",)), run_dir=Path(run_dir)
        )

    assert at("/runs/a").digest == at("/elsewhere").digest
    assert at("/runs/a").digest != plan_of(step("a", argv=("run", "/runs/a/x"))).digest


# -- the machine ---------------------------------------------------------------------------------------


def lacks(plan, backend, *, disk_gib: float = 0.0, path: str | None = None) -> list[tuple[str, str, str]]:
    faults = Faults(file="yard.yaml")
    check_machine(plan, backend, faults=faults, disk_gib=disk_gib, path=path or os.environ["PATH"])
    assert all(fault.here for fault in faults.found)
    return [(fault.key, fault.value, fault.problem) for fault in faults.found]


def test_a_machine_that_has_everything(tmp_path, open_local):
    (tmp_path / "data.csv").write_text("x")
    plan = plan_of(
        step("a", inputs=(str(tmp_path / "data.csv"),), outputs=(Output(path="/nowhere/made"),)),
        step("b", inputs=("/nowhere/made",)),
        run_dir=tmp_path / "not/yet/made",
    )
    assert lacks(plan, open_local()) == []


def test_a_missing_input_that_no_step_makes(tmp_path, open_local):
    plan = plan_of(step("a", inputs=("/nowhere/x.csv",)), run_dir=tmp_path)
    assert lacks(plan, open_local()) == [("a.inputs", '"/nowhere/x.csv"', "does not exist")]


def test_programs_are_looked_for_where_the_step_will(tmp_path, open_local):
    here = tmp_path / "bin"
    here.mkdir()
    for name, mode in (("tool", 0o755), ("plain", 0o644)):
        (here / name).write_text("#!/bin/sh\n")
        (here / name).chmod(mode)
    plan = plan_of(
        step("found", argv=("tool",), env={"PATH": str(here)}),
        step("relative", argv=("bin/tool",), cwd=str(tmp_path)),
        step("shell", argv=("no-such-program",), shell=True),
        step("image", argv=("no-such-program",), image="pytorch"),
        step("absent", argv=("no-such-program",)),
        step("unmarked", argv=("bin/plain",), cwd=str(tmp_path)),
        run_dir=tmp_path,
    )
    found = lacks(plan, open_local())
    assert [(key, problem) for key, _, problem in found] == [
        ("absent.argv", "is not an executable here"),
        ("unmarked.argv", "is not an executable here"),
    ]
    assert "no-such-program" in found[0][1]
    assert "bin/plain" in found[1][1]


def test_resources_secrets_and_disk(tmp_path, open_local, monkeypatch):
    monkeypatch.delenv("CONTRACT_TOKEN", raising=False)
    plan = plan_of(
        step("a", resources=Resources(cpus=99), secrets=("CONTRACT_TOKEN",)), run_dir=tmp_path / "run"
    )
    wanted = shutil.disk_usage(tmp_path).total / 2**30 * 2
    found = lacks(plan, open_local(slots=2), disk_gib=wanted)
    assert [key for key, _, _ in found] == ["a.resources", "a.secrets", "run_dir"]
    assert "needs 99 CPU slots where there are 2" in found[0][2]
    monkeypatch.setenv("CONTRACT_TOKEN", "x")
    assert [key for key, _, _ in lacks(plan, open_local(slots=99))] == []
