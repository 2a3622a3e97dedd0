"""The state machine of governed runs: only known moves, on record, and replay gives the state."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard.core.errors import GovernanceError
from modelyard.core.journal import Draft, Journal
from modelyard.runs.states import (
    KIND,
    MOVES,
    NEXT_ACTION,
    START,
    check_move,
    move,
    replay,
    standing,
    standings,
)


def walked(journal: Journal, *targets: str, run: str = "r") -> None:
    for target in targets:
        move(journal, run, target, actor="somebody", evidence=["sha256:0"])


def test_a_run_that_was_never_requested_stands_nowhere(tmp_path: Path) -> None:
    now = standing(Journal(tmp_path), "r")
    assert (now.state, now.iteration, now.moves) == ("", 0, ())
    assert now.next_action == "start the run"


def test_each_move_is_an_entry_with_its_actor_its_reason_and_its_evidence(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    move(journal, "r", START, actor="ann")
    now = move(journal, "r", "routed", actor="ann", reason="they go together", evidence=["sha256:1"])
    entries = [entry for entry in journal.read() if entry.kind == KIND]
    assert entries[-1].data == {
        "from": "requested", "to": "routed", "actor": "ann", "reason": "they go together",
        "evidence": ["sha256:1"],
    }  # fmt: skip
    assert now == standing(Journal(tmp_path), "r")


@pytest.mark.parametrize("source", list(MOVES))
def test_the_table_alone_says_which_moves_there_are(source: str) -> None:
    for target in NEXT_ACTION:
        if target in MOVES[source]:
            check_move("r", source, target)
            continue
        with pytest.raises(GovernanceError, match=f"to {target}"):
            check_move("r", source, target)


def test_an_illegal_move_writes_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    walked(journal, START)
    before = journal.log.read_bytes()
    with pytest.raises(
        GovernanceError, match="from requested to prod; from there it may become route_rejected"
    ):
        move(journal, "r", "prod", actor="mallory")
    assert journal.log.read_bytes() == before


def test_a_repaired_run_is_in_its_next_iteration(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    live = ("routed", "planned", "submit_intent", "submitted", "running", "artifacts_ready", "paired_eval")
    walked(journal, START, *live, "fail", "repair", START, "routed")
    now = standing(journal, "r")
    assert (now.state, now.iteration) == ("routed", 2)
    assert not now.has_been("fail")
    assert [each.iteration for each in now.moves if each.target == "paired_eval"] == [1]


def test_runs_do_not_see_one_another(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    walked(journal, START, "routed", run="a")
    walked(journal, START, run="b")
    assert [standing(journal, run).state for run in "ab"] == ["routed", "requested"]


@pytest.mark.parametrize(
    ("source", "target", "told"),
    [("routed", "planned", "where the run stood at requested"), ("requested", "prod", "cannot go")],
)
def test_a_journal_with_a_move_that_nobody_may_make_is_refused(
    tmp_path: Path, source: str, target: str, told: str
) -> None:
    journal = Journal(tmp_path)
    walked(journal, START)
    data = {"from": source, "to": target, "actor": "mallory", "reason": "", "evidence": []}
    journal.append([Draft(kind=KIND, run="r", data=data)])
    with pytest.raises(GovernanceError, match=told):
        standing(journal, "r")


def test_every_state_says_what_is_next_and_every_target_is_a_state() -> None:
    targets = {target for allowed in MOVES.values() for target in allowed}
    assert targets <= set(MOVES)
    assert set(NEXT_ACTION) == set(MOVES) - {""}


@pytest.mark.parametrize("needed", ["artifacts_ready", "paired_eval", "pass", "approval"])
def test_there_is_no_way_to_stage_or_prod_around_what_proves_it(needed: str) -> None:
    assert {"stage", "prod"} <= reached(without="")
    assert not {"stage", "prod"} & reached(without=needed)


def reached(*, without: str) -> set[str]:
    """The states that moves lead to from the beginning, if one of them could not be entered."""
    found, new = {""}, {""}
    while new:
        new = {target for state in new for target in MOVES[state]} - found - {without}
        found |= new
    return found


def test_several_runs_are_read_at_once_each_as_alone(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    walked(journal, START, "routed", run="a")
    walked(journal, START, run="b")
    walked(journal, "planned", run="a")
    found = standings(journal, ["b", "a", "c"])
    assert list(found) == ["b", "a", "c"]
    assert found == {run: standing(journal, run) for run in "abc"}


def test_a_standing_goes_on_from_where_the_journal_was_read(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    walked(journal, START)
    before = standing(journal, "r")
    walked(journal, START, run="other")
    walked(journal, "routed", "planned")
    assert replay(before, journal.read(start=before.read_to)) == standing(journal, "r")


@pytest.mark.parametrize(
    ("told", "said"), [({"actor": "ann"}, "without evidence"), ({"actor": ""}, "without an actor")]
)
def test_no_verdict_without_evidence_and_no_move_without_an_actor(
    tmp_path: Path, told: dict[str, str], said: str
) -> None:
    journal = Journal(tmp_path)
    walked(journal, "requested", "routed", "planned", "submit_intent", "submitted", "running")
    with pytest.raises(GovernanceError, match=said):
        move(journal, "r", "artifacts_ready", actor=told["actor"])
    assert standing(journal, "r").state == "running"


def test_an_entry_that_is_no_move_is_told_by_its_number(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append([Draft(kind=KIND, run="r", data={"to": "requested"})])
    with pytest.raises(GovernanceError, match=r"r: entry \d+ of the journal is no move of a run"):
        standing(journal, "r")
