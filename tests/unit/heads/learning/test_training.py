"""Heads learn what they are for from cached states, and a killed training ends with the same bits."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from modelyard.core.errors import HeadsError
from modelyard.heads.base import Base
from modelyard.heads.learning.accuracy import RANKS, measure, soft_losses
from modelyard.heads.learning.data import TokenSequence, corpus_of, read_corpus
from modelyard.heads.learning.examples import NOTHING, labels, shortlist, split_examples
from modelyard.heads.learning.hidden_states import cache_states
from modelyard.heads.learning.training import TrainingSettings, learning_rate, train
from modelyard.heads.model import load_heads
from modelyard.testing.tiny_language import tiny_sentences

FEW = TrainingSettings(
    heads=3, shortlist=40, epochs=3, learning_rate=5e-3, batch=256, save_every=4, measurements=2, hold_out=0.2
)


class StoppedError(Exception):
    """Stands for a kill: nothing is tidied up."""


@pytest.fixture(scope="module")
def states(tiny_base_folder, tmp_path_factory):
    base = Base.open(tiny_base_folder)
    sequences = [
        TokenSequence(tokens=np.array(ids, np.int32), learned=np.arange(len(ids)) >= 2)
        for sentence in tiny_sentences(160, seed=9)
        for ids in [[1, *base.tokenizer.encode(sentence), 2]]
    ]
    return cache_states(base, corpus_of(sequences, place="made"), tmp_path_factory.mktemp("states"))


def still():
    return 0.0


def test_heads_learn_what_follows(states, tiny_base, tmp_path):
    trained = train(states, tmp_path, replace(FEW, epochs=6, learning_rate=0.01), clock=still)
    curve = trained.facts["curve"]
    assert curve[-1]["held_out_loss"] < 0.6 * curve[0]["held_out_loss"]
    assert trained.facts["accuracy"][0][0] > 0.45, "half of what follows is certain"
    assert trained.facts["data"] == states.data
    assert 0.9 < trained.facts["shortlist_coverage"] <= 1
    told = json.loads((tmp_path / "heads.json").read_text())
    assert (told["training"], told["base"]) == (trained.facts, tiny_base.fingerprint)
    assert not (tmp_path / "training.safetensors").exists()


def test_texts_that_were_held_out_are_written_for_the_calibration_of_a_tree(states, tiny_base, tmp_path):
    train(states, tmp_path, replace(FEW, epochs=1), clock=still)
    ends, tokenizer = tiny_base.end_tokens, tiny_base.tokenizer
    sequences = read_corpus(tmp_path / "held_out.jsonl", tokenizer, ends=ends).sequences
    out = split_examples(states, 3, hold_out=0.2, seed=0).held_out_sequences
    assert len(sequences) == len(out) == 32
    for sequence, number in zip(sequences, out, strict=True):
        rows = slice(states.starts_s[number], states.starts_s[number + 1])
        assert sequence.tokens.tolist() == states.tokens_p[rows].tolist()
        assert sequence.learned.tolist() == states.learned_p[rows].tolist()


@pytest.mark.parametrize("change", [{"soft": 0.5}, {"projection": "own", "soft": 0.0}])
@pytest.mark.parametrize("stop_at", [1, 9])
def test_a_training_that_was_cut_short_ends_with_the_same_bits(states, tmp_path, stop_at, change):
    settings = replace(FEW, **change)
    train(states, tmp_path / "whole", settings, clock=still)

    def stop(standing):
        if standing.step == stop_at:
            raise StoppedError

    with pytest.raises(StoppedError):
        train(states, tmp_path / "cut", settings, clock=still, observe=stop)
    seen = []
    train(states, tmp_path / "cut", settings, clock=still, observe=seen.append)
    assert seen[0].step == stop_at // 4 * 4 + 1, "it goes on after the last checkpoint"
    for name in ("heads.safetensors", "heads.json"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_seconds_go_on_where_they_stopped(states, tmp_path):
    def stop(standing):
        if standing.step == 4:
            raise StoppedError

    ticks = itertools.count()
    with pytest.raises(StoppedError):
        train(states, tmp_path, FEW, clock=lambda: float(next(ticks)), observe=stop)
    assert train(states, tmp_path, FEW, clock=still).facts["seconds"] == 4.0


def test_passes_that_are_gathered_are_one_step(states, tiny_base, tmp_path):
    one = train(states, tmp_path / "one", replace(FEW, epochs=1), clock=still)
    four = train(states, tmp_path / "four", replace(FEW, epochs=1, batch=64, accumulate=4), clock=still)
    assert four.facts["steps"] == one.facts["steps"]
    hidden_nh = states.states_ph[:50]
    made = [load_heads(tmp_path / name, tiny_base)(hidden_nh) for name in ("one", "four")]
    torch.testing.assert_close(*made, rtol=1e-3, atol=1e-3)


def test_it_stops_when_held_out_texts_get_no_better_and_keeps_the_best(states, tmp_path):
    settings = replace(FEW, epochs=60, learning_rate=0.05, batch=512, measurements=1, patience=2)
    facts = train(states, tmp_path, settings, clock=still).facts
    losses = [each["held_out_loss"] for each in facts["curve"]]
    assert facts["stopped_early"]
    best = int(np.argmin(losses))
    assert facts["best_step"] == facts["curve"][best]["step"] < facts["steps"]
    assert len(losses) - 1 - best == 2
    assert facts["held_out_loss"] == pytest.approx(min(losses), rel=1e-5)


def test_the_same_heads_are_left_alone_and_others_refused(states, tmp_path):
    first = train(states, tmp_path, replace(FEW, epochs=1), clock=still)
    written = (tmp_path / "heads.safetensors").stat().st_mtime_ns
    again = train(states, tmp_path, replace(FEW, epochs=1), clock=still)
    assert (again.before, first.before) == (True, False)
    assert again.facts == first.facts
    assert (tmp_path / "heads.safetensors").stat().st_mtime_ns == written
    with pytest.raises(HeadsError, match="another base, other data or other settings"):
        train(states, tmp_path, replace(FEW, epochs=1, seed=3), clock=still)


def test_the_beginning_of_another_training_is_refused(states, tmp_path):
    def stop(standing):
        if standing.step == 5:
            raise StoppedError

    with pytest.raises(StoppedError):
        train(states, tmp_path, FEW, clock=still, observe=stop)
    with pytest.raises(HeadsError, match="the beginning of another training"):
        train(states, tmp_path, replace(FEW, seed=1), clock=still)


def test_a_loss_that_is_not_finite_is_told(states, tmp_path):
    with pytest.raises(HeadsError, match="use a lower learning rate"):
        train(replace(states, states_ph=states.states_ph * float("nan")), tmp_path, FEW, clock=still)


def test_the_bases_own_distribution_is_what_it_tells_at_the_later_place(states, tiny_base, tmp_path):
    """Held against the base run over a text: what it tells k + 1 places on, over the shortlist."""
    train(states, tmp_path, replace(FEW, epochs=1), clock=still)
    heads = load_heads(tmp_path, tiny_base)
    start, end = int(states.starts_s[3]), int(states.starts_s[4])
    ids_bn = torch.from_numpy(states.tokens_p[start:end].astype(np.int64))[None]
    with torch.inference_mode():
        base_ns = tiny_base.model(ids_bn).logits[0][:, heads.shortlist]
    t, expected = 4, []
    logits_kns = heads(states.states_ph[start + t : start + t + 1])
    for k in range(3):
        told_s = torch.softmax(base_ns[t + k + 1], dim=-1)
        expected.append(-(told_s * torch.log_softmax(logits_kns[k, 0], dim=-1)).sum())
    states_knh = torch.stack([states.states_ph[start + t + k + 1][None] for k in range(3)])
    there_kn = torch.ones((3, 1), dtype=torch.bool)
    losses_k = soft_losses(heads, logits_kns, states_knh, there_kn)
    torch.testing.assert_close(losses_k, torch.stack(expected), rtol=1e-4, atol=1e-4)
    assert soft_losses(heads, logits_kns, states_knh, ~there_kn).tolist() == [0, 0, 0]


def test_heads_learn_from_the_texts_tokens_alone(states, tmp_path):
    hard = train(states, tmp_path, replace(FEW, epochs=6, learning_rate=0.01, soft=0.0), clock=still)
    assert hard.facts["accuracy"][0][0] > 0.45


def test_accuracy_is_the_share_of_true_tokens_among_the_first(states, tiny_base, tmp_path):
    """Held against sorting the logits of every position; what cannot be drafted is missed."""
    train(states, tmp_path, replace(FEW, epochs=1, shortlist=12), clock=still)
    heads = load_heads(tmp_path, tiny_base)
    split = split_examples(states, 3, hold_out=0.2, seed=0)
    drafted_s = shortlist(states, split.train, 12)
    labels_kn = labels(split.held_out, drafted_s, len(states.projection_vh))
    accuracy = measure(heads, states, split.held_out, labels_kn)
    logits_kns = heads(states.states_ph[torch.from_numpy(split.held_out.positions_n)]).detach().numpy()
    for k in range(3):
        hits_r, seen = np.zeros(RANKS), 0
        for n, token in enumerate(split.held_out.tokens_kn[k]):
            if token == NOTHING:
                continue
            seen += 1
            ranked = drafted_s[np.argsort(-logits_kns[k, n], kind="stable")].tolist()
            if token in ranked[:RANKS]:
                hits_r[ranked.index(token) :] += 1
        np.testing.assert_allclose(accuracy.top_kr[k], hits_r / seen)
    assert 0 < accuracy.top_kr[0, 0] < accuracy.top_kr[0, -1] < 1


def test_the_rate_rises_in_a_line_and_falls_to_nothing():
    settings = replace(FEW, learning_rate=0.1, warm_up=0.25)
    rates = [learning_rate(settings, step, 16) for step in range(16)]
    np.testing.assert_allclose(rates[:4], [0.025, 0.05, 0.075, 0.1])
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[10] == pytest.approx(0.05)
    assert 0 < rates[-1] < 0.002
