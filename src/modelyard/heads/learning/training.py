"""Medusa-1: heads trained on a frozen base's hidden states (arXiv 2401.10774, section 2.2.1).

The loss is the sum over heads of 0.8^k times the mean cross entropy of head k. Nothing here runs the base.
Every so many steps heads, optimiser and standing go to one file, so that a training that was killed goes on
to the same bits; which positions come when depends on the seed alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
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
from modelyard.heads.config import RECORD, HeadsConfig, Projection, read_record
from modelyard.heads.learning import examples as made
from modelyard.heads.learning.accuracy import DECAY, hard_losses, heads_logits, measure, soft_losses
from modelyard.heads.learning.hidden_states import HiddenStates
from modelyard.heads.learning.training_state import CHECKPOINT, Stored, read_stored, write_stored
from modelyard.heads.model import Heads, save_heads

#: The texts that were not trained on, in the folder of the heads.
HELD_OUT = "held_out.jsonl"
_SEED_STEP = 1_000_003


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSettings:
    """How heads are trained."""

    heads: int = 4
    layers: int = 1
    projection: Projection = "shared"
    # Tokens that can be drafted.
    shortlist: int = 8192
    epochs: int = 4
    learning_rate: float = 1e-3
    # Positions of one pass, and passes to one step of the optimiser.
    batch: int = 512
    accumulate: int = 1
    # Weight of the base's own distribution as a target beside the token that came; see `soft_losses`.
    soft: float = 0.0
    # Share of the steps over which the rate rises.
    warm_up: float = 0.05
    weight_decay: float = 0.0
    # Share of the texts that is held out.
    hold_out: float = 0.1
    # Measurements without a better held-out loss before it stops; each epoch has `measurements` of them.
    patience: int = 3
    measurements: int = 2
    # Steps between two checkpoints.
    save_every: int = 50
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """How the heads did at one step."""

    step: int
    train_loss: float
    held_out_loss: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How far a training is."""

    step: int = 0
    of_steps: int
    # Mean loss of the steps since the last measurement: its sum, and how many.
    loss_sum: float = 0.0
    losses: int = 0
    curve: Sequence[Measurement] = ()
    best_step: int = 0
    # Of all calls that had a part in it.
    seconds: float = 0.0
    # No measurement was better for as long as patience goes.
    stopped: bool = False

    @property
    def ended(self) -> bool:
        """Whether there is nothing left to do."""
        return self.stopped or self.step >= self.of_steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What came of it."""

    # What the record of the heads tells: data, curve, accuracy on held-out texts by head and rank.
    facts: Mapping[str, Any]
    # An earlier call had ended it.
    before: bool = False


Told = Callable[[Standing], None]


def train(
    states: HiddenStates,
    output: Path,
    settings: TrainingSettings,
    *,
    clock: Callable[[], float],
    observe: Told = lambda _: None,
    device: str = "cpu",
) -> Trained:
    """Train heads and write them to `output`; what an earlier call left there is gone on with.

    Args:
        states: Of the base on the texts.
        output: The folder of the heads.
        settings: How.
        clock: Seconds, of which differences are taken.
        observe: Is told after every step.
        device: Of torch, where the heads learn.

    Raises:
        HeadsError: The folder holds other heads, the texts do not suffice, or the loss is not finite.
    """
    asked = digest_json({"states": [states.base, states.data, states.dtype], "settings": asdict(settings)})
    path = output / CHECKPOINT
    earlier = _earlier(output, asked)
    if earlier is None:
        run = _Run(states, settings, device)
        facts = {"asked": asked, **_carry_out(run, path, asked, clock, observe)}
        failpoint("heads.before_written")
        write_whole(output / HELD_OUT, run.held_out())
        save_heads(run.heads, output, facts)
        failpoint("heads.after_written")
    path.unlink(missing_ok=True)
    return Trained(facts=facts) if earlier is None else Trained(facts=earlier, before=True)


def _carry_out(
    run: _Run, path: Path, asked: str, clock: Callable[[], float], observe: Told
) -> dict[str, Any]:
    """Train to the end; what is told of it."""
    standing = run.restore(path, asked)
    begun, before = clock(), standing.seconds
    while not standing.ended:
        standing = replace(run.step(standing), seconds=before + clock() - begun)
        if standing.step % run.settings.save_every == 0 or standing.ended:
            run.store(path, asked, standing)
            failpoint("heads.after_step_saved")
        observe(standing)
    return run.ended(standing)


def _earlier(output: Path, asked: str) -> Mapping[str, Any] | None:
    """What is told of the same heads where they are there already."""
    if not (output / RECORD).is_file():
        return None
    facts = read_record(output).training
    if facts.get("asked") != asked:
        raise HeadsError(
            f"{output}: holds heads of another base, other data or other settings; give a folder that is free"
        )
    return facts


def learning_rate(settings: TrainingSettings, step: int, of_steps: int) -> float:
    """Up in a line, then down to nothing by half a cosine; `step` counts from 0."""
    rising = max(1, round(settings.warm_up * of_steps))
    if step < rising:
        return settings.learning_rate * (step + 1) / rising
    share = (step - rising) / max(1, of_steps - rising)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * share))


class _Run:
    """The moving parts of one training."""

    def __init__(self, states: HiddenStates, settings: TrainingSettings, device: str) -> None:
        self._states, self.settings = states, settings
        self._split = made.split_examples(
            states, settings.heads, hold_out=settings.hold_out, seed=settings.seed
        )
        vocab_size, hidden_size = states.projection_vh.shape
        self._drafted_s = made.shortlist(states, self._split.train, settings.shortlist)
        short = None if len(self._drafted_s) == vocab_size else torch.from_numpy(self._drafted_s)
        config = HeadsConfig(
            heads=settings.heads, layers=settings.layers, hidden_size=hidden_size, vocab_size=vocab_size,
            projection=settings.projection, drafted=len(self._drafted_s), base=states.base,
            base_name=states.base_name,
        )  # fmt: skip
        self.heads = Heads(config, states.projection_vh, short).to(device)
        for each in self.heads.projections:  # the base's type may be too coarse for small steps
            each.data = each.data.float()
        self._labels_kn = made.labels(self._split.train, self._drafted_s, vocab_size)
        self._held_labels_kn = made.labels(self._split.held_out, self._drafted_s, vocab_size)
        self._trainable = [each for each in self.heads.parameters() if each.requires_grad]
        self._optimiser = torch.optim.AdamW(
            self._trainable, lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self._best: dict[str, torch.Tensor] = {}
        self._order: tuple[int, NDArray[np.int64]] = (-1, np.zeros(0, np.int64))

    @property
    def _steps_per_epoch(self) -> int:
        return -(-len(self._split.train) // (self.settings.batch * self.settings.accumulate))

    def restore(self, path: Path, asked: str) -> Standing:
        """Where an earlier call stopped; the beginning where there was none."""
        stored = read_stored(path)
        fresh = Standing(of_steps=self._steps_per_epoch * self.settings.epochs)
        if stored is None:
            return fresh
        if stored.asked != asked:
            raise HeadsError(
                f"{path.parent}: holds the beginning of another training; give a folder that is free,"
                " or remove it"
            )
        self._best = dict(stored.best)
        for each, tensor in zip(self._trainable, stored.parameters, strict=True):
            each.data.copy_(tensor)
        self._optimiser.load_state_dict(
            {**self._optimiser.state_dict(), "state": dict(enumerate(stored.optimiser))}
        )
        told = json.loads(stored.standing)
        return Standing(**{**told, "curve": tuple(Measurement(**each) for each in told["curve"])})

    def store(self, path: Path, asked: str, standing: Standing) -> None:
        """Write everything that the next step depends on, whole."""
        state = self._optimiser.state_dict()["state"]
        stored = Stored(
            asked=asked,
            standing=json.dumps(asdict(standing)),
            parameters=[each.detach() for each in self._trainable],
            optimiser=[state[i] for i in range(len(self._trainable))],
            best=self._best,
        )
        write_stored(path, stored)

    def step(self, standing: Standing) -> Standing:
        """One step of the optimiser, and a measurement where one is due."""
        loss = self._learn(standing.step, standing.of_steps)
        after = replace(
            standing, step=standing.step + 1, loss_sum=standing.loss_sum + loss, losses=standing.losses + 1
        )
        every = max(1, self._steps_per_epoch // self.settings.measurements)
        return self._measured(after) if after.step % every == 0 or after.ended else after

    def _learn(self, step: int, of_steps: int) -> float:
        rows_n = self._rows(step)
        labels_kn = torch.from_numpy(self._labels_kn[:, rows_n])
        there_kn = torch.from_numpy(self._split.train.tokens_kn[:, rows_n] != made.NOTHING)
        hard_k, soft_k = self._weights(labels_kn != made.NOTHING), self._weights(there_kn)
        for group in self._optimiser.param_groups:
            group["lr"] = learning_rate(self.settings, step, of_steps)
        self._optimiser.zero_grad(set_to_none=True)
        total = 0.0
        for start in range(0, len(rows_n), self.settings.batch):
            part = slice(start, start + self.settings.batch)
            positions_n = torch.from_numpy(self._split.train.positions_n[rows_n[part]])
            logits_kns = heads_logits(self.heads, self._states.states_ph[positions_n])
            loss = (1 - self.settings.soft) * (hard_losses(logits_kns, labels_kn[:, part]) * hard_k).sum()
            if self.settings.soft:
                states_knh = self._later(positions_n)
                sums_k = soft_losses(self.heads, logits_kns, states_knh, there_kn[:, part])
                loss = loss + self.settings.soft * (sums_k * soft_k).sum()
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        if not math.isfinite(total):
            raise HeadsError(f"step {step + 1}: the loss is {total}; use a lower learning rate")
        self._optimiser.step()
        return total

    def _weights(self, counted_kn: torch.Tensor) -> torch.Tensor:
        """What a position of each head counts, [heads]."""
        decay_k = torch.tensor([DECAY**k for k in range(self.settings.heads)])
        return (decay_k / counted_kn.sum(dim=1).clamp(min=1)).to(self.heads.shortlist.device)

    def _later(self, positions_n: torch.Tensor) -> torch.Tensor:
        """The base's states from which head k's tokens come, [heads, n, hidden]; any past the last row."""
        last = len(self._states.states_ph) - 1
        return torch.stack(
            [
                self._states.states_ph[(positions_n + k + 1).clamp(max=last)]
                for k in range(self.settings.heads)
            ]
        )

    def _rows(self, step: int) -> NDArray[np.int64]:
        """Which examples a step learns from: every epoch has an order of its own."""
        epoch, place = divmod(step, self._steps_per_epoch)
        if self._order[0] != epoch:
            chance = np.random.default_rng(self.settings.seed * _SEED_STEP + epoch)
            self._order = (epoch, chance.permutation(len(self._split.train)))
        size = self.settings.batch * self.settings.accumulate
        return self._order[1][place * size : (place + 1) * size]

    def _measured(self, standing: Standing) -> Standing:
        held = self._split.held_out
        loss = measure(self.heads, self._states, held, self._held_labels_kn).loss
        curve = (
            *standing.curve,
            Measurement(
                step=standing.step, train_loss=standing.loss_sum / standing.losses, held_out_loss=loss
            ),
        )
        best = min(curve, key=lambda each: each.held_out_loss)
        if best.step == standing.step:
            self._best = {name: each.detach().clone() for name, each in self.heads.state_dict().items()}
        since = sum(each.step > best.step for each in curve)
        return replace(
            standing, curve=curve, best_step=best.step, loss_sum=0.0, losses=0,
            stopped=since >= self.settings.patience,
        )  # fmt: skip

    def held_out(self) -> str:
        """The texts held out, as JSON lines."""
        lines = made.held_out_lines(self._states, self._split)
        return "".join(json.dumps(line) + "\n" for line in lines)

    def ended(self, standing: Standing) -> dict[str, Any]:
        """Take the heads of the best measurement; what is told of them."""
        self.heads.load_state_dict(self._best)
        self.heads.eval()
        accuracy = measure(self.heads, self._states, self._split.held_out, self._held_labels_kn)
        return {
            "method": "medusa-1",
            **made.facts(self._states, self._split, self._drafted_s),
            "settings": asdict(self.settings),
            "dtype": self._states.dtype,
            "steps": standing.step,
            "best_step": standing.best_step,
            "stopped_early": standing.stopped,
            "curve": [asdict(each) for each in standing.curve],
            "held_out_loss": accuracy.loss,
            "accuracy": accuracy.rounded(),
            "seconds": round(standing.seconds, 3),
        }
