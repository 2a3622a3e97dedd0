"""Base and heads trained together: the base stays near its teacher, and the heads foretell no worse."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from modelyard.core.errors import HeadsError
from modelyard.heads.base import Base
from modelyard.heads.config import read_record
from modelyard.heads.learning.data import TokenSequence, corpus_of
from modelyard.heads.learning.hidden_states import cache_states
from modelyard.heads.learning.training import TrainingSettings, train
from modelyard.heads.model import load_heads
from modelyard.testing.tiny_language import tiny_sentences

pytest.importorskip("peft")
from modelyard.heads.learning.adapters import add_adapters, write_merged
from modelyard.heads.learning.joint import JointSettings, Places, train_jointly

FEW = JointSettings(rank=4, alpha=8, epochs=2, learning_rate=2e-3, batch=8, save_every=4)
HELD = (0.2, 0)


class StoppedError(Exception):
    """Stands for a kill: nothing is tidied up."""


@pytest.fixture(scope="module")
def stage_one(tiny_base_folder, tmp_path_factory):
    """States and heads on the frozen base."""
    root = tmp_path_factory.mktemp("stage_one")
    base = Base.open(tiny_base_folder)
    sequences = [
        TokenSequence(tokens=np.array(ids, np.int32), learned=np.arange(len(ids)) >= 3)
        for sentence in tiny_sentences(80, seed=9)
        for ids in [[1, *base.tokenizer.encode(sentence), 2]]
    ]
    states = cache_states(base, corpus_of(sequences, place="made"), root / "states")
    settings = TrainingSettings(heads=2, shortlist=40, epochs=4, batch=128, hold_out=0.2, learning_rate=0.01)
    train(states, root / "heads", settings, clock=lambda: 0.0)
    return states, root / "heads"


def jointly(tiny_base_folder, stage_one, folder, settings=FEW, **told):
    states, heads = stage_one
    places = Places(stage_one=heads, output=folder / "heads", new_base=folder / "base")
    base = Base.open(tiny_base_folder)
    return train_jointly(base, states, places, settings, hold_out=HELD, **told).facts


def test_the_base_stays_near_its_teacher_and_the_heads_foretell_no_worse(
    tiny_base_folder, stage_one, tmp_path
):
    facts = jointly(tiny_base_folder, stage_one, tmp_path)
    assert facts["before"]["divergence"] == 0, "adapters begin by changing nothing"
    assert 0 < facts["divergence"] < 0.05
    assert facts["same_as_teacher"] > 0.95
    for before, after in zip(facts["before"]["accuracy"], facts["accuracy"], strict=True):
        assert after[0] >= before[0]


def test_the_new_base_is_what_was_trained_and_its_heads_belong_to_it_alone(
    tiny_base_folder, stage_one, tmp_path
):
    facts = jointly(tiny_base_folder, stage_one, tmp_path)
    new, old = Base.open(tmp_path / "base"), Base.open(tiny_base_folder)
    load_heads(tmp_path / "heads", new)
    with pytest.raises(HeadsError, match=r"belong to .*/base "):
        load_heads(tmp_path / "heads", old)
    assert {name for name, _ in new.model.named_parameters()} == {n for n, _ in old.model.named_parameters()}
    # the divergence that was told, from the two checkpoints as they lie on the disk
    states = stage_one[0]
    held = np.sort(np.random.default_rng(HELD[1]).permutation(80)[:16])
    total, positions = 0.0, 0
    for i in held:
        rows = slice(states.starts_s[i], states.starts_s[i + 1])
        ids_bn = torch.from_numpy(states.tokens_p[rows].astype(np.int64))[None]
        written_n = torch.from_numpy(states.learned_p[rows][1:])
        with torch.inference_mode():
            its_nv, mine_nv = (
                torch.log_softmax(base.model(ids_bn).logits[0, :-1][written_n], dim=-1) for base in (old, new)
            )
        total += float(torch.nn.functional.kl_div(mine_nv, its_nv, log_target=True, reduction="sum"))
        positions += int(written_n.sum())
    assert facts["divergence"] == pytest.approx(total / positions, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("stop_at", [2, 9])
def test_a_joint_training_that_was_cut_short_ends_with_the_same_bits(
    tiny_base_folder, stage_one, tmp_path, stop_at
):
    jointly(tiny_base_folder, stage_one, tmp_path / "whole")

    def stop(standing):
        if standing.step == stop_at:
            raise StoppedError

    with pytest.raises(StoppedError):
        jointly(tiny_base_folder, stage_one, tmp_path / "cut", observe=stop)
    jointly(tiny_base_folder, stage_one, tmp_path / "cut")
    for name in ("heads/heads.safetensors", "base/model.safetensors"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    cut, whole = (read_record(tmp_path / name / "heads") for name in ("cut", "whole"))
    assert (cut.training, cut.config.base) == (whole.training, whole.config.base)


def test_the_beginning_of_another_training_is_refused(tiny_base_folder, stage_one, tmp_path):
    def stop(standing):
        if standing.step == 5:
            raise StoppedError

    with pytest.raises(StoppedError):
        jointly(tiny_base_folder, stage_one, tmp_path, observe=stop)
    with pytest.raises(HeadsError, match="the beginning of another training"):
        jointly(tiny_base_folder, stage_one, tmp_path, replace(FEW, seed=1))


def test_the_same_is_left_alone_and_another_refused(tiny_base_folder, stage_one, tmp_path):
    facts = jointly(tiny_base_folder, stage_one, tmp_path)
    assert jointly(tiny_base_folder, stage_one, tmp_path) == facts
    with pytest.raises(HeadsError, match="other settings; give a folder that is free"):
        jointly(tiny_base_folder, stage_one, tmp_path, replace(FEW, seed=1))
    (tmp_path / "base" / "model.safetensors").write_bytes(
        (tiny_base_folder / "model.safetensors").read_bytes()
    )
    with pytest.raises(HeadsError, match="is not the base of"):
        jointly(tiny_base_folder, stage_one, tmp_path)


def test_a_folder_of_something_else_is_not_overwritten(tiny_base_folder, stage_one, tmp_path):
    (tmp_path / "base").mkdir()
    with pytest.raises(HeadsError, match="is there already"):
        jointly(tiny_base_folder, stage_one, tmp_path)


def test_a_base_of_half_precision_learns_by_adapters_of_full_and_stays_what_it_was(
    tiny_base_folder, stage_one, tmp_path
):
    base = Base.open(tiny_base_folder, dtype="bfloat16")
    adapters = add_adapters(base.model, rank=2, alpha=4, seed=0)
    assert {each.dtype for each in adapters} == {torch.float32}
    write_merged(base, tmp_path / "same")
    again = Base.open(tmp_path / "same", dtype="bfloat16")
    plain = Base.open(tiny_base_folder, dtype="bfloat16")
    for (name, one), (_, other) in zip(
        plain.model.named_parameters(), again.model.named_parameters(), strict=True
    ):
        assert torch.equal(one, other), name
