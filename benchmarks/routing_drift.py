"""The drift alarm on real prompts: python benchmarks/routing_drift.py --data DIR [--draws 200]

DIR as for routing.py. Routers are fitted on 2,000 prompts of all categories (20 clusters, wordllama); recent
prompts are 200 others of the same mix, or 200 of which a share is of one category, the rest of the mix.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from modelyard.routing.answers import Answers
from modelyard.routing.drift import find_drift
from modelyard.routing.embedders import load_embedder
from modelyard.routing.router import Router, RouterOptions

FIT, RECENT, CLUSTERS, LEVEL = 2000, 200, 20, 0.05
SHARES = (0.1, 0.2, 0.4, 1.0)


class Kept:
    """An embedder that looks up the rows of a table by number; embedding twelve thousand prompts once."""

    name, fingerprint = "kept", "kept"

    def __init__(self, table: np.ndarray) -> None:
        self.table, self.dimensions = table, table.shape[1]

    def embed(self, texts: list[str]) -> np.ndarray:
        return self.table[[int(text) for text in texts]]


def fitted(embedder: Kept, rows: np.ndarray, seed: int) -> Router:
    """A router over one model that is never wrong: only the prompts matter."""
    shape = (1, len(rows))
    answers = Answers(
        models=("one",), examples=tuple(map(str, rows)), errors_mn=np.zeros(shape), cost_usd_mn=np.ones(shape)
    )
    options = RouterOptions(estimator="empirical_bayes", clusters=CLUSTERS, seed=seed)
    return Router.fit(answers, [str(row) for row in rows], embedder, options)


def main() -> None:
    """Count alarms."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--draws", type=int, default=200)
    told = parser.parse_args()
    prompts = pd.read_parquet(told.data / "prompts.parquet")
    embedder = Kept(load_embedder().embed(list(prompts["text"])))
    categories = prompts["category"].to_numpy()
    false, found = 0, {(name, share): 0 for name in np.unique(categories) for share in SHARES}
    for seed in range(told.draws):
        chance = np.random.default_rng(seed)
        order = chance.permutation(len(prompts))
        router, rest = fitted(embedder, order[:FIT], seed), order[FIT:]
        false += find_drift(router, embedder.table[rest[:RECENT]], alpha=LEVEL).alarm
        if seed >= 20:
            continue
        for name, share in found:
            own = rest[categories[rest] == name][: int(share * RECENT)]
            mixed = np.concatenate([own, rest[: RECENT - len(own)]])
            found[name, share] += find_drift(router, embedder.table[mixed], alpha=LEVEL).alarm
    print(f"same mix: {false} alarms in {told.draws} draws at {LEVEL:.0%}")
    print("| category, of 20 draws | " + " | ".join(f"{share:.0%} more" for share in SHARES) + " |")
    print("|---|" + "---|" * len(SHARES))
    for name in np.unique(categories):
        print(f"| {name} | " + " | ".join(str(found[name, share]) for share in SHARES) + " |")


if __name__ == "__main__":
    main()
