"""How well heads foretell on a base that may be another than their own, as after a merge of it.

On texts, for each head: how often the true token is among its first; and for the tree: how many tokens a pass
gives when these texts are decoded. Intervals are of the bootstrap over texts (Efron 1979), because the
positions of one text go together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modelyard.core.errors import HeadsError
from modelyard.heads.base import Base
from modelyard.heads.choosing.calibration import stretches, total, walked
from modelyard.heads.choosing.ranks import BEYOND, rank_paths, within
from modelyard.heads.choosing.sizing import LEAST_GAIN
from modelyard.heads.config import read_record
from modelyard.heads.decoding.decoder import Decoder
from modelyard.heads.decoding.settings import DecodeSettings
from modelyard.heads.learning.data import Corpus, TokenSequence, corpus_of
from modelyard.heads.measuring.intervals import Bootstrap, Estimate, Floats
from modelyard.heads.model import Heads, load_heads
from modelyard.heads.tree import Tree
from modelyard.heads.tree_files import tree_in

#: Accuracy is told for the true token being among the first 1, 2 ... of a head.
TOP = 5
# Of a text that is all the model's own, so many tokens are its prompt.
_PROMPT_TOKENS = 16


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Tally:
    """Counts by text; nothing is divided yet."""

    # True tokens among the first r + 1 of a head, [texts, heads, TOP].
    hits_skr: Floats
    # Tokens to foretell, [texts, heads].
    seen_sk: Floats
    # Positions where the first head has a token to foretell, [texts].
    positions_s: Floats
    # Tokens that decoding the text gives after its first, and the passes that it takes by the tree, [texts].
    tokens_s: Floats
    passes_s: Floats
    # Positions whose next token is the base's likeliest, [texts].
    own_words_s: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What heads do on a base."""

    base: str
    # Whether it is the one that they were trained on.
    own_base: bool
    texts: int
    positions: int
    # Rows of a pass but for the root.
    nodes: int
    # By head, by how many of its first are looked at.
    accuracy: tuple[tuple[Estimate, ...], ...]
    tokens_per_pass: Estimate
    # How much of the texts is what this base would write itself, greedily.
    own_words: Estimate
    # What their record says of their own base, by head; empty where it says nothing.
    recorded: tuple[tuple[float, ...], ...] = ()

    @property
    def verdict(self) -> str:
        """Whether decoding with them can be worth it, in one word."""
        if self.tokens_per_pass.high < LEAST_GAIN:
            return "no"
        return "perhaps" if self.tokens_per_pass.low >= LEAST_GAIN else "unclear"

    def as_json(self) -> dict[str, Any]:
        """The record."""
        return {**asdict(self), "verdict": self.verdict, "reason": self.reason()}

    def reason(self) -> str:
        """The verdict in a sentence."""
        found = self.tokens_per_pass
        if self.verdict == "no":
            return (
                f"not worth it: a pass gives {found.shown()} tokens, and a pass over more than one row costs"
                " more than that: decode plainly, or train heads on this base"
            )
        if self.verdict == "unclear":
            return (
                f"unclear: a pass gives {found.shown()} tokens, and {LEAST_GAIN} is the least that can pay;"
                " give more texts"
            )
        return (
            f"it can pay where a pass over {self.nodes + 1} rows costs less than {found.low:.2f} plain ones;"
            " `heads tree` measures that on this machine"
        )


def check_heads(
    base: Base, heads: Path, corpus: Corpus, *, seed: int = 0, tree: Tree | None = None
) -> tuple[Checked, Tally]:
    """Measure heads on a base; only shapes that do not fit are refused.

    Args:
        base: Any with the shapes of their own.
        heads: Their folder.
        corpus: Texts that they were not trained on.
        seed: Of the bootstrap.
        tree: What a pass checks; by default the tree in the folder, or a chain.

    Raises:
        HeadsError: Shapes do not fit, or no text is long enough.
    """
    loaded = load_heads(heads, base, other_base=True)
    used = tree_in(heads, heads=loaded.config.heads) if tree is None else tree
    tally = tally_corpus(base, loaded, corpus, used)
    record = read_record(heads)
    estimates = Bootstrap(len(tally.positions_s), seed)
    accuracy = tuple(
        tuple(estimates.ratio(tally.hits_skr[:, k, r], tally.seen_sk[:, k]) for r in range(TOP))
        for k in range(loaded.config.heads)
    )
    checked = Checked(
        base=str(base.folder), own_base=record.config.base == base.fingerprint,
        texts=int((tally.positions_s > 0).sum()), positions=int(tally.positions_s.sum()),
        nodes=used.size, accuracy=accuracy,
        tokens_per_pass=estimates.ratio(tally.tokens_s, tally.passes_s),
        own_words=estimates.ratio(tally.own_words_s, tally.positions_s),
        recorded=_recorded(record.training),
    )  # fmt: skip
    return checked, tally


def kept_share(here: Tally, there: Tally, *, seed: int = 0) -> Estimate | None:
    """Of a pass's drafted tokens that are right on one base, how many are on another, over the same texts.

    None where none was right there.

    Raises:
        HeadsError: The texts differ in number.
    """
    texts, others = len(here.positions_s), len(there.positions_s)
    if texts != others:
        raise HeadsError(f"{texts} texts here and {others} there cannot be compared; give the same texts")
    if not (there.tokens_s - there.passes_s).sum() or not here.passes_s.sum():
        return None
    return Bootstrap(texts, seed).quotient(
        (here.tokens_s - here.passes_s, here.passes_s), (there.tokens_s - there.passes_s, there.passes_s)
    )


def tally_corpus(base: Base, heads: Heads, corpus: Corpus, tree: Tree) -> Tally:
    """Count on every text of a corpus; one that is too short counts nothing.

    Raises:
        HeadsError: All are.
    """
    counted = [_tally_text(base, heads, sequence, tree) for sequence in corpus.sequences]
    if not any(positions for _, _, positions, *_ in counted):
        raise HeadsError(
            "no text has two tokens on end that the model writes, so that there is nothing to foretell; give"
            " longer texts"
        )
    columns = zip(*counted, strict=True)
    hits_skr, seen_sk, positions_s, tokens_s, passes_s, own_words_s = (
        np.array(column, dtype=np.float64) for column in columns
    )
    return Tally(
        hits_skr=hits_skr, seen_sk=seen_sk, positions_s=positions_s, tokens_s=tokens_s, passes_s=passes_s,
        own_words_s=own_words_s,
    )  # fmt: skip


def answered_by(base: Base, corpus: Corpus, *, most_tokens: int) -> Corpus:
    """The corpus with answers that this base itself writes, greedily, in place of those that are there.

    Args:
        base: Writes.
        corpus: Gives the prompts: what stands before the first token that a model writes, or a text's first
            tokens where all of it is.
        most_tokens: Of an answer.

    Raises:
        HeadsError: A prompt leaves no room for an answer.
    """
    decoder, settings = Decoder(base), DecodeSettings(max_new_tokens=most_tokens)
    written = []
    for sequence in corpus.sequences:
        first = int(np.argmax(sequence.learned))
        prompt = sequence.tokens[: first or _PROMPT_TOKENS].tolist()
        made = decoder.generate(prompt, settings).tokens
        written.append(
            TokenSequence(
                tokens=np.array([*prompt, *made], np.int32),
                learned=np.array([False] * len(prompt) + [True] * len(made), np.bool_),
            )
        )
    return corpus_of(written, place=f"the answers of {base.folder}")


def _tally_text(base: Base, heads: Heads, sequence: TokenSequence, tree: Tree) -> tuple[Any, ...]:
    """The counts of one text, in the order of `Tally`."""
    tokens_n = torch.from_numpy(sequence.tokens.astype(np.int64)).to(base.device)
    with torch.inference_mode():
        hidden_nh = base.hidden(tokens_n[None], use_cache=False)[0]
        likeliest_n = base.logits(hidden_nh[:-1]).argmax(-1).cpu().numpy()
    own_n = np.append(False, likeliest_n == sequence.tokens[1:])
    ranks_nk = rank_paths(heads, hidden_nh, tokens_n, max(TOP, tree.ranks))
    parts = list(stretches(sequence))
    written = [within(ranks_nk, start, end) for start, end in parts]
    all_nk = np.concatenate([np.zeros((0, heads.config.heads), np.int64), *written])
    hits_kr = np.stack([((all_nk >= 0) & (all_nk <= r)).sum(axis=0) for r in range(TOP)], axis=1)
    decoded = total(walked(written, tree))
    # the last token of a stretch has nothing after it
    own_words = sum(int(own_n[start : end - 1].sum()) for start, end in parts)
    positions = int((all_nk[:, 0] != BEYOND).sum())
    return hits_kr, (all_nk != BEYOND).sum(axis=0), positions, decoded.tokens, decoded.passes, own_words


def _recorded(training: Mapping[str, Any]) -> tuple[tuple[float, ...], ...]:
    """The accuracies of a record, by head; empty where they are not there or not what they should be."""
    table = training.get("accuracy")
    if not isinstance(table, list) or not all(isinstance(row, list) for row in table):
        return ()
    shares = [value for row in table for value in row]
    if not all(isinstance(value, int | float) and 0 <= value <= 1 for value in shares):
        return ()
    return tuple(tuple(map(float, row[:TOP])) for row in table)
