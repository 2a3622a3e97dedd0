from __future__ import annotations

import json

import numpy as np
import pytest

from modelyard.core.errors import DocumentError, PolicyError
from modelyard.ensemble.measuring.backtest import backtest_policy
from modelyard.ensemble.policies.policy import (
    Excluded,
    Method,
    Policy,
    from_json,
    read_policy,
    to_json,
    write_policy,
)

PUBLIC_FIELDS = {
    "skill",
    "created_at",
    "beta",
    "dirty_interval",
    "amplitude_window",
    "mutant_epsilon",
    "online_models",
    "offline_models",
    "scores",
    "online_weights",
    "offline_weights",
    "best_online_model",
    "best_offline_model",
}
OWN_FIELDS = {
    "schema",
    "mutant_epsilon_source",
    "leads",
    "excluded",
    "score_detail",
    "meta_weights",
    "best_online_tie_set",
    "method",
    "backtest",
    "digests",
}


@pytest.fixture
def policy(world, learn):
    return learn(world)


def test_the_file_is_a_superset_of_the_public_one(policy):
    data = to_json(policy)
    assert set(data) >= PUBLIC_FIELDS | OWN_FIELDS
    assert (data["skill"], data["schema"]) == ("ELPA", "elpa.policy/2")
    assert set(data["method"]) >= {"name", "delay", "sleeping"}
    assert set(data["score_detail"]["naive"]) >= {"n", "n_eff", "mean", "ci95"}


def test_what_is_written_is_read(policy, tmp_path):
    write_policy(tmp_path / "p.json", policy)
    assert read_policy(tmp_path / "p.json") == policy


def test_replaying_the_file_gives_the_same_bits(policy, world, tmp_path):
    write_policy(tmp_path / "p.json", policy)
    predictions, truth = world.tables()
    direct = backtest_policy(policy, predictions, truth).rows["policy"].to_numpy()
    replayed = backtest_policy(read_policy(tmp_path / "p.json"), predictions, truth).rows["policy"].to_numpy()
    assert direct.tobytes() == replayed.tobytes()
    assert len(np.unique(direct)) > 100


def test_every_fault_of_a_policy_file_is_named(policy):
    data = json.loads(json.dumps(to_json(policy)))
    data["beta"] = 7
    data["dirty_interval"] = "3"
    data["method"]["name"] = "magic"
    data["best"] = "x"
    data["series"]["s"]["limits"]["level"] = -1
    del data["online_models"], data["created_at"]
    data["excluded"] = [{"name": "a"}]
    with pytest.raises(DocumentError) as caught:
        from_json(data, file="p.json")
    keys = {fault.key for fault in caught.value.faults}
    assert keys >= {
        "beta",
        "dirty_interval",
        "method.name",
        "best",
        "series.s.limits.level",
        "created_at",
        "excluded[0].reason",
    }


def test_another_schema_is_refused(policy):
    with pytest.raises(DocumentError, match=r"elpa\.policy/2"):
        from_json(to_json(policy) | {"schema": "elpa.policy/9"}, file="p.json")


def test_a_missing_or_broken_file_is_a_policy_error(tmp_path):
    with pytest.raises(PolicyError, match="cannot read the policy"):
        read_policy(tmp_path / "absent.json")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(PolicyError, match="integrate again"):
        read_policy(tmp_path / "broken.json")


def test_a_policy_of_errors_alone_cannot_forecast(tmp_path):
    bare = Policy(
        created_at="2024-01-01T00:00:00+00:00",
        beta=0.7,
        dirty_interval=3,
        amplitude_window=6,
        mutant_epsilon=None,
        mutant_epsilon_source={"kind": "none", "alpha": None, "n": None},
        online_models=("a",),
        offline_models=(),
        scores={"a": 1.0},
        online_weights={"a": 1.0},
        offline_weights={},
        best_online_model="a",
        best_offline_model=None,
        method=Method(name="inverse_score", requested="auto", reason="no forecasts"),
        excluded=(Excluded(name="b", reason="non-finite errors", rows=3),),
    )
    write_policy(tmp_path / "p.json", bare)
    assert read_policy(tmp_path / "p.json") == bare
    with pytest.raises(PolicyError, match="errors alone"):
        bare.engine("s")


def edited(policy, **changes):
    return from_json(json.loads(json.dumps(to_json(policy) | changes)), file="p.json")


def test_an_epsilon_changed_in_the_file_changes_the_limits_and_the_forecasts(policy, world):
    changed = edited(policy, mutant_epsilon=0.001)
    assert changed.series["s"].limits.jump == 0.001
    assert changed.series["s"].limits.jump_kind == "given"
    assert changed.mutant_epsilon_source == {"kind": "given", "alpha": None, "n": None}
    rows = [backtest_policy(p, *world.tables()).rows["policy"] for p in (policy, changed)]
    assert (rows[0] - rows[1]).abs().max() > 1e-6
    with pytest.raises(PolicyError, match="mutant_epsilon = null"):
        edited(policy, mutant_epsilon=None)


@pytest.mark.parametrize(
    "change",
    [
        {"online_models": ["half", "naive", "noisy"]},
        {"offline_models": ["high", "low"]},
        {"period": 12},
        {"horizon": 2},
        {"step_s": 60.0},
        {"validation_until": "2024-01-06T00:00:00+00:00"},
        {"digests": {}},
    ],
    ids=str,
)
def test_what_the_state_hangs_on_cannot_be_edited(policy, change):
    assert edited(policy) == policy
    with pytest.raises(PolicyError, match="integrate again"):
        edited(policy, **change)


@pytest.mark.parametrize("value", ["soon", "NaT", 7])
def test_a_bad_time_is_a_fault(policy, value):
    with pytest.raises(DocumentError) as caught:
        edited(policy, validation_until=value)
    assert {fault.key for fault in caught.value.faults} == {"validation_until"}
