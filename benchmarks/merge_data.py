"""Synthetic checkpoints for the benchmark of merging: a base and two that stand near it.

    python benchmarks/merge_data.py --data DIR [--sizes S,M,L,moe]

Each size is a folder with three checkpoints, `base`, `a` and `b`, as they come from a model hub:
config.json, a tokenizer (byte-level BPE trained on Python's own sources) and sharded bf16
safetensors with an index. The base is N(0, 0.02) everywhere; a and b are the rounded base plus
N(0, 0.002). Seeded by the tensor, made in chunks, so that a few hundred MB of memory suffice.
A size that is complete on the disk (its stamp fits, its files have their lengths) is used again.
The safetensors files are written by hand, for they are longer than what may stand in memory.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sysconfig
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

CHECKPOINTS = ("base", "a", "b")
VERSION = 1  # of what is written; another version makes the data anew
VOCABULARY = 32_000  # rows of the embeddings; the tokenizer has fewer tokens
TOKENS = 8_000
TOKENIZER_SOURCES_BYTES = 3_000_000
CHUNK = 1 << 22  # elements that are made at once
SCALE, STEP = 0.02, 0.002  # standard deviations of the base and of what a and b add


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The layout of one size: Llama's, or Qwen3-MoE's where there are experts."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    experts: int = 0
    shard_bytes: int = 10**9


SHAPES = {
    "tiny": Shape(hidden=64, intermediate=128, layers=2, heads=4),
    "S": Shape(hidden=1024, intermediate=2816, layers=14, heads=16),
    "M": Shape(hidden=2048, intermediate=5632, layers=18, heads=32),
    "L": Shape(hidden=2560, intermediate=6912, layers=30, heads=20),
    "moe": Shape(hidden=16, intermediate=8, layers=94, heads=2, experts=128, shard_bytes=10**7),
    "moe-8": Shape(hidden=16, intermediate=8, layers=8, heads=2, experts=128, shard_bytes=10**7),
}


def prepare(folder: Path, size: str) -> Path:
    """The folder of one size below `folder`, made unless it is there and complete."""
    home = folder / size
    if home.exists():
        if not complete(home, SHAPES[size]):
            raise SystemExit(f"{home} is not the data of this version; remove it, and it will be made anew")
        return home
    partial = folder / f"{size}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    write_weights(partial, SHAPES[size])
    for name in CHECKPOINTS:
        write_json(partial / name / "config.json", config(SHAPES[size]))
    write_tokenizer([partial / name for name in CHECKPOINTS])
    write_json(partial / "stamp.json", stamp(SHAPES[size], lengths(partial)))
    partial.rename(home)
    return home


def complete(home: Path, shape: Shape) -> bool:
    """Whether the stamp is that of this shape and every file has the length that it had."""
    path = home / "stamp.json"
    return path.is_file() and json.loads(path.read_text()) == stamp(shape, lengths(home))


def stamp(shape: Shape, files: dict[str, int]) -> dict[str, object]:
    """What is written last: the shape's text, so that any change of it counts, and the lengths."""
    return {"version": VERSION, "shape": repr(shape), "chunk": CHUNK, "files": files}


def lengths(home: Path) -> dict[str, int]:
    """Length of every file of the three checkpoints by its path."""
    found = (p for name in CHECKPOINTS for p in (home / name).rglob("*") if p.is_file())
    return {p.relative_to(home).as_posix(): p.stat().st_size for p in sorted(found)}


def tensors(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor by name, in the order of the files."""
    wide, vocabulary = shape.hidden, (VOCABULARY, shape.hidden)
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": vocabulary}
    for i in range(shape.layers):
        layer = dict(layer_tensors(shape))
        found |= {f"model.layers.{i}.{name}.weight": dims for name, dims in layer.items()}
    return {**found, "model.norm.weight": (wide,), "lm_head.weight": vocabulary}


def layer_tensors(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names within one layer, and their shapes."""
    wide, narrow = shape.hidden, shape.intermediate
    for part in "qkvo":
        yield f"self_attn.{part}_proj", (wide, wide)
    if shape.experts:
        yield "self_attn.q_norm", (wide // shape.heads,)
        yield "self_attn.k_norm", (wide // shape.heads,)
        yield "mlp.gate", (shape.experts, wide)
    for prefix in [f"mlp.experts.{e}" for e in range(shape.experts)] or ["mlp"]:
        yield f"{prefix}.gate_proj", (narrow, wide)
        yield f"{prefix}.up_proj", (narrow, wide)
        yield f"{prefix}.down_proj", (wide, narrow)
    yield "input_layernorm", (wide,)
    yield "post_attention_layernorm", (wide,)


def shards(shape: Shape) -> list[dict[str, tuple[int, ...]]]:
    """The tensors of each file: as many as fit, one at least."""
    files: list[dict[str, tuple[int, ...]]] = [{}]
    filled = 0
    for name, dims in tensors(shape).items():
        size = 2 * int(np.prod(dims))
        if files[-1] and filled + size > shape.shard_bytes:
            files.append({})
            filled = 0
        files[-1][name] = dims
        filled += size
    return files


def write_weights(folder: Path, shape: Shape) -> None:
    """Shards and index of all three checkpoints, side by side, each file synced."""
    files = shards(shape)
    places: dict[str, str] = {}
    number = 0
    for at, held in enumerate(files, 1):
        shard = f"model-{at:05d}-of-{len(files):05d}.safetensors"
        places |= dict.fromkeys(held, shard)
        with ExitStack() as stack:
            outs = [stack.enter_context(begin(folder / name / shard, held)) for name in CHECKPOINTS]
            for dims in held.values():
                write_tensor(outs, int(np.prod(dims)), np.random.default_rng([VERSION, number]))
                number += 1
            for out in outs:
                out.flush()
                os.fsync(out.fileno())
    total = 2 * sum(int(np.prod(dims)) for held in files for dims in held.values())
    for name in CHECKPOINTS:
        index = {"metadata": {"total_size": total}, "weight_map": places}
        write_json(folder / name / "model.safetensors.index.json", index)


def begin(path: Path, held: dict[str, tuple[int, ...]]) -> BinaryIO:
    """A safetensors file with its header: the length, then JSON padded to a multiple of eight."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, dims in held.items():
        begun, end = end, end + 2 * int(np.prod(dims))
        header[name] = {"dtype": "BF16", "shape": list(dims), "data_offsets": [begun, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.parent.mkdir(exist_ok=True)
    out = path.open("wb")
    out.write(len(text).to_bytes(8, "little") + text)
    return out


def write_tensor(outs: list[BinaryIO], count: int, rng: np.random.Generator) -> None:
    """One tensor of the base and of those near it, chunk by chunk."""
    for begun in range(0, count, CHUNK):
        size = min(CHUNK, count - begun)
        base = rounded(rng.standard_normal(size, dtype=np.float32) * np.float32(SCALE))
        outs[0].write(base.data)
        widened = (base.astype(np.uint32) << 16).view(np.float32)
        for out in outs[1:]:
            step = rng.standard_normal(size, dtype=np.float32)
            step *= np.float32(STEP)
            step += widened
            out.write(rounded(step).data)


def rounded(values: np.ndarray) -> np.ndarray:
    """Finite float32 as the bits of the nearest bfloat16, ties to even."""
    bits = values.view(np.uint32)
    return ((bits + (np.uint32(0x7FFF) + ((bits >> 16) & 1))) >> 16).astype(np.uint16)


def config(shape: Shape) -> dict[str, object]:
    """config.json as transformers writes it for this layout."""
    llama = shape.experts == 0
    found: dict[str, object] = {
        "architectures": ["LlamaForCausalLM" if llama else "Qwen3MoeForCausalLM"],
        "model_type": "llama" if llama else "qwen3_moe",
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.heads,
        "head_dim": shape.hidden // shape.heads,
        "hidden_act": "silu",
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "vocab_size": VOCABULARY,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    if llama:
        return found
    return found | {
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "moe_intermediate_size": shape.intermediate,
        "norm_topk_prob": True,
        "num_experts": shape.experts,
        "num_experts_per_tok": 8,
    }


def write_tokenizer(folders: list[Path]) -> None:
    """A byte-level BPE of Python's own sources, the same for every folder."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=TOKENS,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sources(), trainer)
    ends = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
    for folder in folders:
        tokenizer.save(str(folder / "tokenizer.json"))
        write_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **ends})


def sources() -> Iterator[str]:
    """Modules of the standard library until there is text enough."""
    read = 0
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        text = path.read_text(encoding="utf-8", errors="replace")
        read += len(text)
        yield text
        if read > TOKENIZER_SOURCES_BYTES:
            return


def write_json(path: Path, value: object) -> None:
    """A JSON file for people to read."""
    path.write_text(json.dumps(value, indent=2) + "\n")


def main() -> None:
    """Make the sizes asked for and print where they are."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sizes", default="S,M,L", help=f"of {', '.join(SHAPES)}")
    chosen = parser.parse_args()
    for size in chosen.sizes.split(","):
        begun = time.perf_counter()
        home = prepare(chosen.data, size)
        count = len(tensors(SHAPES[size]))
        whole = sum(n for path, n in lengths(home).items() if path.startswith("a/"))
        print(f"{home}: {count} tensors, {whole / 1e9:.3f} GB each, {time.perf_counter() - begun:.1f} s")


if __name__ == "__main__":
    main()
