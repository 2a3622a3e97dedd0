"""Drawing tokens, and several prompts at a time: python benchmarks/heads_sampling.py BASE HEADS

HEADS is a folder with a tree (`heads tree`). First, at two temperatures, tokens of a pass and seconds of
plain decoding, of the tree with exact draws, and of the tree with typical acceptance. Then prompts decoded
greedily one, two, four and eight at a time, plainly and by the tree: more rows of a pass are used by the
prompts themselves, so that a tree that pays for one prompt need not pay for eight.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from modelyard.heads.decoding.decoder import Decoder, open_decoder
from modelyard.heads.decoding.settings import DecodeSettings
from modelyard.heads.measuring.benching import decode_in_turns, decoder_way, results_of
from modelyard.heads.measuring.prompts import read_prompts

PROMPTS = Path(__file__).with_name("heads_prompts.jsonl")
TEMPERATURES, BATCHES = (0.7, 1.0), (1, 2, 4, 8)


def sampling(decoder: Decoder, prompts: list[list[int]], temperature: float, tokens: int) -> None:
    """One temperature."""
    exact = DecodeSettings(max_new_tokens=tokens, temperature=temperature, seed=1)
    typical = DecodeSettings(max_new_tokens=tokens, temperature=temperature, seed=1, typical=True)
    ways = [
        decoder_way("plain", Decoder(decoder.base), exact),
        decoder_way("tree, exact draws", decoder, exact),
        decoder_way("tree, typical", decoder, typical),
    ]
    for row in results_of(decode_in_turns(ways, prompts), {}):
        passes, speedup = row.tokens_per_pass, row.cpu_speedup
        print(
            f"| {temperature} | {row.name} | {passes.value:.2f} [{passes.low:.2f}, {passes.high:.2f}] |"
            f" {row.cpu_ms_per_token:.1f} | {speedup.value:.2f} [{speedup.low:.2f}, {speedup.high:.2f}] |",
            flush=True,
        )


def batches(decoder: Decoder, prompts: list[list[int]], size: int, tokens: int) -> None:
    """One number of prompts at a time."""
    settings = DecodeSettings(max_new_tokens=tokens)
    spent = {"plain": 0.0, "tree": 0.0}
    made = dict.fromkeys(spent, 0)
    for start in range(0, len(prompts) - size + 1, size):
        for name, each in (("plain", Decoder(decoder.base)), ("tree", decoder)):
            begun = time.process_time()
            decoded = each.generate_batch(prompts[start : start + size], settings)
            spent[name] += time.process_time() - begun
            made[name] += sum(len(one.tokens) for one in decoded)
    cost = {name: 1e3 * spent[name] / made[name] for name in spent}
    print(
        f"| {size} | {cost['plain']:.1f} | {cost['tree']:.1f} | {cost['plain'] / cost['tree']:.2f} |",
        flush=True,
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("base", type=Path)
    parser.add_argument("heads", type=Path)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--file", type=Path, default=PROMPTS, help="of prompts, as `heads bench` reads it")
    told = parser.parse_args()
    torch.set_num_threads(1)
    decoder = open_decoder(told.base, told.heads, dtype=told.dtype)
    read = read_prompts(told.file, decoder.base.tokenizer)
    prompts = [read[i * len(read) // told.prompts] for i in range(told.prompts)]
    print(f"tree of {decoder.tree.size} nodes, {len(prompts)} prompts")
    print("| temperature | way | tokens a pass | CPU ms a token | CPU speed-up |\n|---|---|---|---|---|")
    for temperature in TEMPERATURES:
        sampling(decoder, prompts, temperature, told.tokens)
    print("\n| prompts at a time | plain, CPU ms a token | tree | speed-up |\n|---|---|---|---|")
    for size in BATCHES:
        batches(decoder, prompts, size, told.tokens)


if __name__ == "__main__":
    main()
