"""Heads checked on another base: counts against loops, intervals by simulation, what is said of a merge."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from modelyard.cli.heads import train
from modelyard.cli.heads.check import command
from modelyard.core.errors import HeadsError
from modelyard.heads.base import Base
from modelyard.heads.config import HeadsConfig
from modelyard.heads.decoding.decoder import Decoder
from modelyard.heads.decoding.settings import DecodeSettings
from modelyard.heads.learning.data import TokenSequence, corpus_of, read_corpus
from modelyard.heads.measuring.checking import (
    Tally,
    answered_by,
    check_heads,
    kept_share,
    tally_corpus,
)
from modelyard.heads.model import Heads, load_heads, save_heads
from modelyard.heads.tree import Tree, chain
from modelyard.testing.tiny_language import tiny_sentences

TREE = Tree.of([(0,), (1,), (0, 0), (0, 1), (1, 0), (0, 0, 0)])


@pytest.fixture(scope="module")
def trained(tiny_base_folder, tmp_path_factory):
    """Three heads, trained a little on the tiny base's language, and texts that they have not seen."""
    base, folder = Base.open(tiny_base_folder), tmp_path_factory.mktemp("heads")
    config = HeadsConfig(
        heads=3, layers=1, hidden_size=base.hidden_size, vocab_size=base.vocab_size, projection="own",
        drafted=base.vocab_size, base=base.fingerprint, base_name="tiny",
    )  # fmt: skip
    heads = Heads(config, base.projection_vh)
    ids = [base.tokenizer.encode(sentence) for sentence in tiny_sentences(60, seed=8)]
    with torch.no_grad():
        states = [base.hidden(torch.tensor([each]), use_cache=False)[0] for each in ids]
    optimiser = torch.optim.Adam(heads.parameters(), lr=1e-2)
    for _ in range(40):
        loss = torch.zeros(())
        for k in range(3):
            x_nh = torch.cat([state[: -2 - k] for state in states])
            y_n = torch.cat([torch.tensor(each[2 + k :]) for each in ids])
            loss = loss + torch.nn.functional.cross_entropy(heads(x_nh)[k], y_n)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    save_heads(heads, folder / "heads", {"accuracy": [[0.9, 0.95, 1, 1, 1, 1], [0.8] * 6, [0.7] * 6]})
    lines = [{"prompt": "the", "completion": text[3:]} for text in tiny_sentences(24, seed=9)]
    (folder / "held.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture(scope="module")
def merged(tiny_base_folder, tmp_path_factory):
    """The tiny base with other weights in its last layer, as after a merge with something quite different."""
    base = Base.open(tiny_base_folder)
    chance = torch.Generator().manual_seed(0)
    for name, parameter in base.model.named_parameters():
        if "layers.1.mlp" in name:
            parameter.data += 0.25 * torch.randn(parameter.shape, generator=chance)
    folder = tmp_path_factory.mktemp("merged")
    base.model.save_pretrained(folder)
    base.tokenizer.save_pretrained(folder)
    return folder


def corpus(folder: Path, base: Base):
    return read_corpus(folder / "held.jsonl", base.tokenizer, ends=base.end_tokens)


def test_counts_are_those_of_a_loop_over_positions(trained, tiny_base):
    heads = load_heads(trained / "heads", tiny_base)
    words = corpus_of([*corpus(trained, tiny_base).sequences[:3], _broken(tiny_base)], place="test")
    tally = tally_corpus(tiny_base, heads, words, TREE)
    for number, sequence in enumerate(words.sequences):
        assert _by_hand(tiny_base, heads, sequence) == (
            tally.hits_skr[number].tolist(), tally.seen_sk[number].tolist(),
            tally.positions_s[number], tally.tokens_s[number], tally.passes_s[number],
            tally.own_words_s[number],
        )  # fmt: skip


def _broken(base):
    """A conversation of two answers with somebody else's words between."""
    ids = base.tokenizer.encode("the cat sees the bird and the cat sleeps.")
    learned = np.ones(len(ids), np.bool_)
    learned[[0, 1, len(ids) // 2]] = False
    return TokenSequence(tokens=np.array(ids, np.int32), learned=learned)


def _by_hand(base, heads, sequence):
    """One position at a time; a pass goes on from where the one before it ended."""
    tokens, learned = sequence.tokens.tolist(), sequence.learned.tolist()
    hidden_nh = base.hidden(torch.tensor([tokens]), use_cache=False)[0]
    hits, seen, positions, made, passes, own, pass_at = np.zeros((3, 5)), [0, 0, 0], 0, 0, 0, 0, 0
    for t in range(len(tokens) - 2):
        if not (learned[t + 1] and learned[t + 2]):
            continue
        positions += 1
        made += 1
        own += int(base.logits(hidden_nh[t]).argmax()) == tokens[t + 1]
        way = []
        for k in range(3):
            aim = t + 2 + k
            if aim >= len(tokens) or not all(learned[t + 1 : aim + 1]):
                break
            order = heads.drafts(hidden_nh[t][None], 96)[k, 0].tolist()
            rank = order.index(tokens[aim])
            seen[k] += 1
            hits[k, rank:] += 1
            way.append(rank)
        while way and tuple(way) not in TREE.paths:
            way.pop()
        if t >= pass_at:
            passes += 1
            pass_at = t + len(way) + 1
    return hits.tolist(), seen, positions, made, passes, own


def test_heads_do_better_on_their_own_base_than_on_a_merge(trained, merged, tiny_base):
    own, before = check_heads(tiny_base, trained / "heads", corpus(trained, tiny_base))
    other_base = Base.open(merged)
    other, after = check_heads(other_base, trained / "heads", corpus(trained, other_base))
    assert own.own_base and not other.own_base
    assert own.tokens_per_pass.low > other.tokens_per_pass.high > 1
    assert own.accuracy[0][0].value > other.accuracy[0][0].value
    assert all(row[r].value <= row[r + 1].value for row in own.accuracy for r in range(4))
    kept = kept_share(after, before)
    gained = [checked.tokens_per_pass.value - 1 for checked in (own, other)]
    assert kept.value == pytest.approx(gained[1] / gained[0]) and kept.low < kept.value < kept.high < 1
    assert own.recorded[0][:2] == (0.9, 0.95) and len(own.recorded[0]) == 5
    assert own.verdict == "perhaps" and "`heads tree` measures" in own.reason()


def test_what_cannot_pay_is_called_so(tiny_base, trained):
    tally = tally_corpus(
        tiny_base, load_heads(trained / "heads", tiny_base), corpus(trained, tiny_base), Tree(paths=())
    )
    assert tally.tokens_s.sum() == tally.passes_s.sum() == tally.positions_s.sum()
    checked, _ = check_heads(tiny_base, trained / "heads", corpus(trained, tiny_base), tree=Tree(paths=()))
    assert checked.verdict == "no" and checked.reason().startswith("not worth it")
    assert kept_share(tally, tally) is None


def test_answers_of_its_own_are_its_likeliest_tokens(tiny_base, trained):
    given_ = corpus(trained, tiny_base)
    written = answered_by(tiny_base, given_, most_tokens=12)
    assert len(written.sequences) == len(given_.sequences)
    checked, _ = check_heads(tiny_base, trained / "heads", written, tree=chain(3))
    assert checked.own_words.value == checked.own_words.low == 1
    there, _ = check_heads(tiny_base, trained / "heads", given_, tree=chain(3))
    assert there.own_words.value < 1


def test_what_is_told_of_its_own_answers_is_what_decoding_them_takes(tiny_base, trained):
    written = answered_by(tiny_base, corpus(trained, tiny_base), most_tokens=20)
    heads = load_heads(trained / "heads", tiny_base)
    tally = tally_corpus(tiny_base, heads, written, TREE)
    decoder = Decoder(tiny_base, heads, TREE)
    for number, sequence in enumerate(written.sequences):
        prompt = sequence.tokens[~sequence.learned].tolist()
        decoded = decoder.generate(prompt, DecodeSettings(max_new_tokens=20))
        assert decoded.tokens == tuple(sequence.tokens[sequence.learned])
        assert (decoded.passes - 1, len(decoded.tokens) - 1) == (
            tally.passes_s[number], tally.tokens_s[number],
        )  # fmt: skip
    assert tally.tokens_s.sum() > 1.2 * tally.passes_s.sum()


def test_on_what_training_held_out_it_finds_what_training_wrote_down(tiny_base_folder, tmp_path):
    lines = [{"prompt": "the", "completion": text[3:]} for text in tiny_sentences(40, seed=3)]
    (tmp_path / "text.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = [
        tiny_base_folder,
        "--data",
        tmp_path / "text.jsonl",
        "--output",
        tmp_path / "heads",
        "--heads",
        2,
    ]
    done = CliRunner().invoke(train.command, list(map(str, words)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    told = CliRunner().invoke(command, [str(tiny_base_folder), str(tmp_path / "heads"), "--json"])
    record = json.loads((tmp_path / "heads" / "heads.json").read_text())["training"]["accuracy"]
    found = json.loads(told.stdout)
    assert found["own_base"] and len(found["accuracy"]) == 2
    for k, row in enumerate(found["accuracy"]):
        assert [each["value"] for each in row] == pytest.approx(record[k][:5], abs=1e-6)
    assert max(each["value"] for each in found["accuracy"][0]) > 0


def test_a_base_of_another_shape_is_refused(trained, tiny_base, tmp_path):
    record = json.loads((trained / "heads" / "heads.json").read_text())
    narrow = HeadsConfig(
        heads=1,
        layers=1,
        hidden_size=8,
        vocab_size=20,
        projection="shared",
        drafted=20,
        base="sha256:1",
        base_name="narrow",
    )
    save_heads(Heads(narrow, torch.randn(20, 8)), tmp_path / "narrow", record["training"])
    with pytest.raises(HeadsError, match="the base projects by"):
        check_heads(tiny_base, tmp_path / "narrow", corpus(trained, tiny_base))


def test_texts_that_are_too_short_are_refused(trained, tiny_base):
    short = corpus_of(
        [TokenSequence(tokens=np.array([5, 6], np.int32), learned=np.array([True, True]))], place="test"
    )
    with pytest.raises(HeadsError, match="give longer texts"):
        check_heads(tiny_base, trained / "heads", short)


def test_the_command_tells_both_bases_apart(trained, merged, tiny_base_folder):
    def call(*arguments):
        words = [str(each) for each in (*arguments, "--data", trained / "held.jsonl")]
        return CliRunner().invoke(command, words, catch_exceptions=False).stdout

    alone = call(merged, trained / "heads")
    assert "not the base that they were trained on" in alone and "90.0 % (record" in alone
    both = call(merged, trained / "heads", "--own-base", tiny_base_folder)
    assert "of the drafted tokens that were right there" in both and "record" not in both
    told = json.loads(call(tiny_base_folder, trained / "heads", "--answers", "8", "--json"))
    assert told["own_base"] and told["own"] is None and told["own_words"]["value"] == 1
    assert told["verdict"] in ("perhaps", "unclear") and len(told["accuracy"]) == 3
    shutil.copy(trained / "held.jsonl", trained / "heads" / "held_out.jsonl")
    words = [str(merged), str(trained / "heads")]
    assert CliRunner().invoke(command, words, catch_exceptions=False).stdout == alone


def test_a_quotient_over_the_same_texts_is_paired():
    """Of equal counts it is exactly 1, however much the texts differ among themselves."""
    chance = np.random.default_rng(1)
    passes, tokens = chance.integers(10, 90, 12).astype(float), np.full(12, 100.0)
    tally = Tally(
        hits_skr=np.zeros((12, 1, 5)), seen_sk=np.zeros((12, 1)), positions_s=tokens, tokens_s=tokens,
        passes_s=passes, own_words_s=tokens,
    )  # fmt: skip
    kept = kept_share(tally, tally)
    assert (kept.value, kept.low, kept.high) == (1, 1, 1)
    fewer = replace(tally, positions_s=tokens[:5])
    with pytest.raises(HeadsError, match="5 texts here and 12 there"):
        kept_share(fewer, tally)
