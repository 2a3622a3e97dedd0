"""From a base and texts to a folder of heads; each part goes on where it was stopped.

What is made on the way lies in a folder of its own, where other heads on the same base and data find it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from modelyard.core.digests import digest_json
from modelyard.core.errors import HeadsError
from modelyard.core.locks import held
from modelyard.heads.base import Base
from modelyard.heads.learning.data import Corpus, corpus_of, read_corpus
from modelyard.heads.learning.hidden_states import HiddenStates, cache_states
from modelyard.heads.learning.joint import JointSettings, Places, train_jointly
from modelyard.heads.learning.self_distillation import DistilSettings, self_distil
from modelyard.heads.learning.topics import DEFAULT_TOPICS, Topic, read_topics
from modelyard.heads.learning.training import Trained, TrainingSettings, train

#: Where in the work folder the base writes its own data.
CONVERSATIONS = "conversations.jsonl"
WRITING, READING, TRAINING, JOINT = "writing", "reading", "training", "joint"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What heads are wanted, and of what."""

    base: Path
    output: Path
    # JSON lines; see `data`.
    data: Path | None = None
    # How the base writes data of its own, where it does.
    self_distillation: DistilSettings | None = None
    # JSON lines; see `topics`.
    topics: Path | None = None
    # Where data and states are kept; beside the output where it is None.
    work: Path | None = None
    dtype: str = "float32"
    device: str = "cpu"
    most_tokens: int = 1024
    training: TrainingSettings = field(default_factory=TrainingSettings)
    # How base and heads are trained together after that, where they are.
    joint: JointSettings | None = None
    # The folder of the base that comes of it; beside the output where it is None.
    new_base: Path | None = None

    @property
    def work_folder(self) -> Path:
        """Where data and states are kept."""
        return self.output.with_name(f"{self.output.name}.work") if self.work is None else self.work

    @property
    def new_base_folder(self) -> Path:
        """Where a new base goes."""
        return self.output.with_name(f"{self.output.name}.base") if self.new_base is None else self.new_base


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far the making is."""

    stage: str
    done: int
    total: int
    # What is counted, and how it goes.
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the making would take, as far as it can be told without running the base."""

    base: str
    texts: int
    tokens: int
    # Of the hidden states on the disk.
    state_bytes: int
    head_parameters: int
    warnings: Sequence[str] = ()


Told = Callable[[Progress], None]


def make_heads(order: Order, *, clock: Callable[[], float], observe: Told = lambda _: None) -> Trained:
    """Carry out an order; one that was carried out before is left alone.

    Args:
        order: What is wanted.
        clock: Seconds, of which differences are taken.
        observe: Is told after every piece of work.

    Raises:
        HeadsError: It cannot be carried out, or another process is at it.
        DocumentError: With every fault of the data.
    """
    topics = _checked(order)
    order.work_folder.mkdir(parents=True, exist_ok=True)
    try:
        with held(order.work_folder / "lock"):
            base = Base.open(order.base, dtype=order.dtype, device=order.device)
            states = _states(base, _corpus(base, order, topics, observe), order, observe)
            stage_one = (
                order.output if order.joint is None else order.work_folder / _stage_name(states, order)
            )
            trained = train(
                states, stage_one, order.training, clock=clock, device=order.device,
                observe=lambda each: observe(
                    Progress(stage=TRAINING, done=each.step, total=each.of_steps, note=_losses(each.curve))
                ),
            )  # fmt: skip
            return trained if order.joint is None else _together(base, states, stage_one, order, observe)
    except BlockingIOError as error:
        raise HeadsError(
            f"{order.work_folder}: another process works there; wait for it, or give another --work"
        ) from error


def _stage_name(states: HiddenStates, order: Order) -> str:
    told = [states.base, states.data, states.dtype, asdict(order.training)]
    return f"stage-one-{digest_json(told).removeprefix('sha256:')[:16]}"


def _together(base: Base, states: HiddenStates, stage_one: Path, order: Order, observe: Told) -> Trained:
    """Stage two."""
    places = Places(stage_one=stage_one, output=order.output, new_base=order.new_base_folder)
    return train_jointly(
        base, states, places, order.joint or JointSettings(),
        hold_out=(order.training.hold_out, order.training.seed),
        observe=lambda each: observe(
            Progress(
                stage=JOINT, done=each.step, total=each.of_steps,
                note=f"divergence {each.divergence:.5f}, heads' loss {each.heads_loss:.4f}",
            )
        ),
    )  # fmt: skip


def plan_heads(order: Order) -> Plan:
    """Check an order as far as that goes without running the base.

    Raises:
        HeadsError: It cannot be carried out.
        DocumentError: With every fault of the data.
    """
    _checked(order)
    base = Base.open(order.base, dtype=order.dtype, device=order.device)
    corpus = _given(base, order)
    wanted = order.self_distillation.answer_tokens if order.self_distillation else 0
    positions = sum(map(len, corpus.sequences)) if corpus else 0
    settings = order.training
    own = settings.projection == "own"
    each = settings.layers * base.hidden_size * (base.hidden_size + 1)
    each += min(settings.shortlist, base.vocab_size) * base.hidden_size if own else 0
    return Plan(
        base=base.fingerprint,
        texts=len(corpus.sequences) if corpus else 0,
        tokens=(corpus.learned_tokens if corpus else 0) + wanted,
        state_bytes=(positions + wanted) * base.hidden_size * base.dtype.itemsize,
        head_parameters=settings.heads * each,
        warnings=_warnings(corpus),
    )


def _checked(order: Order) -> Sequence[Topic]:
    """The topics; refuses an order without anything to learn from."""
    if order.data is None and order.self_distillation is None:
        raise HeadsError("there is nothing to learn from; give --data FILE or --self-distill TOKENS")
    if order.topics is not None and order.self_distillation is None:
        raise HeadsError(f"{order.topics}: topics are for --self-distill; give that too, or leave them out")
    return DEFAULT_TOPICS if order.topics is None else read_topics(order.topics)


def _corpus(base: Base, order: Order, topics: Sequence[Topic], observe: Told) -> Corpus:
    """What is given, and what the base wrote."""
    corpora = [each for each in (_given(base, order),) if each is not None]
    if order.self_distillation is not None:
        path, wanted = order.work_folder / CONVERSATIONS, order.self_distillation.answer_tokens
        self_distil(
            base, path, order.self_distillation, topics=topics,
            observe=lambda each: observe(
                Progress(
                    stage=WRITING, done=min(each.answer_tokens, wanted), total=wanted,
                    note=f"{each.conversations} conversations",
                )
            ),
        )  # fmt: skip
        corpora.append(_read(base, path, order))
    sequences = [sequence for corpus in corpora for sequence in corpus.sequences]
    return corpus_of(sequences, place=str(order.data or order.work_folder))


def _given(base: Base, order: Order) -> Corpus | None:
    return None if order.data is None else _read(base, order.data, order)


def _read(base: Base, path: Path, order: Order) -> Corpus:
    return read_corpus(path, base.tokenizer, ends=base.end_tokens, most_tokens=order.most_tokens)


def _states(base: Base, corpus: Corpus, order: Order, observe: Told) -> HiddenStates:
    name = digest_json([base.fingerprint, corpus.digest, order.dtype]).removeprefix("sha256:")[:16]
    return cache_states(
        base, corpus, order.work_folder / f"states-{name}",
        observe=lambda each: observe(
            Progress(stage=READING, done=each.positions, total=each.of_positions, note="positions")
        ),
    )  # fmt: skip


def _losses(curve: Sequence[Any]) -> str:
    return f"held-out loss {curve[-1].held_out_loss:.4f}" if curve else ""


def _warnings(corpus: Corpus | None) -> list[str]:
    if corpus is None or not corpus.cut:
        return []
    return [f"{corpus.cut} texts are longer than --longest and are cut at their end"]
