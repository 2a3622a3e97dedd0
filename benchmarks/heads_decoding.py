"""Decoding with heads beside plain decoding: python benchmarks/heads_decoding.py BASE HEADS --calibrate FILE

Every prompt of heads_prompts.jsonl (ten of code, ten of chat, ten of prose) is decoded greedily by every way,
in turns, on one thread: plainly, by the best trees of several sizes, by the tree that `heads tree` chooses,
by prompt lookup, and by both; then by the library transformers (`generate`, and its own prompt lookup) on a
model of its own. The table gives tokens of a pass, milliseconds of the processor and of the clock for each
token, speed-ups over the same plain loop with 95 % intervals over prompts, what was predicted, how many
prompts came out as in plain decoding, and how often the tokens are not those of float32 (regret). `--json
FILE` keeps all.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from modelyard.heads.base import Base
from modelyard.heads.choosing.calibration import best_tree, ranked
from modelyard.heads.choosing.choice import ChosenTree, choose_tree
from modelyard.heads.decoding.decoder import FIXED_ROWS, Decoded, Decoder
from modelyard.heads.decoding.settings import DecodeSettings
from modelyard.heads.learning.data import read_corpus
from modelyard.heads.measuring.benching import (
    Way,
    WayResult,
    decode_in_turns,
    decoder_way,
    regrets_of,
    results_of,
)
from modelyard.heads.measuring.prompts import read_prompts
from modelyard.heads.model import load_heads
from modelyard.heads.tree import Tree

PROMPTS = Path(__file__).with_name("heads_prompts.jsonl")
LOOKUP = 6
COLUMNS = (
    "way", "tokens a pass", "CPU ms a token", "wall ms", "CPU speed-up", "wall", "predicted", "same", "flips",
)  # fmt: skip


def library_way(name: str, base: Path, dtype: str, most: int, **options: Any) -> Way:
    """transformers' own `generate`, on a model that nothing of ours has touched."""
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=getattr(torch, dtype)).eval()
    passes = 0

    def count(*_: Any) -> None:
        nonlocal passes
        passes += 1

    model.base_model.register_forward_hook(count)

    def decode(ids: Sequence[int]) -> Decoded:
        nonlocal passes
        passes = 0
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        ids_bn = torch.tensor([ids])
        with torch.inference_mode():
            made_bn = model.generate(
                ids_bn,
                attention_mask=torch.ones_like(ids_bn),
                max_new_tokens=most,
                do_sample=False,
                **options,
            )
        spent = (time.perf_counter() - wall_s, time.process_time() - cpu_s)
        tokens = tuple(made_bn[0, len(ids) :].tolist())
        return Decoded(
            tokens=tokens, text="", finish="", passes=passes, accepted={}, wall_s=spent[0], cpu_s=spent[1]
        )

    return Way(name=name, decode=decode)


def ways_of(decoder: Decoder, choice: ChosenTree, full: Tree, told: argparse.Namespace) -> list[Way]:
    """All that is measured; plain decoding first."""
    base, heads, most = decoder.base, decoder.with_heads(), told.tokens
    simple, looking = DecodeSettings(max_new_tokens=most), DecodeSettings(max_new_tokens=most, lookup=LOOKUP)
    plain, auto = Decoder(base), Decoder(base, heads, choice.tree)
    ways = [decoder_way("plain", plain, simple)]
    trees = [(size, full.first(size)) for size in told.sizes]
    ways += [decoder_way(f"tree {size}", Decoder(base, heads, tree), simple) for size, tree in trees]
    ways += [
        decoder_way(f"auto ({choice.tree.size})", auto, simple),
        decoder_way(f"lookup {LOOKUP}", plain, looking),
        decoder_way(f"auto and lookup {LOOKUP}", auto, looking),
    ]
    if not told.without_library:
        ways += [
            library_way("transformers generate", told.base, told.dtype, most),
            library_way("transformers lookup", told.base, told.dtype, most, prompt_lookup_num_tokens=LOOKUP),
        ]
    return ways


def exact_ways_of(decoder: Decoder, full: Tree, told: argparse.Namespace) -> list[Way]:
    """Plain decoding as usual, then all in passes of one shape: their tokens are to be the same."""
    simple = DecodeSettings(max_new_tokens=told.tokens)
    looking = DecodeSettings(max_new_tokens=told.tokens, lookup=LOOKUP)
    fixed = Base.open(told.base, dtype=told.dtype, fixed_sums=True)
    heads = load_heads(told.heads, fixed)
    plain = Decoder(fixed, fixed_rows=FIXED_ROWS)
    ways = [
        decoder_way("plain", Decoder(decoder.base), simple),
        decoder_way("exact: plain", plain, simple),
        decoder_way(f"exact: lookup {LOOKUP}", plain, looking),
    ]
    for size in told.sizes:
        by_tree = Decoder(fixed, heads, full.first(size), fixed_rows=FIXED_ROWS)
        ways += [
            decoder_way(f"exact: tree {size}", by_tree, simple),
            decoder_way(f"exact: tree {size} and lookup {LOOKUP}", by_tree, looking),
        ]
    return ways


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("base", type=Path)
    parser.add_argument("heads", type=Path)
    parser.add_argument("--calibrate", type=Path, required=True)
    parser.add_argument("--prompts", type=Path, default=PROMPTS)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--sizes", type=lambda text: [int(each) for each in text.split(",")], default=[])
    parser.add_argument("--limit", type=int, default=10**6, help="prompts of each domain")
    parser.add_argument("--without-library", action="store_true")
    parser.add_argument("--exact", action="store_true", help="passes of one shape; sizes up to 15")
    parser.add_argument("--before", type=int, default=0, help="tokens of other text before each prompt")
    parser.add_argument("--json", type=Path)
    told = parser.parse_args()
    torch.set_num_threads(told.threads)
    base = Base.open(told.base, dtype=told.dtype)
    heads = load_heads(told.heads, base)
    corpus = read_corpus(told.calibrate, base.tokenizer, ends=base.end_tokens)
    choice = choose_tree(Decoder(base, heads), corpus, clock="cpu")
    full = best_tree(ranked(base, heads, corpus), 63)
    domains = [json.loads(line)["domain"] for line in told.prompts.read_text().splitlines()]
    prompts = read_prompts(told.prompts, base.tokenizer)
    kept = [i for i, name in enumerate(domains) if domains[:i].count(name) < told.limit]
    domains, prompts = [domains[i] for i in kept], [prompts[i] for i in kept]
    other = [token for sequence in corpus.sequences for token in sequence.tokens.tolist()][: told.before]
    prompts = [[*other, *ids] for ids in prompts]
    decoder = Decoder(base, heads)
    ways = exact_ways_of(decoder, full, told) if told.exact else ways_of(decoder, choice, full, told)
    found = decode_in_turns(
        ways, prompts, observe=lambda done, of: print(f"prompt {done} of {of}", flush=True)
    )
    regret = regrets_of(found, prompts, Base.open(told.base))
    tables = {"all": results_of(found, regret)}
    for domain in dict.fromkeys(domains):
        rows = [i for i, name in enumerate(domains) if name == domain]
        tables[domain] = results_of(
            {name: [each[i] for i in rows] for name, each in found.items()},
            {name: [each[i] for i in rows] for name, each in regret.items()},
        )
    if told.exact:
        fixed = {name: each for name, each in found.items() if name != "plain"}
        same = {row.name: f"{row.identical}/{row.prompts}" for row in results_of(fixed, {})}
        print("the same tokens as plain decoding in passes of the same shape:", same)
    show(tables, choice)
    if told.json:
        record = {name: [each.as_json() for each in rows] for name, rows in tables.items()}
        told.json.write_text(json.dumps({"choice": choice.as_json(), "tables": record}, indent=1) + "\n")


def show(tables: dict[str, list[WayResult]], choice: ChosenTree) -> None:
    """One table for all prompts, and one for each domain."""
    predicted = {f"tree {each.nodes}": each.speedup for each in choice.prospects}
    if choice.prospect is not None:
        predicted[f"auto ({choice.tree.size})"] = choice.prospect.speedup
    for name, rows in tables.items():
        print(f"\n{name}: {rows[0].prompts} prompts")
        print(f"| {' | '.join(COLUMNS)} |")
        print("|---|---|---|---|---|---|---|---|---|")
        for row in rows:
            flips = "" if row.regret is None else f"{row.regret.flip_rate:.2%} (mean {row.regret.mean:.5f})"
            print(
                f"| {row.name} | {span(row.tokens_per_pass)} | {row.cpu_ms_per_token:.1f} |"
                f" {row.wall_ms_per_token:.1f} | {span(row.cpu_speedup)} | {span(row.wall_speedup)} |"
                f" {predicted.get(row.name, float('nan')):.2f} | {row.identical}/{row.prompts} | {flips} |"
            )


def span(estimate: Any) -> str:
    """A value and its interval."""
    return f"{estimate.value:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]"


if __name__ == "__main__":
    main()
