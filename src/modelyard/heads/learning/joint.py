"""Medusa-2: heads and the base trained together (arXiv 2401.10774, section 2.2.2).

Heads that were trained on the frozen base come first; then low-rank adapters (LoRA, arXiv 2106.09685) on the
base's linear layers learn with them, so that its hidden states tell more of what comes. The base is to stay
what it is: its teacher is the same network with the adapters switched off, and the divergence from the
teacher's distribution takes the place of its cross entropy (section 2.3.2, self-distillation). What comes out
is a new base, the adapters merged into it, and heads that belong to it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from modelyard.core.digests import digest_json
from modelyard.core.errors import HeadsError
from modelyard.core.failpoints import failpoint
from modelyard.core.files import write_whole
from modelyard.heads.base import Base
from modelyard.heads.config import RANKS, RECORD, HeadsConfig, read_record
from modelyard.heads.fingerprint import fingerprint
from modelyard.heads.learning import examples as made
from modelyard.heads.learning.accuracy import DECAY, Accuracy, head_losses, heads_logits, rank_hits
from modelyard.heads.learning.adapters import add_adapters, switched_off, write_merged
from modelyard.heads.learning.examples import NOTHING
from modelyard.heads.learning.hidden_states import HiddenStates
from modelyard.heads.learning.training import HELD_OUT, Trained
from modelyard.heads.learning.training_state import CHECKPOINT, Stored, read_stored, write_stored
from modelyard.heads.model import Heads, load_heads, save_heads

_SEED_STEP = 1_000_003


@dataclass(frozen=True, slots=True, kw_only=True)
class JointSettings:
    """How heads and base are trained together."""

    # Of the adapters; their output is scaled by alpha / rank.
    rank: int = 16
    alpha: int = 32
    epochs: int = 1
    # Of the adapters, and how many times as fast the heads learn.
    learning_rate: float = 1e-4
    heads_rate: float = 4.0
    # What the heads' loss counts against the divergence, once the warm-up is over.
    heads_coefficient: float = 0.2
    # Share of the steps over which rate and coefficient rise.
    warm_up: float = 0.1
    # Texts of one step.
    batch: int = 4
    save_every: int = 25
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where stage one is, and where stage two goes."""

    # Heads on the frozen base.
    stage_one: Path
    output: Path
    new_base: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Joint:
    """How far a joint training is."""

    step: int
    of_steps: int
    # Of the last step.
    divergence: float = math.nan
    heads_loss: float = math.nan


def train_jointly(
    base: Base,
    states: HiddenStates,
    places: Places,
    settings: JointSettings,
    *,
    hold_out: tuple[float, int],
    observe: Callable[[Joint], None] = lambda _: None,
) -> Trained:
    """Train, write the new base and its heads; those that are there already are left alone.

    The base is altered: open it again for anything else.

    Args:
        base: The model on which stage one was trained.
        states: Its texts; of these only tokens and places are used, the hidden states are computed anew.
        places: Stage one, and the folders to write.
        settings: How.
        hold_out: Share and seed of the texts held out in stage one, which stay held out.
        observe: Is told after every step.

    Raises:
        HeadsError: Stage one is of another base, a folder is taken, or the loss is not finite.
    """
    first = read_record(places.stage_one).training
    asked = digest_json(
        {"base": base.fingerprint, "data": states.data, "settings": asdict(settings),
         "hold_out": [*hold_out], "stage_one": first.get("asked")}
    )  # fmt: skip
    earlier = _earlier(places, asked)
    if earlier is not None:
        return earlier
    run = _Run(base, states, places.stage_one, settings, hold_out)
    before = run.measured()
    checkpoint = places.output / CHECKPOINT
    standing = run.restore(checkpoint, asked)
    while standing.step < standing.of_steps:
        standing = run.step(standing)
        if standing.step % settings.save_every == 0 or standing.step == standing.of_steps:
            run.store(checkpoint, asked, standing)
            failpoint("heads.after_joint_step_saved")
        observe(standing)
    facts = {
        "method": "medusa-2",
        "asked": asked,
        **{name: first.get(name) for name in ("data", "tokens", "shortlist_coverage")},
        "settings": asdict(settings),
        "teacher": base.fingerprint,
        "steps": standing.step,
        "before": before,
        **run.measured(run.write_base(places.new_base)),
        "stage_one": dict(first),
    }
    run.write_heads(places, facts)
    checkpoint.unlink(missing_ok=True)
    return Trained(facts=facts)


def _earlier(places: Places, asked: str) -> Trained | None:
    """What is told of the same heads and base where both are there already."""
    if not (places.output / RECORD).is_file():
        if places.new_base.exists() and not (places.output / CHECKPOINT).is_file():
            raise HeadsError(f"{places.new_base}: is there already; give a folder that is free")
        return None
    record = read_record(places.output)
    if record.training.get("asked") != asked:
        raise HeadsError(
            f"{places.output}: holds heads of another base, other data or other settings;"
            " give a folder that is free"
        )
    if not places.new_base.is_dir() or fingerprint(places.new_base) != record.config.base:
        raise HeadsError(
            f"{places.new_base}: is not the base of {places.output}; restore it, or remove the heads too"
        )
    (places.output / CHECKPOINT).unlink(missing_ok=True)
    return Trained(facts=record.training, before=True)


class _Run:
    """The moving parts of one joint training."""

    def __init__(
        self,
        base: Base,
        states: HiddenStates,
        stage_one: Path,
        settings: JointSettings,
        hold_out: tuple[float, int],
    ) -> None:
        self._base, self._states, self._settings = base, states, settings
        self.heads = _trainable(load_heads(stage_one, base))
        share, seed = hold_out
        self._split = made.split_examples(states, self.heads.config.heads, hold_out=share, seed=seed)
        held_s = np.isin(np.arange(states.sequences), self._split.held_out_sequences)
        self._train_s = np.flatnonzero(~held_s)
        drafted_s = self.heads.shortlist.cpu().numpy()
        self._labels = [
            _by_row(part, made.labels(part, drafted_s, base.vocab_size), len(states.tokens_p))
            for part in (self._split.train, self._split.held_out)
        ]
        self._adapters = add_adapters(
            base.model, rank=settings.rank, alpha=settings.alpha, seed=settings.seed
        )
        self._parameters = [*self._adapters, *self.heads.parameters()]
        rates = (1.0, settings.heads_rate)
        self._optimiser = torch.optim.AdamW(
            [
                {"params": list(group), "rate": rate}
                for group, rate in zip((self._adapters, self.heads.parameters()), rates, strict=True)
            ],
            lr=settings.learning_rate,
            weight_decay=0.0,
        )

    @property
    def _steps_per_epoch(self) -> int:
        return -(-len(self._train_s) // self._settings.batch)

    def restore(self, path: Path, asked: str) -> Joint:
        """Where an earlier call stopped; the beginning where there was none."""
        stored = read_stored(path)
        if stored is None:
            return Joint(step=0, of_steps=self._steps_per_epoch * self._settings.epochs)
        if stored.asked != asked:
            raise HeadsError(
                f"{path.parent}: holds the beginning of another training; give a folder that is free,"
                " or remove it"
            )
        for each, tensor in zip(self._parameters, stored.parameters, strict=True):
            each.data.copy_(tensor)
        state = dict(enumerate(stored.optimiser))
        self._optimiser.load_state_dict({**self._optimiser.state_dict(), "state": state})
        return Joint(**json.loads(stored.standing))

    def store(self, path: Path, asked: str, standing: Joint) -> None:
        """Write everything that the next step depends on, whole."""
        state = self._optimiser.state_dict()["state"]
        write_stored(
            path,
            Stored(
                asked=asked,
                standing=json.dumps(asdict(standing)),
                parameters=[each.detach() for each in self._parameters],
                optimiser=[state[i] for i in range(len(self._parameters))],
            ),
        )

    def step(self, standing: Joint) -> Joint:
        """One step of the optimiser."""
        warmth = self._warm(standing)
        for group in self._optimiser.param_groups:
            group["lr"] = self._settings.learning_rate * group["rate"] * warmth
        self._optimiser.zero_grad(set_to_none=True)
        divergence, heads_loss = self._losses(self._texts(standing.step), self._labels[0])
        rising = min(1.0, (standing.step + 1) / self._rising(standing))
        loss = divergence + self._settings.heads_coefficient * rising * heads_loss
        if not math.isfinite(float(loss.detach())):
            raise HeadsError(
                f"step {standing.step + 1}: the loss is {float(loss)}; use a lower learning rate"
            )
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        return replace(
            standing, step=standing.step + 1, divergence=float(divergence.detach()),
            heads_loss=float(heads_loss.detach()),
        )  # fmt: skip

    def _rising(self, standing: Joint) -> int:
        return max(1, round(self._settings.warm_up * standing.of_steps))

    def _warm(self, standing: Joint) -> float:
        """The rate's share: up in a line, down by half a cosine."""
        rising = self._rising(standing)
        if standing.step < rising:
            return (standing.step + 1) / rising
        share = (standing.step - rising) / max(1, standing.of_steps - rising)
        return 0.5 * (1 + math.cos(math.pi * share))

    def _texts(self, step: int) -> NDArray[np.int64]:
        epoch, place = divmod(step, self._steps_per_epoch)
        chance = np.random.default_rng(self._settings.seed * _SEED_STEP + epoch)
        order_s = chance.permutation(self._train_s)
        return order_s[place * self._settings.batch : (place + 1) * self._settings.batch]

    def _losses(
        self, texts: NDArray[np.int64], labels_kp: NDArray[np.int64]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The mean divergence from the teacher where the model writes, and the heads' loss."""
        states_nh, teacher_nh, rows_n = self._both(texts, self._base)
        divergence = _divergences(self._base.logits(states_nh), self._base.logits(teacher_nh)).mean()
        labels_kn = torch.from_numpy(labels_kp[:, rows_n]).to(states_nh.device)
        counts_k = (labels_kn != NOTHING).sum(dim=1).clamp(min=1)
        weights_k = torch.tensor([DECAY**k for k in range(len(labels_kn))], device=states_nh.device)
        sums_k = head_losses(self.heads, states_nh, labels_kn)
        return divergence, (sums_k * weights_k / counts_k).sum()

    def _both(
        self, texts: Sequence[int] | NDArray[np.int64], student: Base
    ) -> tuple[torch.Tensor, torch.Tensor, Any]:
        """States of student and teacher before every token that the model writes, and their rows."""
        spans = [(int(self._states.starts_s[i]), int(self._states.starts_s[i + 1])) for i in texts]
        width = max(end - start for start, end in spans)
        ids_bn = torch.zeros((len(spans), width), dtype=torch.long)
        for row, (start, end) in enumerate(spans):
            ids_bn[row, : end - start] = torch.from_numpy(self._states.tokens_p[start:end].astype(np.int64))
        ids_bn = ids_bn.to(self._base.device)
        with torch.no_grad(), switched_off(self._base.model):
            teacher_bnh = self._base.hidden(ids_bn, use_cache=False)
        student_bnh = student.hidden(ids_bn, use_cache=False)
        chosen, rows = [], []
        for row, (start, end) in enumerate(spans):
            places = np.flatnonzero(self._states.learned_p[start + 1 : end])
            chosen.append(torch.from_numpy(places + row * width))
            rows.append(places + start)
        chosen_n = torch.cat(chosen).to(self._base.device)
        return student_bnh.flatten(0, 1)[chosen_n], teacher_bnh.flatten(0, 1)[chosen_n], np.concatenate(rows)

    def measured(self, student: Base | None = None) -> dict[str, Any]:
        """On held-out texts: divergence, how often the likeliest token is the teacher's, heads' accuracy.

        Of the base with its adapters on, or of the `student` that was written: its type may round them off.
        """
        count, rows = self.heads.config.heads, len(self._states.tokens_p)
        held = self._split.held_out
        tokens_kp = _by_row(held, held.tokens_kn, rows)
        divergence = same = positions = 0.0
        hits_kr, seen_k = np.zeros((count, RANKS)), np.zeros(count)
        with torch.inference_mode():
            for text in self._split.held_out_sequences:
                states_nh, teacher_nh, rows_n = self._both([int(text)], student or self._base)
                mine_nv, its_nv = self._base.logits(states_nh), self._base.logits(teacher_nh)
                divergence += float(_divergences(mine_nv, its_nv).sum())
                same += float((mine_nv.argmax(dim=-1) == its_nv.argmax(dim=-1)).sum())
                positions += len(rows_n)
                logits_kns = heads_logits(self.heads, states_nh).float()
                labels_kn = torch.from_numpy(self._labels[1][:, rows_n]).to(states_nh.device)
                for k in range(count):
                    hits_kr[k] += rank_hits(logits_kns[k], labels_kn[k])
                seen_k += (tokens_kp[:, rows_n] != NOTHING).sum(axis=1)
        top_kr = hits_kr / np.maximum(seen_k, 1)[:, None]
        return {
            "divergence": divergence / positions,
            "same_as_teacher": same / positions,
            "accuracy": Accuracy(loss=math.nan, top_kr=top_kr).rounded(),
        }

    def write_base(self, folder: Path) -> Base:
        """Write the new base, whole or not at all, and open it."""
        write_merged(self._base, folder)
        dtype = str(self._base.dtype).removeprefix("torch.")
        return Base.open(folder, dtype=dtype, device=str(self._base.device))

    def write_heads(self, places: Places, facts: dict[str, Any]) -> None:
        """Write the heads as those of the new base."""
        told = asdict(self.heads.config) | {
            "base": fingerprint(places.new_base), "base_name": str(places.new_base.absolute()),
        }  # fmt: skip
        short = self.heads.shortlist if self.heads.config.shortlisted else None
        renamed = _trainable(Heads(HeadsConfig(**told), self._base.projection_vh, short))
        renamed.load(self.heads.tensors(), place=str(places.output))
        held_out = places.stage_one / HELD_OUT
        if held_out.is_file():
            write_whole(places.output / HELD_OUT, held_out.read_bytes())
        failpoint("heads.before_joint_written")
        save_heads(renamed, places.output, facts)


def _trainable(heads: Heads) -> Heads:
    """With parameters in float32 that learn."""
    for each in heads.requires_grad_(True).parameters():
        each.data = each.data.float()
    return heads.train()


def _by_row(examples: made.Examples, values_kn: NDArray[np.int64], rows: int) -> NDArray[np.int64]:
    """Values of examples by the row of the states, [heads, rows]; NOTHING elsewhere."""
    values_kp = np.full((len(values_kn), rows), NOTHING, np.int64)
    values_kp[:, examples.positions_n] = values_kn
    return values_kp


def _divergences(student_nv: torch.Tensor, teacher_nv: torch.Tensor) -> torch.Tensor:
    """KL(teacher || student) of each row, [n]."""
    its_nv = torch.log_softmax(teacher_nv.float(), dim=-1)
    mine_nv = torch.log_softmax(student_nv.float(), dim=-1)
    return (its_nv.exp() * (its_nv - mine_nv)).sum(dim=-1)
