from __future__ import annotations

import json
from datetime import UTC, datetime

import pandas as pd
import pytest

from modelyard.core.digests import digest_path
from modelyard.ensemble.__main__ import main
from modelyard.ensemble.policies.policy import read_policy


@pytest.fixture
def spec(world, tmp_path):
    predictions, truth = world.tables()
    predictions.to_parquet(tmp_path / "predictions.parquet", index=False)
    truth.to_parquet(tmp_path / "truth.parquet", index=False)
    path = tmp_path / "spec.json"
    value = {
        "predictions": str(tmp_path / "predictions.parquet"),
        "truth": str(tmp_path / "truth.parquet"),
        "groups": world.groups,
        "excluded": [{"name": "gone", "reason": "training failed", "rows": 0}],
        "settings": {
            "method": "auto",
            "beta": 0.98,
            "dirty_interval": 2,
            "amplitude_window": 8,
            "mutant_epsilon": None,
            "horizon": 3,
            "period": 24,
            "step_s": 3600,
            "validation_until": "2024-01-07T16:00",
            "seed": 42,
        },
        "policy": str(tmp_path / "policy.json"),
        "backtest": str(tmp_path / "backtest"),
    }

    def write(**changes):
        path.write_text(json.dumps(value | changes))
        return str(path)

    return write


def clock():
    return datetime(2024, 5, 1, tzinfo=UTC)


def test_integrate_then_backtest(spec, tmp_path):
    assert main(["integrate", spec()], clock=clock) == 0
    first = read_policy(tmp_path / "policy.json")
    assert first.created_at == "2024-05-01T00:00:00.000000+00:00"
    assert first.digests["inputs"]["truth"] == digest_path(tmp_path / "truth.parquet")
    assert [e.name for e in first.excluded] == ["gone"]
    assert main(["backtest", spec()], clock=clock) == 0
    folder = tmp_path / "backtest"
    summary = json.loads((folder / "backtest.json").read_text())
    rows, weights = pd.read_parquet(folder / "backtest.parquet"), pd.read_parquet(folder / "weights.parquet")
    assert summary["schema"] == "modelyard.backtest/1"
    assert list(rows.columns[:10]) == [
        "series",
        "target_time",
        "lead",
        "y",
        "policy",
        "uniform",
        "inverse_score",
        "best_single",
        "mutant",
        "dirty",
    ]
    assert list(weights.columns) == ["series", "target_time", "lead", "expert", "weight", "level"]
    assert read_policy(tmp_path / "policy.json").backtest["regret_realised"] == summary["regret"]["realised"]


def test_the_same_spec_gives_the_same_bytes(spec, tmp_path):
    written = []
    for _ in range(2):
        assert main(["integrate", spec()], clock=clock) == 0
        assert main(["backtest", spec()], clock=clock) == 0
        written.append([(tmp_path / name).read_bytes() for name in ("policy.json", "backtest/backtest.json")])
    assert written[0] == written[1]


def test_what_is_wrong_is_printed_and_ends_with_status_one(spec, tmp_path, capsys):
    assert main(["integrate", spec(groups={"naive": "sometimes"}, settings={"beta": 3})]) == 1
    said = capsys.readouterr().err
    for key in ("groups.naive", "settings.beta", "settings.horizon", "settings.validation_until"):
        assert key in said
    assert not (tmp_path / "policy.json").exists()


def test_a_backtest_without_a_policy_ends_with_status_one(spec, tmp_path, capsys):
    assert main(["backtest", spec()]) == 1
    assert "cannot read the policy" in capsys.readouterr().err
    assert not (tmp_path / "backtest").exists()


def test_a_spec_that_is_not_there_ends_with_status_one(tmp_path, capsys):
    assert main(["integrate", str(tmp_path / "none.json")]) == 1
    assert "none.json" in capsys.readouterr().err
