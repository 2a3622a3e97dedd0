"""The forecast command: tables, streams, and streams that are killed."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from modelyard.cli.forecast import command
from modelyard.ensemble.learning.integrate import integrate_tables
from modelyard.ensemble.policies.policy import read_policy, write_policy
from modelyard.ensemble.policies.settings import Settings
from modelyard.results.tables import read_predictions, write_predictions, write_truth
from modelyard.testing.kills import Kill, Trial, random_kills, survive

START = pd.Timestamp("2024-01-01", tz="UTC")
HOUR = pd.Timedelta(hours=1)
STEPS, CUT, LEADS = 130, 90, 2
NAMES = {"naive": "online", "drift": "online", "shape": "offline"}


def forecasts(y: np.ndarray) -> np.ndarray:
    """What three experts say of every target and lead, `(T, LEADS, 3)`."""
    t = np.arange(STEPS)
    out = np.full((STEPS, LEADS, 3), np.nan)
    for lead in range(1, LEADS + 1):
        out[lead:, lead - 1, 0] = y[:-lead]
        out[lead:, lead - 1, 1] = 0.8 * y[:-lead] + 4
        out[:, lead - 1, 2] = 15 + 5 * np.sin(2 * np.pi * t / 24)
    return out


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tables, a policy learnt on the first rows, and the rest as lines."""
    folder = tmp_path_factory.mktemp("forecast")
    rng = np.random.default_rng(0)
    y = 20 + 6 * np.sin(2 * np.pi * np.arange(STEPS) / 24) + rng.normal(0, 1, STEPS)
    y[[40, 100]] += 25
    said, times = forecasts(y), START + HOUR * np.arange(STEPS)
    parts = [
        pd.DataFrame(
            {"model": name, "series": "s", "origin": times - HOUR * lead, "lead": lead, "target_time": times}
            | {"issued_at": times - HOUR * lead, "y_pred": said[:, lead - 1, k]}
        ).dropna()
        for k, name in enumerate(NAMES)
        for lead in range(1, LEADS + 1)
    ]
    predictions = pd.concat(parts, ignore_index=True)
    truth = pd.DataFrame({"series": "s", "target_time": times, "y": y})
    write_predictions(folder / "tables" / "predictions.parquet", predictions)
    write_truth(folder / "tables" / "truth.parquet", truth)
    settings = Settings(
        horizon=LEADS, period=24, step_s=3600.0, validation_until=START + HOUR * CUT, amplitude_window=8
    )
    policy = integrate_tables(
        predictions, truth, settings=settings, groups=NAMES, excluded=(), created_at="2024-01-01T00:00:00Z"
    )
    write_policy(folder / "policy.json", policy)
    lines = []
    for origin in range(CUT - 1, STEPS):
        told = {
            name: [
                float(said[origin + h, h - 1, k]) if origin + h < STEPS else None for h in range(1, LEADS + 1)
            ]
            for k, name in enumerate(NAMES)
        }
        line = {"series": "s", "origin": times[origin].isoformat(), "y": y[origin], "forecasts": told}
        lines.append(json.dumps(line))
    (folder / "lines.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def run(*arguments: object, stdin: bytes = b"") -> str:
    result = CliRunner().invoke(command, [str(a) for a in arguments], input=stdin, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def expected(place: Path) -> str:
    """What a stream answers that nobody disturbs."""
    return run(place / "policy.json", stdin=(place / "lines.jsonl").read_bytes())


def test_a_stream_and_the_tables_give_the_same_forecasts(place: Path, expected: str) -> None:
    out = place / "mixed.parquet"
    run(place / "policy.json", "--predictions", place / "tables", "--output", out)
    table = pd.read_parquet(out).set_index(["origin", "lead"])
    assert read_predictions(out)["y_pred"].notna().all(), "a policy can be a member of another pool"
    answers = [json.loads(line) for line in expected.splitlines()]
    assert len(answers) == STEPS - CUT + 1
    assert answers[-1]["forecast"] == [None, None], "nobody forecasts beyond the end"
    rows = 0
    for answer in answers:
        for lead, value in enumerate(answer["forecast"], start=1):
            if value is not None:
                row = table.loc[(pd.Timestamp(answer["origin"]), lead)]
                assert row["y_pred"] == value
                rows += 1
                if answer["lower"][lead - 1] is not None:
                    assert (row["lower"], row["upper"]) == (
                        answer["lower"][lead - 1],
                        answer["upper"][lead - 1],
                    )
    assert rows == len(table)


def test_the_tables_of_each_model_may_stand_in_files_of_their_own(place: Path, tmp_path: Path) -> None:
    table = read_predictions(place / "tables" / "predictions.parquet")
    for name, own in table.groupby("model"):
        own.drop(columns="model").to_csv(tmp_path / f"{name}.csv", index=False)
    (tmp_path / "truth.parquet").write_bytes((place / "tables" / "truth.parquet").read_bytes())
    run(place / "policy.json", "--predictions", place / "tables", "--output", tmp_path / "a.out")
    run(place / "policy.json", "--predictions", tmp_path, "--output", tmp_path / "b.out")
    assert pd.read_parquet(tmp_path / "a.out").equals(pd.read_parquet(tmp_path / "b.out"))


@pytest.mark.parametrize("every", [1, 7])
def test_a_stream_that_stops_goes_on_from_its_state(
    place: Path, tmp_path: Path, expected: str, every: int
) -> None:
    lines = (place / "lines.jsonl").read_bytes().splitlines(keepends=True)
    options = (place / "policy.json", "--output", tmp_path / "out", "--state", tmp_path / "state")
    run(*options, "--save-every", every, stdin=b"".join(lines[:17]))
    run(
        *options, "--save-every", every, stdin=b"".join(lines)
    )  # from the start: what was taken is passed over
    assert (tmp_path / "out").read_text() == expected
    run(*options, stdin=lines[-1])
    assert (tmp_path / "out").read_text() == expected


def test_on_standard_output_the_newest_answer_comes_again(place: Path, tmp_path: Path, expected: str) -> None:
    lines = (place / "lines.jsonl").read_bytes().splitlines(keepends=True)
    options = (place / "policy.json", "--state", tmp_path / "state")
    first = run(*options, stdin=b"".join(lines[:5]))
    again = run(*options, stdin=b"".join(lines[3:9]))
    assert first == "".join(expected.splitlines(keepends=True)[:5])
    assert again == "".join(expected.splitlines(keepends=True)[4:9])


def test_skipped_origins_are_steps_without_a_value(place: Path) -> None:
    lines = (place / "lines.jsonl").read_bytes().splitlines(keepends=True)
    empty = [
        (json.dumps(json.loads(line) | {"y": None, "forecasts": {}}) + "\n").encode() for line in lines[5:8]
    ]
    skipped = run(place / "policy.json", stdin=b"".join(lines[:5] + lines[8:12])).splitlines()
    told = run(place / "policy.json", stdin=b"".join(lines[:5] + empty + lines[8:12])).splitlines()
    assert skipped[5:] == told[8:]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"nonsense", "line 1 is not JSON"),
        (b"[1]", "line 1 is list"),
        (b'{"series": "t", "origin": "2024-01-05T00:00Z"}', "cannot forecast series 't'"),
        (b'{"series": "s", "origin": "soon"}', "is not a time"),
        (b'{"series": "s", "origin": "2024-01-05T00:30Z"}', "whole number of steps"),
        (b'{"series": "s", "origin": "2054-01-05T00:00Z"}', "integrate again"),
        (b'{"series": "s", "origin": "2024-01-05T00:00Z", "forecasts": []}', "by model"),
        (b'{"series": "s", "origin": "2024-01-05T00:00Z", "forecasts": {"naive": ["x"]}}', "is not a number"),
    ],
)
def test_a_bad_line_is_told(place: Path, line: bytes, told: str) -> None:
    result = CliRunner().invoke(command, [str(place / "policy.json")], input=line)
    assert told in str(result.exception)


def test_a_state_of_another_policy_is_refused(place: Path, tmp_path: Path) -> None:
    lines = (place / "lines.jsonl").read_bytes().splitlines(keepends=True)
    run(place / "policy.json", "--state", tmp_path / "state", stdin=lines[0])
    other = json.loads((place / "policy.json").read_bytes()) | {"beta": 0.9}
    (tmp_path / "other.json").write_text(json.dumps(other))
    assert read_policy(tmp_path / "other.json").beta == 0.9
    asked = [str(tmp_path / "other.json"), "--state", str(tmp_path / "state")]
    assert "begin with a new state file" in str(CliRunner().invoke(command, asked, input=lines[1]).exception)


def test_tables_need_a_place_for_the_forecasts(place: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(command, [str(place / "policy.json"), "--predictions", str(place / "tables")])
    assert "--output" in result.output
    asked = [str(place / "policy.json"), "--predictions", str(tmp_path), "--output", str(tmp_path / "x")]
    assert "truth" in str(CliRunner().invoke(command, asked).exception)


@pytest.mark.kill
@pytest.mark.slow
@pytest.mark.parametrize(
    "kill",
    [
        *(Kill(failpoint=f"forecast.after_{what}:{n}") for what in ("answer", "state") for n in (1, 8)),
        *random_kills(2, within_s=3.0, seed=9),
    ],
    ids=str,
)
def test_a_killed_stream_has_written_the_same_bytes(
    place: Path, tmp_path: Path, expected: str, kill: Kill
) -> None:
    argv = [sys.executable, "-m", "modelyard.cli.main", "forecast", str(place / "policy.json")]
    argv += ["--output", "out", "--state", "state.json", "--save-every", "3"]
    trial = Trial(
        argv=["sh", "-c", f"exec {shlex.join(argv)} < {shlex.quote(str(place / 'lines.jsonl'))}"],
        cwd=tmp_path,
        environment=dict(os.environ),
        json_files=[tmp_path / "state.json"],
    )
    survival = survive(trial, kill)
    assert survival.done, survival.stderr
    assert not survival.broken_json
    assert not survival.left_alive
    assert survival.killed == 1 or not kill.failpoint
    assert (tmp_path / "out").read_text() == expected
