"""Specifications: values at dotted places, and what is done to those of a trial before its launch."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.faults import Faults
from modelyard.tuning.tao.settings import Retention
from modelyard.tuning.tao.specs import (
    budget_keys,
    check_names,
    flat_keys,
    merged,
    path_of,
    placed,
    value_at,
    with_own_outputs,
    with_retention,
    with_trainable_batch,
)

SPECS = {"train": {"optim": {"lr": 0.1}, "epochs": 3}, "data": [{"path": "a"}, {"path": "b"}], "x.y": 1}


def test_places():
    assert path_of("a.b[0].c_d[12]") == ["a", "b", 0, "c_d", 12]
    assert value_at(SPECS, "train.optim.lr") == 0.1
    assert value_at(SPECS, "data[1].path") == "b"
    assert value_at(SPECS, "x.y") == 1
    for nowhere in ("train.lr", "data[2].path", "data.path", "train.optim.lr.more", "[0]", ""):
        assert value_at(SPECS, nowhere) is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.b.c", {"a": {"b": {"c": 7}}}),
        ("a[1]", {"a": [None, 7]}),
        ("a[1].b", {"a": [{}, {"b": 7}]}),
        ("a[0][1]", {"a": [[None, 7]]}),
    ],
)
def test_places_are_made_on_the_way(name, expected):
    specs = {}
    placed(specs, name, 7)
    assert specs == expected
    assert value_at(specs, name) == 7


def test_null_on_the_way_is_no_value():
    specs = {"a": None, "b": [None]}
    placed(specs, "a.c", 1)
    placed(specs, "b[0].c", 2)
    assert specs == {"a": {"c": 1}, "b": [{"c": 2}]}


@pytest.mark.parametrize(
    "name", ["train.epochs.more", "data.path", "train[0]", "data[99999].path", "", "[0].a"]
)
def test_a_way_that_leads_nowhere_is_told(name):
    with pytest.raises(ValueError, match=r"holds no keys|no list|no name of a place"):
        placed(copy.deepcopy(SPECS), name, 1)


def test_nested_overrides_are_merged_and_dotted_ones_are_places():
    before = copy.deepcopy(SPECS)
    result = merged(
        SPECS, {"train": {"optim": {"wd": 1}}, "train.optim.lr": 0.2, "data[1].path": "c", "new": {"k": []}}
    )
    assert result["train"] == {"optim": {"lr": 0.2, "wd": 1}, "epochs": 3}
    assert result["data"] == [{"path": "a"}, {"path": "c"}]
    assert result["new"] == {"k": []}
    assert before == SPECS


def test_what_is_merged_is_not_shared():
    value = {"k": [1]}
    result = merged({}, {"a": value, "b.c": value})
    value["k"].append(2)
    assert result == {"a": {"k": [1]}, "b": {"c": {"k": [1]}}}


VALUES = st.recursive(
    st.integers() | st.text(max_size=3) | st.none(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from("abc"), VALUES, max_size=3))
def test_every_flat_name_finds_its_value(specs):
    for name in flat_keys(specs):
        again = copy.deepcopy(specs)
        placed(again, name, value_at(specs, name))
        assert again == specs


def names(given_names, *, only_known=False):
    faults = Faults(file="run")
    notes = check_names(
        given_names, ["train.optim.lr", "train.num_epochs"], kind="spec_overrides", faults=faults,
        only_known=only_known,
    )  # fmt: skip
    return [str(fault) for fault in faults.found], notes


def test_near_misses_are_faults_and_new_names_are_noted():
    assert names(["train.optim.lr"]) == ([], [])
    (fault,), notes = names(["train.optim.Ir"])
    assert "did you mean train.optim.lr?" in fault
    assert notes == []
    faults, (note,) = names(["custom.fps"])
    assert faults == []
    assert "custom.fps" in note
    (fault,), _ = names(["custom.fps"], only_known=True)
    assert "schema" in fault


def test_epochs_are_found_wherever_trainings_have_them():
    specs = {
        "train": {"num_epochs": 1, "optim": {"epochs": 2}, "x": {"max_epochs": 9}}, "epochs": 3,
        "model": {"epochs": 4}, "runner": {"max_epochs": 5}, "train_config": {"n_epochs": 6},
    }  # fmt: skip
    assert budget_keys(specs) == [
        "train.num_epochs", "train.optim.epochs", "epochs", "runner.max_epochs", "train_config.n_epochs",
    ]  # fmt: skip


def test_local_outputs_become_the_trials_own():
    specs = {
        "results_dir": "/out/", "a": {"output_dir": "s3://bucket/x", "save_dir": "here", "results_dir": ""},
        "b": {"results_dir": "${results_dir}/b", "output_dir": "${b.results_dir}/c", "dir": "/x"},
        "declared": {"output_dir": "/given"},
    }  # fmt: skip
    own, moved = with_own_outputs(specs, 7, {"declared.output_dir", "results_dir"})
    assert moved == ["a.save_dir", "b.output_dir"]
    assert own["a"]["save_dir"] == "here/rec_7"
    assert own["results_dir"] == "/out/"
    assert own["b"]["results_dir"] == "${results_dir}/b"
    own, moved = with_own_outputs(specs, 7, ())
    assert own["results_dir"] == "/out/rec_7"
    assert own["b"]["results_dir"] == "${results_dir}/b/rec_7"


def cap(batch, samples, **rest):
    specs = {"train": {"batch_size": batch, **rest}}
    own, change, refusal = with_trainable_batch(specs, sample_count=samples, platform={})
    return own["train"]["batch_size"], change, refusal


def test_a_batch_leaves_at_least_one_step():
    assert cap(8, None) == (8, None, "")
    assert cap(8, 8) == (8, None, "")
    size, change, _ = cap(64, 50)
    assert size == 50
    assert change.record() == {
        "type": "effective_batch_cap", "key": "train.batch_size", "from": 64, "to": 50, "sample_count": 50,
        "dp_shard_size": 1, "reason": "train.batch_size=64 exceeds samples per rank 50 (sample_count=50, "
        "dp_shard_size=1)",
    }  # fmt: skip
    assert cap(64, 50, num_gpus=4)[0] == 12
    assert cap(64, 50, mini_batch=8)[0] == 48
    assert cap(64, 50, mini_batch=60)[0] == 50
    size, change, refusal = cap(2, 3, num_gpus=4)
    assert (size, change) == (2, None)
    assert refusal.startswith("invalid_configuration: train.batch_size=2 exceeds")


def test_gpus_of_the_platform_count_before_those_of_the_specification():
    specs = {"batch_size": 64, "num_gpus": 2}
    assert with_trainable_batch(specs, sample_count=64, platform={"gpu_count": 8})[0]["batch_size"] == 8


@given(st.integers(1, 200), st.integers(1, 200), st.integers(1, 8), st.integers(1, 9))
def test_a_capped_batch_always_trains(batch, samples, shards, mini):
    specs = {"batch_size": batch, "num_gpus": shards, "mini_batch": mini}
    own, change, refusal = with_trainable_batch(specs, sample_count=samples, platform={})
    if refusal:
        assert samples < shards
    else:
        assert own["batch_size"] * shards <= samples or own["batch_size"] == batch <= samples / shards
        assert (change is None) == (own["batch_size"] == batch)


def kept(train, **retention):
    specs = {"train": train}
    own = with_retention(specs, Retention(**retention), metric="val_acc", direction="maximize")
    assert specs == {"train": train}
    return own["train"]


def test_checkpoints_are_bounded_as_the_strategy_says():
    assert kept({"num_epochs": 9}) == {
        "num_epochs": 9,
        "checkpoint_interval_unit": "epoch",
        "checkpoint_interval": 9,
    }
    assert kept({"num_epochs": 9}, delete_intermediate=False) == {"num_epochs": 9}
    assert kept({"num_epochs": True}) == {"num_epochs": True}
    best = {"enable_topk": True, "replace_periodic": True, "save_top_k": 1}
    own = kept({"num_epochs": 9, "checkpointer": {"monitor": "kpi", "save_top_k": 5}})
    assert own["checkpointer"] == {"monitor": "kpi", "mode": "max", **best}
    assert kept({}, strategy="best")["checkpointer"] == {"monitor": "val_acc", "mode": "max", **best}
    own = kept({"num_epochs": 2, "checkpointer": {}}, strategy="terminal")
    assert own["checkpoint_interval"] == 2
    assert with_retention({"train": 1}, Retention(), metric="m", direction="minimize") == {"train": 1}
