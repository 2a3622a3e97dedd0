"""Decoding with heads: draft a tree, check it in one forward pass, keep what is right.

With no heads and no lookup this is plain decoding with the same cache and the same choice of tokens: what a
comparison is made against. In float32 both give the same tokens; see `docs/heads.md` for bfloat16.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modelyard.core.errors import HeadsError
from modelyard.heads.attention import STRETCH
from modelyard.heads.base import Base
from modelyard.heads.config import TREE
from modelyard.heads.decoding.acceptance import Chooser
from modelyard.heads.decoding.cache import BlockCache
from modelyard.heads.decoding.drafting import Candidates, Memory, drafted
from modelyard.heads.decoding.sequence import Emit, GrowingSequence
from modelyard.heads.decoding.settings import DecodeSettings, Processor
from modelyard.heads.decoding.text_stream import TextStream
from modelyard.heads.model import Heads, load_heads
from modelyard.heads.tree import Tree, ancestry, depths
from modelyard.heads.tree_files import tree_in

#: Rows of a pass where they are fixed: one tile of a matrix unit, by which a row hangs on no other.
FIXED_ROWS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """What was decoded for one prompt."""

    tokens: tuple[int, ...]
    text: str
    # "stop" after an end token or a stop string, "length" otherwise.
    finish: str
    # Forward passes of the base, that over the prompt included.
    passes: int
    # How often so many drafted tokens were accepted in a pass.
    accepted: Mapping[int, int]
    # Of the whole batch.
    wall_s: float
    cpu_s: float

    @property
    def tokens_per_pass(self) -> float:
        """Tokens for each pass after that over the prompt, which gives one too; 1 for plain decoding."""
        return (len(self.tokens) - 1) / (self.passes - 1) if self.passes > 1 else 1.0


class Decoder:
    """A base with heads on it, or without.

    Args:
        base: The model.
        heads: On it; None leaves the drafts to prompt lookup.
        tree: The ranks to check; None checks nothing but what lookup finds.
        fixed_rows: So many rows in every pass, by which in bfloat16 too the tokens are the same whatever is
            drafted, and for every tree that fits; 0 takes as many as there are nodes. See `attention`.
        most_rows: So many rows of a pass that checks drafts, over all prompts of a batch; 0 is no limit.
    """

    def __init__(
        self, base: Base, heads: Heads | None = None, tree: Tree | None = None, *, fixed_rows: int = 0,
        most_rows: int = 0,
    ) -> None:  # fmt: skip
        self.base, self.heads, self.fixed_rows, self.most_rows = base, heads, fixed_rows, most_rows
        self.tree = Tree(paths=()) if tree is None or heads is None else tree
        if heads is not None:
            _refuse_unfit(self.tree, heads, place="the tree")

    def with_heads(self) -> Heads:
        """The heads.

        Raises:
            HeadsError: There are none.
        """
        if self.heads is None:
            raise HeadsError(f"{self.base.folder}: no heads are given; give a folder of heads")
        return self.heads

    def generate(
        self, ids: Sequence[int], settings: DecodeSettings, emit: Emit | None = None,
        processors: Sequence[Processor] = (),
    ) -> Decoded:  # fmt: skip
        """Continue one prompt; see `generate_batch`."""
        return self.generate_batch([ids], settings, emit=emit, processors=processors)[0]

    @torch.inference_mode()
    def generate_batch(
        self, prompts: Sequence[Sequence[int]], settings: DecodeSettings, *, emit: Emit | None = None,
        processors: Sequence[Processor] = (),
    ) -> list[Decoded]:  # fmt: skip
        """Continue prompts, each by its own random numbers, as if each were alone.

        Args:
            prompts: Tokens.
            settings: How.
            emit: Told the text of the first one as it grows.
            processors: Of transformers, applied where it applies a caller's: after penalties, before
                temperature, top_k and top_p. They see no text beyond its end token.

        Raises:
            HeadsError: A prompt is empty, or longer than the model can read together with what is to be made.
        """
        if not prompts:
            return []
        if self.fixed_rows and len(prompts) > 1:  # the rows of one batch are those of one matrix
            return [
                self._alone(number, ids, settings, emit, processors) for number, ids in enumerate(prompts)
            ]
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        run = self.begin(prompts, settings, emit=emit, processors=processors)
        while run.active:
            run.advance()
        spent = (time.perf_counter() - wall_s, time.process_time() - cpu_s)
        return [_result(each, spent) for each in run.sequences]

    def _alone(
        self, number: int, ids: Sequence[int], settings: DecodeSettings, emit: Emit | None,
        processors: Sequence[Processor],
    ) -> Decoded:  # fmt: skip
        own = replace(settings, seed=settings.seed + number)
        return self.generate(ids, own, emit if number == 0 else None, processors)

    def begin(
        self, prompts: Sequence[Sequence[int]], settings: DecodeSettings, *, emit: Emit | None = None,
        processors: Sequence[Processor] = (),
    ) -> Run:  # fmt: skip
        """Read prompts; see `generate_batch`."""
        sequences = [
            self._sequence(number, ids, settings, emit=emit if number == 0 else None, processors=processors)
            for number, ids in enumerate(prompts)
        ]
        longest = max(map(len, prompts), default=0)
        cache = BlockCache(
            layers=int(self.base.model.config.get_text_config().num_hidden_layers),
            capacity=longest + settings.max_new_tokens + self._rows(settings),
        )
        return Run(self, sequences, cache)

    def _rows(self, settings: DecodeSettings) -> int:
        """The most rows of a pass."""
        rows = max(self.tree.size, settings.lookup) + 1
        if self.fixed_rows and rows > self.fixed_rows:
            raise HeadsError(
                f"a tree of {self.tree.size} nodes and {settings.lookup} places for lookup need {rows} rows,"
                f" passes have {self.fixed_rows}; choose a smaller tree, or look up less"
            )
        return max(rows, self.fixed_rows)

    @cached_property
    def _own(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self._geometry(self.tree.parents)

    def geometry(self, candidates: Candidates) -> tuple[torch.Tensor, torch.Tensor]:
        """How far each row is from the root, [n + 1]; what is added to its scores, [n + 1, n + 1]."""
        if not candidates.plain:
            return self._geometry(candidates.parents)
        rows = len(candidates.tokens) + 1  # the first nodes of a tree are a tree
        return self._own[0][:rows], self._own[1][:rows, :rows]

    def _geometry(self, parents: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        device, lowest = self.base.device, torch.finfo(self.base.dtype).min
        seen = torch.from_numpy(ancestry(parents)).to(device)
        mask_nn = torch.zeros(seen.shape, dtype=self.base.dtype, device=device).masked_fill(~seen, lowest)
        return torch.from_numpy(depths(parents)).to(device), mask_nn

    def _sequence(
        self, number: int, ids: Sequence[int], settings: DecodeSettings, *, emit: Emit | None,
        processors: Sequence[Processor],
    ) -> GrowingSequence:  # fmt: skip
        most, ahead = self.base.most_tokens, max(self.tree.depth, settings.lookup)
        if not ids or (most is not None and len(ids) + settings.max_new_tokens + ahead > most):
            raise HeadsError(
                f"prompt {number} has {len(ids)} tokens, and {settings.max_new_tokens} new ones and"
                f" {ahead} of a draft are asked for: the model reads from 1 to {most}; shorten the prompt,"
                " or ask for fewer tokens"
            )
        end_tokens = self.base.end_tokens
        made = settings.processors(asked=len(ids), end_tokens=sorted(end_tokens), own=processors)
        ends = frozenset() if settings.ignore_end else end_tokens
        generator = torch.Generator().manual_seed(settings.seed + number)
        return GrowingSequence(
            ids=list(ids), chooser=Chooser(settings, made, generator, ends),
            stream=TextStream(self.base.tokenizer, settings.stop),
            memory=Memory(ids) if settings.lookup else None, settings=settings, end_tokens=end_tokens,
            emit=emit,
        )  # fmt: skip


class Run:
    """Prompts under way: `advance` until none is active."""

    def __init__(self, decoder: Decoder, sequences: Sequence[GrowingSequence], cache: BlockCache) -> None:
        self.sequences = tuple(sequences)
        self.active = list(sequences)
        self._decoder, self._base, self._cache = decoder, decoder.base, cache
        with torch.inference_mode():
            # Behind the last token of each: [batch, hidden].
            self._hidden_bh = self._read_prompts()
            self._drop_ended()

    @torch.inference_mode()
    def advance(self) -> None:
        """Draft, check and keep, in one forward pass over all that are active."""
        candidates = self._candidates()
        hidden_bnh = self._base.hidden(self._rows(candidates), **self._inputs(candidates))
        logits_bnv = self._base.logits(hidden_bnh)
        walks = [
            each.chooser.walk(logits_bnv[row], candidates[row], each.ids)
            for row, each in enumerate(self.active)
        ]
        for each, walk in zip(self.active, walks, strict=True):
            each.passes += 1
            taken = each.take(walk.tokens)
            each.accepted[min(taken, len(walk.nodes) - 1)] += 1
        self._cache.commit([walk.nodes for walk in walks])
        last = torch.tensor([walk.nodes[-1] for walk in walks], device=self._base.device)
        self._hidden_bh = hidden_bnh[torch.arange(len(walks), device=self._base.device), last]
        self._drop_ended()

    def _read_prompts(self) -> torch.Tensor:
        """One pass over the prompts, which gives each its first token."""
        device, lengths = self._base.device, [len(each.ids) for each in self.active]
        ids_bn = torch.zeros((len(lengths), max(lengths)), dtype=torch.long)
        for row, each in enumerate(self.active):
            ids_bn[row, : lengths[row]] = torch.tensor(each.ids)
        self._cache.begin([0] * len(lengths))
        # padding stands behind each prompt, where causal attention does not look
        hidden_bnh = self._base.hidden(ids_bn.to(device), **self._cached())
        self._cache.begin(lengths)
        rows = torch.arange(len(lengths), device=device)
        hidden_bh = hidden_bnh[rows, torch.tensor(lengths, device=device) - 1]
        logits_bv = self._base.logits(hidden_bh)
        none = Candidates(tokens=(), parents=())
        for row, each in enumerate(self.active):
            each.take(each.chooser.walk(logits_bv[row : row + 1], none, each.ids).tokens)
        return hidden_bh

    def _candidates(self) -> list[Candidates]:
        if self._crosses_stretches():
            return [Candidates(tokens=(), parents=()) for _ in self.active]
        heads, places = self._decoder.heads, self._places()
        tree = self._decoder.tree.first(places)
        drafts_kbr = np.zeros((0, len(self.active), 0), dtype=np.int64)
        if heads is not None and tree.size:
            drafts_kbr = heads.drafts(self._hidden_bh, tree.ranks, heads=tree.depth).cpu().numpy()
        return [
            drafted(tree, drafts_kbr[:, row], each.continuation()[:places])
            for row, each in enumerate(self.active)
        ]

    def _places(self) -> int:
        """Nodes for each sequence."""
        wanted, most = max(self._decoder.tree.size, self.active[0].settings.lookup), self._decoder.most_rows
        shared = max(most, self.active[0].settings.lookup + 1) // len(self.active) - 1
        return min(wanted, max(shared, 0)) if most else wanted

    def _crosses_stretches(self) -> bool:
        """Whether a draft might be summed in another stretch than where plain decoding has it."""
        rows, length = self._decoder.fixed_rows, max(self._cache.lengths)
        return bool(rows) and length // STRETCH != (length + rows - 1) // STRETCH

    def _rows(self, candidates: Sequence[Candidates]) -> torch.Tensor:
        """The tokens of all nodes, [batch, rows]; a sequence with fewer has zeros behind them."""
        rows = self._count(candidates)
        ids_bn = torch.zeros((len(candidates), rows), dtype=torch.long)
        for row, (each, drafts) in enumerate(zip(self.active, candidates, strict=True)):
            ids_bn[row, : len(drafts.tokens) + 1] = torch.tensor([each.ids[-1], *drafts.tokens])
        return ids_bn.to(self._base.device)

    def _inputs(self, candidates: Sequence[Candidates]) -> dict[str, Any]:
        """Cache, positions [batch, rows] and, where there is a tree, the mask [batch, 1, rows, keys]."""
        lengths, device, rows = self._cache.lengths, self._base.device, self._count(candidates)
        if len(lengths) == 1 and rows == 1:
            return self._cached() | {"position_ids": torch.tensor([lengths], device=device)}
        lowest = torch.finfo(self._base.dtype).min
        positions_bn = torch.zeros((len(lengths), rows), dtype=torch.long, device=device)
        mask_b1nk = torch.full(
            (len(lengths), 1, rows, max(lengths) + rows), lowest, dtype=self._base.dtype, device=device
        )
        for row, (drafts, length) in enumerate(zip(candidates, lengths, strict=True)):
            depths_n, mask_nn = self._decoder.geometry(drafts)
            count = len(depths_n)
            positions_bn[row, :count] = depths_n + length
            mask_b1nk[row, 0, :, :length] = 0
            mask_b1nk[row, 0, :count, length : length + count] = mask_nn
        return self._cached() | {"position_ids": positions_bn, "attention_mask": mask_b1nk}

    def _count(self, candidates: Sequence[Candidates]) -> int:
        """The rows of a pass."""
        return max(self._decoder.fixed_rows, *(len(each.tokens) + 1 for each in candidates))

    def _cached(self) -> dict[str, Any]:
        return {self._base.cache_word: self._cache, "use_cache": True}

    def _drop_ended(self) -> None:
        """Take those that have ended out of the batch; the last ones take their places."""
        rows = list(range(len(self.active)))
        for row in reversed(rows.copy()):
            if self.active[row].finish:
                self._cache.drop(row)
                rows[row], self.active[row] = rows[-1], self.active[-1]
                del rows[-1], self.active[-1]
        self._hidden_bh = self._hidden_bh[rows]


def _refuse_unfit(tree: Tree, heads: Heads, *, place: str) -> None:
    if tree.depth > heads.config.heads or tree.ranks > heads.config.drafted:
        raise HeadsError(
            f"{place}: looks at {tree.depth} heads and {tree.ranks} ranks, there are {heads.config.heads}"
            f" heads and {heads.config.drafted} tokens; choose another by `heads tree`"
        )


def _result(sequence: GrowingSequence, spent: tuple[float, float]) -> Decoded:
    return Decoded(
        tokens=tuple(sequence.made), text=sequence.stream.text, finish=sequence.finish,
        passes=sequence.passes, accepted=dict(sorted(sequence.accepted.items())), wall_s=spent[0],
        cpu_s=spent[1],
    )  # fmt: skip


def open_decoder(
    base: Path, heads: Path | None, *, dtype: str = "float32", device: str = "cpu", exact: bool = False
) -> Decoder:
    """Load a base and a folder of heads, with the tree that the folder has; a chain where it has none.

    Args:
        base: The model's folder.
        heads: The heads' folder; None decodes plainly.
        dtype: What it is computed in.
        device: Of torch.
        exact: In other types than float32 too, let the tokens not hang on what is drafted.

    Raises:
        HeadsError: They do not belong together, or one of them cannot be read.
    """
    fixed = exact and dtype != "float32"
    opened = Base.open(base, dtype=dtype, device=device, fixed_sums=fixed)
    if heads is None:
        return Decoder(opened, fixed_rows=FIXED_ROWS if fixed else 0)
    loaded = load_heads(heads, opened)
    tree = tree_in(heads, heads=loaded.config.heads)
    _refuse_unfit(tree, loaded, place=str(heads / TREE))
    # the order of the tree's nodes is that of their worth
    if fixed:
        return Decoder(opened, loaded, tree.first(FIXED_ROWS - 1), fixed_rows=FIXED_ROWS)
    # the tree was chosen for one prompt: those of a batch share the rows that it has
    return Decoder(opened, loaded, tree, most_rows=tree.size + 1)
