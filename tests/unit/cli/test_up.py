"""`up`: its table, and what it prints when a run ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from modelyard.cli.up import as_table, print_look
from modelyard.ensemble.report.headline import headline
from modelyard.lifecycle.watching.causes import Cause, Look, MemberLook
from modelyard.lifecycle.watching.drift import DriftLook

Call = Callable[..., Result]
HEADS = ["name", "group", "mae", "mase", "calm", "mutant", "lead 1", "lead 2"]


def table(*rows: tuple[str, str, float | None], leads: int = 2) -> list[str]:
    """The printed lines of rows of name, kind and error."""
    entries: list[dict[str, Any]] = []
    for name, kind, mae in rows:
        entry = {"name": name, "kind": kind, "group": "online" if kind == "expert" else None, "mae": mae}
        entries.append({**entry, "rows": "all", "lead": None, "mase": mae})
        entries += [{**entry, "rows": cut, "lead": None} for cut in ("calm", "mutant")]
        entries += [{**entry, "rows": "all", "lead": lead} for lead in range(1, leads + 1)]
    return as_table(headline({"table": entries})).splitlines()


def test_the_columns_stand_in_their_order() -> None:
    lines = table(("policy", "policy", 1.0))
    columns = [column for column in lines[0].split("  ") if column]
    assert [column.strip() for column in columns] == HEADS
    assert set(lines[1]) == {"-", " "}
    assert lines[2].split() == ["policy", *["1.000"] * 6]


def test_who_is_measured_on_a_part_of_the_rows_is_told() -> None:
    rows = [
        {"name": "policy", "kind": "policy", "mae": 1.0, "served_share": 1.0},
        {"name": "short", "kind": "expert", "mae": 0.5, "served_share": 0.333},
    ]
    lines = as_table(rows).splitlines()
    assert lines[0].split()[-1] == "served"
    assert [line.split()[-1] for line in lines[2:]] == ["1.000", "0.333"]


def test_there_is_a_column_for_every_lead() -> None:
    assert "lead 10" in table(("policy", "policy", 1.0), leads=11)[0]
    assert "lead" not in table(("policy", "policy", 1.0), leads=0)[0]


def test_the_policy_stands_first_and_the_others_by_their_error() -> None:
    lines = table(
        ("a", "expert", 3.0), ("policy", "policy", 2.0), ("b", "expert", 1.0), ("c", "expert", None)
    )
    assert [line.split()[0] for line in lines[2:]] == ["policy", "b", "a", "c"]
    assert lines[-1].split() == ["c", "online"]


def test_the_best_single_expert_stands_once_and_is_marked() -> None:
    rows = [("a", "expert", 1.0), ("b", "expert", 2.0), ("a", "best_single_hindsight", 1.0)]
    lines = table(*rows)
    assert [line[: line.index("online")].strip() for line in lines[2:]] == [
        "a (best single in hindsight)",
        "b",
    ]


def test_a_best_single_that_is_no_expert_here_keeps_its_row() -> None:
    lines = table(("a", "expert", 2.0), ("best_single_hindsight", "best_single_hindsight", 1.0))
    assert lines[2].startswith("best_single_hindsight (best single in hindsight)") and len(lines) == 4


def test_a_rule_called_like_the_best_expert_is_not_marked() -> None:
    rows = [("policy", "expert", 1.0), ("policy", "best_single_hindsight", 1.0), ("policy", "policy", 2.0)]
    lines = table(*rows)
    assert ["hindsight" in line for line in lines[2:]] == [False, True]


def test_numbers_are_to_the_right_and_names_to_the_left() -> None:
    lines = table(("a", "expert", 1.0), ("a longer name", "expert", 123.456))
    assert len({len(line) for line in lines}) == 1
    assert lines[2].startswith("a  ") and lines[3].startswith("a longer name  ")
    assert lines[2].endswith("  1.000") and lines[3].endswith("123.456")
    ruled = table(("policy", "policy", 1.0), ("a", "expert", 2.0))
    assert ruled[0].index("group") == ruled[3].index("online")


def test_no_rows_are_a_table_of_nothing() -> None:
    assert len(as_table([]).splitlines()) == 2


@pytest.mark.parametrize("as_json", [False, True])
def test_a_run_that_failed_tells_which_step_and_why(
    call: Call, small_yard: Callable[..., Path], as_json: bool
) -> None:
    result = call("up", small_yard(), *(["--json"] if as_json else []))
    assert result.exit_code == 1
    if not as_json:
        assert "predict/near: exit status 1" in result.stderr
        assert result.stdout.startswith("run small-") and result.stdout.endswith(": failed\n")
        return
    record = json.loads(result.stdout)
    assert result.stderr == ""
    assert (record["outcome"], record["table"]) == ("failed", [])
    assert record["steps"]["train/near"] == {"status": "SUCCEEDED", "note": ""}
    assert record["steps"]["predict/near"]["status"] == "FAILED"
    assert Path(record["run_dir"]).name == record["run"]


def test_a_watch_takes_its_rounds_and_tells_each(call: Call, small_yard: Callable[..., Path]) -> None:
    path = small_yard(notify={"run": "sh -c 'echo $0 $1 > told' {step} {state}"})
    result = call("up", path, "--watch", "--rounds", "1", "--json")
    assert result.exit_code == 1
    (line,) = result.stdout.splitlines()
    record = json.loads(line)
    assert (record["outcome"], record["causes"], record["retrained"]) == ("failed", [], [])
    assert record["run"]["steps"]["predict/near"]["status"] == "FAILED"
    assert (path.parent / "told").read_text() == "predict/near failed\n"


def test_a_notice_that_does_not_get_through_is_told(call: Call, small_yard: Callable[..., Path]) -> None:
    result = call("up", small_yard(notify={"run": "no-such-program-here"}))
    assert result.exit_code == 1
    assert "notify: failed of predict/near was not told: cannot be started" in result.stderr


def test_a_dry_watch_tells_what_would_be_done_and_writes_nothing(
    call: Call, small_yard: Callable[..., Path]
) -> None:
    path = small_yard()
    result = call("up", path, "--watch", "--dry-run")
    assert (result.exit_code, "every step that is left" in result.stdout) == (0, True)
    assert json.loads(call("up", path, "--watch", "--dry-run", "--json").stdout) == {"finished": False}
    assert not (path.parent / ".modelyard").exists()


@pytest.mark.parametrize("flags", [("--every", "1h"), ("--rounds", "2"), ("--watch", "--every", "often")])
def test_flags_of_a_watch_that_make_no_sense(
    call: Call, small_yard: Callable[..., Path], flags: tuple[str, ...]
) -> None:
    result = call("up", small_yard(), *flags)
    assert result.exit_code == 2 and ("of --watch" in result.stderr or "not a duration" in result.stderr)


def test_a_look_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    look = Look(
        causes=(Cause(step="train/near", kind="drift", why="recent errors are larger"),),
        members=(
            MemberLook(
                member="near", trained_at="2024-01-01T00:00:00+00:00", age_s=86400.0, limit_s=7 * 86400.0,
                drift=DriftLook(newest="x", ratio=1.5, p=0.01, adjusted_p=0.02, drifted=True),
            ),
        ),
    )  # fmt: skip
    print_look(look, as_json=False)
    assert capsys.readouterr().out.splitlines() == [
        "near: 1 of 7 days old; recent errors 1.50 times those of validation, p = 0.02",
        "would run train/near again (drift): recent errors are larger",
    ]
