"""Training heads from cached hidden states against loops that run the base every step.

Positions per CPU second of: `cached` (modelyard), once with and once without what the caching itself took,
`naive` (the same heads and loss, but the base runs for every batch) and `peer` (economize's train.fit, which
does so too and has no shortlist). Each measurement is a process of its own with one thread; the rounds go
through all contenders in turn. A contender's time is its process's CPU time between the load of the base and
the end of the training.

    OMP_NUM_THREADS=1 python benchmarks/heads_training.py BASE TEXT.jsonl --rounds 3 [--economize FOLDER]

FOLDER is where `pip install --no-deps --target FOLDER economize` put the peer.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

EPOCHS = 4
HEADS, HOLD_OUT, BATCH = 4, 0.1, 512
#: The whole vocabulary instead of a shortlist; the base's distribution as the target.
FULL, SOFT = "full", "soft"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--texts", type=int, default=60, help="how many texts of the file")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--economize", type=Path)
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.contender:
        json.dump(measured(chosen), sys.stdout)
        return
    names = ["cached", "naive", f"cached {SOFT}", f"cached {FULL}", f"naive {FULL}"]
    names += ["peer"] if chosen.economize else []
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for number in range(chosen.rounds):
        for name in names:
            rounds[name].append(one_process(name))
            print(f"round {number + 1} {name}: {rounds[name][-1]}", file=sys.stderr)
    print(table(rounds))


def one_process(name: str) -> dict[str, float]:
    """Measure one contender in a process of its own."""
    ended = subprocess.run(
        [sys.executable, *sys.argv, "--contender", name],
        check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    told: dict[str, float] = json.loads(ended.stdout)
    return told


def measured(chosen: argparse.Namespace) -> Mapping[str, float]:
    """Positions trained on, CPU seconds of training, and of caching where there is any."""
    import torch

    from modelyard.heads.base import Base
    from modelyard.heads.learning.data import corpus_of, read_corpus

    torch.set_num_threads(1)
    base = Base.open(chosen.base, dtype=chosen.dtype)
    corpus = read_corpus(chosen.text, base.tokenizer, ends=base.end_tokens, most_tokens=512)
    corpus = corpus_of(corpus.sequences[: chosen.texts], place=str(chosen.text))
    kind, _, extent = chosen.contender.partition(" ")
    shortlist = base.vocab_size if extent == FULL else 8192
    if kind == "cached":
        return cached(base, corpus, shortlist, soft=float(extent == SOFT))
    if kind == "naive":
        return naive(base, corpus, shortlist)
    sys.path.insert(0, str(chosen.economize))
    return peer(base, corpus)


def cached(base: Any, corpus: Any, shortlist: int, *, soft: float) -> Mapping[str, float]:
    from modelyard.heads.learning.hidden_states import cache_states
    from modelyard.heads.learning.training import TrainingSettings, train

    settings = TrainingSettings(
        heads=HEADS, shortlist=shortlist, epochs=EPOCHS, batch=BATCH, hold_out=HOLD_OUT, measurements=1,
        patience=EPOCHS, save_every=10**9, soft=soft,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as root:
        begun = time.process_time()
        states = cache_states(base, corpus, Path(root, "states"))
        between = time.process_time()
        facts = train(states, Path(root, "heads"), settings, clock=time.monotonic).facts
        return {
            "positions": facts["train_positions"] * EPOCHS,
            "cpu_s": time.process_time() - between,
            "caching_cpu_s": between - begun,
        }


def naive(base: Any, corpus: Any, shortlist: int) -> Mapping[str, float]:
    """One epoch: for every batch of texts the base, then the heads at all positions of the batch."""
    import numpy as np
    import torch

    from modelyard.heads.config import HeadsConfig
    from modelyard.heads.learning import examples as made
    from modelyard.heads.learning.accuracy import DECAY, head_losses
    from modelyard.heads.learning.hidden_states import HiddenStates
    from modelyard.heads.model import Heads

    sequences = corpus.sequences
    states = HiddenStates(
        base=base.fingerprint, base_name="", data=corpus.digest, dtype="", vocabulary="",
        states_ph=torch.zeros(0), tokens_p=np.concatenate([each.tokens for each in sequences]),
        learned_p=np.concatenate([each.learned for each in sequences]),
        starts_s=np.cumsum([0, *map(len, sequences)]), projection_vh=base.projection_vh,
        ends=base.end_tokens,
    )  # fmt: skip
    split = made.split_examples(states, HEADS, hold_out=HOLD_OUT, seed=0)
    drafted_s = made.shortlist(states, split.train, shortlist)
    short = None if len(drafted_s) == base.vocab_size else torch.from_numpy(drafted_s)
    config = HeadsConfig(
        heads=HEADS, layers=1, hidden_size=base.hidden_size, vocab_size=base.vocab_size,
        projection="shared", drafted=len(drafted_s), base=base.fingerprint,
    )  # fmt: skip
    heads = Heads(config, base.projection_vh, short)
    optimiser = torch.optim.AdamW(heads.parameters(), lr=1e-3, weight_decay=0.0)
    labels_kn = made.labels(split.train, drafted_s, base.vocab_size)
    row_of = np.searchsorted(states.starts_s, split.train.positions_n, side="right") - 1
    texts = np.setdiff1d(np.arange(len(sequences)), split.held_out_sequences)
    order_s = np.random.default_rng(0).permutation(texts)
    per_batch = max(1, round(BATCH * len(texts) / len(split.train)))
    begun, positions = time.process_time(), 0
    for start in range(0, len(order_s), per_batch):
        chosen_s = order_s[start : start + per_batch]
        width = max(len(sequences[i]) for i in chosen_s)
        ids_bn = torch.zeros((len(chosen_s), width), dtype=torch.long)
        picked, columns = [], []
        for row, i in enumerate(chosen_s):
            ids_bn[row, : len(sequences[i])] = torch.from_numpy(sequences[i].tokens.astype(np.int64))
            (mine,) = np.nonzero(row_of == i)
            picked.append(split.train.positions_n[mine] - states.starts_s[i] + row * width)
            columns.append(mine)
        with torch.no_grad():
            hidden_nh = base.hidden(ids_bn, use_cache=False).flatten(0, 1)[
                torch.from_numpy(np.concatenate(picked))
            ]
        wanted_kn = torch.from_numpy(labels_kn[:, np.concatenate(columns)])
        counts_k = (wanted_kn != made.NOTHING).sum(dim=1).clamp(min=1)
        weights_k = torch.tensor([DECAY**k for k in range(HEADS)]) / counts_k
        optimiser.zero_grad(set_to_none=True)
        (head_losses(heads, hidden_nh, wanted_kn) * weights_k).sum().backward()
        optimiser.step()
        positions += len(hidden_nh)
    return {"positions": positions, "cpu_s": time.process_time() - begun}


def peer(base: Any, corpus: Any) -> Mapping[str, float]:
    """One epoch of economize: shared projection, full vocabulary."""
    import economize
    import numpy as np
    import torch
    from economize.techniques.medusa import MedusaConfig
    from economize.train import Example, SequenceSource, fit
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(base.folder, dtype=base.dtype, attn_implementation="sdpa")
    model = economize.apply(plain, MedusaConfig(num_heads=HEADS, head="shared", param_dtype="float32"))
    examples = []
    for each in corpus.sequences[: round(len(corpus.sequences) * (1 - HOLD_OUT))]:
        mask = np.zeros(len(each), np.int64)
        mask[:-1] = each.learned[1:]
        examples.append(
            Example(torch.from_numpy(each.tokens.astype(np.int64)), loss_mask=torch.from_numpy(mask))
        )
    positions = sum(int(each.loss_mask.sum()) for each in examples)
    batch = max(1, round(BATCH * len(examples) / positions))
    source = SequenceSource(examples, batch, seed=0)
    begun = time.process_time()
    fit(model, source, "medusa_ce", steps=len(examples) // batch, log_every=10**6, seed=0)
    share = len(examples) // batch * batch / len(examples)
    return {"positions": positions * share, "cpu_s": time.process_time() - begun}


def table(rounds: Mapping[str, list[dict[str, float]]]) -> str:
    """Medians over the rounds, and their ranges."""
    lines = ["| training | positions per CPU second | range |", "|---|---|---|"]
    for name, all_told in rounds.items():
        rates = {name: [each["positions"] / each["cpu_s"] for each in all_told]}
        if "caching_cpu_s" in all_told[0]:
            rates = {
                f"{name}, the states are there": rates[name],
                f"{name}, {EPOCHS} epochs and the caching": [
                    each["positions"] / (each["cpu_s"] + each["caching_cpu_s"]) for each in all_told
                ],
            }
        lines += [
            f"| {label} | {statistics.median(values):.0f} | {min(values):.0f} to {max(values):.0f} |"
            for label, values in rates.items()
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
