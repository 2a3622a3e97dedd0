"""Does merging help? Small vision transformers on scikit-learn's digits, two designs.

    python benchmarks/merge_helps_digits.py make DIR --seed 1 2 3 4 5
    python benchmarks/merge_helps_digits.py evaluate CHECKPOINT [--split val|test] [--metric mean_loss]
    python benchmarks/merge_helps_digits.py report DIR (--modelyard PATH | --tool PATH)

near: a weak base that has seen 120 labelled digits of each of three domains (upright, mirrored,
rotated), and a specialist for each domain, trained a little at a small rate.
far: a base of upright digits alone, and specialists trained at full rate on mirrored and on
inverted ones. Here merging should not win; a benchmark in which it always does measures nothing.
Needs torch, transformers and scikit-learn. The splits are the same for every seed; the seed decides
the base's labels, the initialisation and the order of training.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from transformers import ViTConfig, ViTForImageClassification

import merge_helps
from merge_helps_checkpoint import whole
from merge_helps_family import Family, Scores, Subject, with_mean

DOMAINS: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "upright": lambda images: images,
    "mirrored": lambda images: images.flip(-1),
    "rotated": lambda images: images.rot90(1, (-2, -1)),
    "inverted": lambda images: -images,
}
NEAR = ("upright", "mirrored", "rotated")
FAR = ("upright", "mirrored", "inverted")
SIZES = {"train": 900, "val": 300, "test": 597}
SPLIT_SEED = 0
BASE_LABELS = 120  # of each domain
BATCH = 64
LAYOUT = {
    "image_size": 8, "patch_size": 2, "num_channels": 1, "hidden_size": 64, "intermediate_size": 128,
    "num_hidden_layers": 4, "num_attention_heads": 4, "num_labels": 10,
    "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """Images, [n, 1, 8, 8] from -1 to 1, and their labels, [n]."""

    images: torch.Tensor
    labels: torch.Tensor

    def take(self, rows: torch.Tensor) -> Data:
        """Some rows of it."""
        return Data(images=self.images[rows], labels=self.labels[rows])

    def seen(self, domain: str) -> Data:
        """The same digits in a domain."""
        return Data(images=DOMAINS[domain](self.images), labels=self.labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """How long and how fast."""

    steps: int
    rate: float
    seed: int


def make(folder: Path, seed: int) -> None:
    """Both designs of one seed."""
    for design, build in (("near", make_near), ("far", make_far)):
        home = folder / f"seed-{seed}" / design
        if home.exists():
            continue
        partial = home.with_name(f"{design}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        build(partial, seed)
        partial.rename(home)


def make_near(home: Path, seed: int) -> None:
    """Weak base of three domains, three specialists, the joint model, and another initialisation."""
    pool = split("train")
    rows = torch.randperm(len(pool.labels), generator=torch.Generator().manual_seed(seed))
    parts = zip(NEAR, rows[: BASE_LABELS * len(NEAR)].split(BASE_LABELS), strict=True)
    few = joined([pool.take(part).seen(domain) for domain, part in parts])
    everything = joined([pool.seen(domain) for domain in NEAR])
    weak = Training(steps=250, rate=1e-3, seed=seed)
    save(train(fresh(seed), few, weak), home / "base")
    save(train(fresh(seed + 1000), few, weak), home / "unrelated")
    short = Training(steps=150, rate=3e-4, seed=seed)
    for domain in NEAR:
        save(train(load(home / "base"), pool.seen(domain), short), home / domain)
        save_grams(home / domain, pool.seen(domain))
    long = Training(steps=short.steps * len(NEAR), rate=short.rate, seed=seed)
    save(train(load(home / "base"), everything, long), home / "joint")


def make_far(home: Path, seed: int) -> None:
    """Base of one domain, two specialists that go far, and the joint model."""
    pool = split("train")
    steps = Training(steps=300, rate=1e-3, seed=seed)
    save(train(fresh(seed), pool.seen("upright"), steps), home / "base")
    for domain in FAR[1:]:
        save(train(load(home / "base"), pool.seen(domain), steps), home / domain)
        save_grams(home / domain, pool.seen(domain))
    everything = joined([pool.seen(domain) for domain in FAR])
    long = Training(steps=steps.steps * len(FAR[1:]), rate=steps.rate, seed=seed)
    save(train(load(home / "base"), everything, long), home / "joint")


def split(name: str) -> Data:
    """The digits of one split."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(SPLIT_SEED).permutation(len(labels))
    cuts = np.split(order, np.cumsum(list(SIZES.values()))[:-1])
    rows = dict(zip(SIZES, cuts, strict=True))[name]
    scaled = torch.tensor(images[rows] / 8 - 1, dtype=torch.float32)
    return Data(images=scaled.view(-1, 1, 8, 8), labels=torch.tensor(labels[rows]))


def joined(parts: list[Data]) -> Data:
    """One after another."""
    return Data(
        images=torch.cat([part.images for part in parts]), labels=torch.cat([part.labels for part in parts])
    )


def fresh(seed: int) -> Any:
    """A model of its own initialisation."""
    torch.manual_seed(seed)
    return ViTForImageClassification(ViTConfig(**LAYOUT))


def load(checkpoint: Path) -> Any:
    """A checkpoint, to compute with in float32."""
    return whole(ViTForImageClassification, checkpoint)


def save(model: Any, out: Path) -> None:
    """Write a checkpoint with the names `vit.layers.N.`, by which every tool tells the layers."""
    model.save_pretrained(out, save_original_format=False)


def save_grams(checkpoint: Path, data: Data) -> None:
    """X^T X of the inputs of each linear layer on a specialist's own training images, for RegMean."""
    model, grams = load(checkpoint).eval(), {}

    def seen(name: str) -> Callable[..., None]:
        def hook(_layer: Any, inputs: tuple[torch.Tensor, ...]) -> None:
            rows = inputs[0].flatten(0, -2).double()
            grams[name] = grams.get(name, 0) + rows.T @ rows

        return hook

    for name, layer in model.named_modules():
        if isinstance(layer, torch.nn.Linear):
            layer.register_forward_pre_hook(seen(f"{name}.weight"))
    with torch.inference_mode():
        model(pixel_values=data.images)
    save_file(grams, checkpoint.with_name(f"{checkpoint.name}.grams.safetensors"))


def train(model: Any, data: Data, training: Training) -> Any:
    """Train all weights; each batch is drawn anew."""
    model.train()
    draw = torch.Generator().manual_seed(training.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=training.rate)
    for _ in range(training.steps):
        batch = data.take(torch.randint(len(data.labels), (BATCH,), generator=draw))
        loss = model(pixel_values=batch.images, labels=batch.labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def measure(checkpoint: Path, split_name: str, domains: Iterable[str]) -> Scores:
    """Accuracy and cross-entropy of each domain."""
    model, data = load(checkpoint).eval(), split(split_name)
    scores = {}
    for domain in domains:
        with torch.inference_mode():
            logits_bk = model(pixel_values=data.seen(domain).images).logits
        accuracy = (logits_bk.argmax(1) == data.labels).float().mean().item()
        loss = torch.nn.functional.cross_entropy(logits_bk, data.labels).item()
        scores[domain] = {"accuracy": accuracy, "loss": loss}
    return with_mean(scores)


def families(folder: Path) -> list[Family]:
    """Both designs of every seed that is there."""
    homes = sorted(path for path in folder.glob("seed-*/*") if path.name in ("near", "far"))
    return [near(home) if home.name == "near" else far(home) for home in homes]


def near(home: Path) -> Family:
    """Specialists that stayed near their base."""
    return Family(
        home=home, design="near", base="base", specialists=NEAR, joint="joint", domains=NEAR,
        unrelated="unrelated",
    )  # fmt: skip


def far(home: Path) -> Family:
    """Specialists that went far from it."""
    return Family(
        home=home, design="far", base="base", specialists=FAR[1:], joint="joint", domains=FAR, searched=False
    )


SUBJECT = Subject(
    script=Path(__file__),
    title="vision transformers of 136,138 weights on digits",
    domains=NEAR,
    measures={"accuracy": True, "loss": False},
    make=make,
    families=families,
    measure=measure,
    note=f"{SIZES['test']} digits a domain in test, {SIZES['val']} in val; the same for every seed.",
)

if __name__ == "__main__":
    torch.set_num_threads(1)
    merge_helps.main(SUBJECT)
