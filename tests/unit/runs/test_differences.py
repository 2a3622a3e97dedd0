"""Two runs are compared by what their plans say and what the journal tells of them."""

from __future__ import annotations

import pytest

from modelyard.jobs.step import Output
from modelyard.runs.differences import differences
from modelyard.runs.keeper import ArtifactKeeper
from modelyard.runs.view import find_run


@pytest.fixture
def compared(make_run, carry_out, yard):
    """Carries out two runs and gives their differences as (step, what, where)."""

    def compare(first, second):
        for name, steps in (("one", first), ("two", second)):
            carry_out(make_run(*steps, run=name), observers=(ArtifactKeeper(yard, name),))
        found = differences(yard, find_run(yard, "one"), find_run(yard, "two"))
        return {(each.step, each.what, each.where): (each.before, each.after) for each in found}

    return compare


def test_the_same_run_twice_has_no_difference(compared, make_step):
    assert (
        compared(
            [make_step("a"), make_step("b", needs=("a",))], [make_step("a"), make_step("b", needs=("a",))]
        )
        == {}
    )


def test_commands_ends_and_steps_that_come_or_go(compared, make_step):
    found = compared(
        [make_step("a", "exit 0"), make_step("gone")], [make_step("a", "exit 3"), make_step("new")]
    )
    assert found["a", "status", ""] == ("SUCCEEDED", "FAILED")
    assert found["gone", "step", ""] == ("there", None) and found["new", "step", ""] == (None, "there")
    assert "exit 0" in str(found["a", "declared", "argv"][0]) and "exit 3" in str(
        found["a", "declared", "argv"][1]
    )
    assert len(found) == 4


def test_files_that_were_read_and_left(compared, make_step, tmp_path):
    one, two = tmp_path / "data-1", tmp_path / "data-2"
    one.write_text("1")
    two.write_text("2")

    def step(run, data, alike):
        folder = tmp_path / run
        script = f"cat {data} > {folder}/out; echo {alike} > {folder}/alike"
        outputs = (Output(path=f"{folder}/out"), Output(path=f"{folder}/alike"))
        return make_step("a", script, inputs=(str(data),), outputs=outputs)

    found = compared([step("one", one, "same")], [step("two", two, "same")])
    assert {(what, where) for _, what, where in found} == {
        ("declared", "argv"), ("declared", "inputs"), ("input", str(one)), ("input", str(two)),
        ("output", "{run_dir}/out"),
    }  # fmt: skip
    before, after = found["a", "output", "{run_dir}/out"]
    assert before != after and before.startswith("sha256:")
    assert found["a", "input", str(two)][0] is None
