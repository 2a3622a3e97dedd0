"""Heads on a small model that is trained here, from nothing but Python: python benchmarks/heads_small.py DIR

A Llama of a million parameters learns some packages of Python's own standard library (one module in ten is
kept apart), heads are trained on what it writes by `modelyard heads train`, and DIR then holds `base`,
`heads` and `prompts.jsonl` for heads_decoding.py, which is run on them in both types. About twenty minutes
of one core; nothing is fetched.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

import torch

VOCABULARY, CONTEXT, BATCH = 1024, 128, 16
PACKAGES = ("asyncio", "concurrent", "email", "http", "importlib", "json", "logging", "multiprocessing",
            "unittest", "urllib", "xml")  # fmt: skip
PROMPT_CHARACTERS, TEXT_CHARACTERS = 240, 900
HERE = Path(__file__).parent
MODELYARD = Path(sys.executable).with_name("modelyard")


def sources() -> tuple[list[str], list[str]]:
    """Modules to train on, and those that are kept apart."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    files = sorted(path for name in PACKAGES for path in (folder / name).rglob("*.py"))
    random.Random(0).shuffle(files)
    texts = [path.read_text(encoding="utf-8", errors="ignore") for path in files]
    texts = [text for text in texts if len(text) > 2 * TEXT_CHARACTERS]
    return [text for i, text in enumerate(texts) if i % 10], texts[::10]


def make_tokenizer(texts: list[str]) -> Any:
    """Byte-pair encoding over bytes, trained on the same texts."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(texts, vocab_size=VOCABULARY, special_tokens=["<end>"], show_progress=False)
    return PreTrainedTokenizerFast(tokenizer_object=trained._tokenizer, eos_token="<end>")


def train_base(folder: Path, texts: list[str], seconds: float) -> None:
    """Train for so many seconds of the processor."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    tokenizer = make_tokenizer(texts)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=160, intermediate_size=480, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=1024, tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id, bos_token_id=None, pad_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    model: Any = LlamaForCausalLM(config)
    tokens = torch.tensor([token for text in texts for token in [*tokenizer.encode(text), 0]])
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    begun, step = time.process_time(), 0
    while (spent := time.process_time() - begun) < seconds:
        rate = min(1.0, (step + 1) / 60) * max(0.05, 1 - spent / seconds)
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * rate
        starts = torch.randint(len(tokens) - CONTEXT - 1, (BATCH,))
        ids_bn = torch.stack([tokens[start : start + CONTEXT] for start in starts.tolist()])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(input_ids=ids_bn, labels=ids_bn).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 100 == 0:
            print(f"step {step}: loss {loss.item():.3f}", flush=True)
        step += 1
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_texts(folder: Path, train: list[str], apart: list[str]) -> None:
    """Text for the heads, and prompts of modules that nothing was trained on."""
    pieces = [
        t[i : i + TEXT_CHARACTERS] for t in train for i in range(0, len(t) - TEXT_CHARACTERS, TEXT_CHARACTERS)
    ]
    random.Random(1).shuffle(pieces)
    (folder / "prompts-to-answer.jsonl").write_text(
        "".join(json.dumps({"opening": piece[:PROMPT_CHARACTERS]}) + "\n" for piece in pieces[:2000])
    )
    prompts = [
        {"domain": "standard library", "prompt": text[start : start + PROMPT_CHARACTERS]}
        for text in apart for start in (600, 4000)
        if len(text) > start + PROMPT_CHARACTERS
    ]  # fmt: skip
    (folder / "prompts.jsonl").write_text("".join(json.dumps(each) + "\n" for each in prompts[:30]))


def main() -> None:
    """Make what is not there, then measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=600, help="of the processor, for the base")
    parser.add_argument("--tokens", type=int, default=60_000, help="that the base writes for the heads")
    told = parser.parse_args()
    torch.set_num_threads(1)
    folder = told.folder
    folder.mkdir(parents=True, exist_ok=True)
    train, apart = sources()
    if not (folder / "base" / "config.json").is_file():
        train_base(folder / "base", train, told.seconds)
    if not (folder / "prompts.jsonl").is_file():
        write_texts(folder, train, apart)
    run(
        MODELYARD, "heads", "train", folder / "base", "--output",
        folder / "heads", "--self-distill", told.tokens, "--topics", folder / "prompts-to-answer.jsonl",
        "--answer-temperature", 0.7, "--shortlist", VOCABULARY, "--epochs", 6, "--longest", 512,
    )  # fmt: skip
    for dtype in ("bfloat16", "float32"):
        print(f"\n## {dtype}", flush=True)
        run(
            sys.executable, HERE / "heads_decoding.py", folder / "base", folder / "heads", "--calibrate",
            folder / "heads" / "held_out.jsonl", "--prompts", folder / "prompts.jsonl", "--dtype", dtype,
            "--sizes", "2,4,8,16,32", "--tokens", 64, "--json", folder / f"{dtype}.json",
        )  # fmt: skip
    run(
        MODELYARD, "heads", "tree", folder / "heads", "--base", folder / "base", "--calibrate",
        folder / "heads" / "held_out.jsonl", "--clock", "cpu", "--threads", 1, "--dtype", "bfloat16",
    )  # fmt: skip
    print("\n## drawing", flush=True)
    run(
        sys.executable, HERE / "heads_sampling.py", folder / "base", folder / "heads", "--file",
        folder / "prompts.jsonl",
    )  # fmt: skip


def run(*arguments: object) -> None:
    """A command, whose failure is ours."""
    subprocess.run([*map(str, arguments)], check=True)


if __name__ == "__main__":
    main()
