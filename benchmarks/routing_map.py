"""Learned clusters beside plain ones: python benchmarks/routing_map.py --data DIR [--seeds 10]

DIR and division as in routing.py (`--pool complete`): half of the models new, n of the validation prompts
answered. Two estimators with their default options over K clusters, plain (k-means) or learned from where
the known models err. Area on the test prompts, differences paired by seed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from modelyard.routing.candidates import Candidate
from modelyard.routing.clusters import fit_clusters
from modelyard.routing.deferral import Field
from modelyard.routing.estimators import Evidence, Known
from modelyard.routing.learned_map import learn_clusters
from routing import interval, read, split

ESTIMATORS, COUNTS, ANSWERS = ("empirical_bayes", "low_rank"), (5, 20), (100, 400)


def areas(answers, embeddings, seed: int) -> dict[tuple[str, int, int, str], float]:
    """By estimator, clusters, answers and map; times 1,000."""
    parts = split(seed, len(answers.models), len(answers.examples))
    known = answers.errors_mn[np.ix_(parts.known, parts.train)]
    new = np.nan_to_num(answers.errors_mn[parts.new], nan=1.0)
    costs = answers.of_models(parts.new).mean_cost_usd()
    field = Field(quality_mq=1.0 - new[:, parts.test], cost_m=costs / costs.max())
    train, found = embeddings[parts.train], {}
    for count in COUNTS:
        maps = {
            "plain": fit_clusters(train, count, seed),
            "learned": learn_clusters(train, known, count, seed),
        }
        for (kind, space), name in ((each, name) for each in maps.items() for name in ESTIMATORS):
            near = space.assign(embeddings)
            fitted = Candidate(estimator=name, clusters=count).fit(
                Known(errors_mn=known, clusters_n=near[parts.train], clusters=count)
            )
            for n in ANSWERS:
                seen = parts.validation[:n]
                psi = [
                    fitted.profile(
                        Evidence(errors_n=row[seen], clusters_n=near[seen], columns_n=np.full(n, -1))
                    ).psi_k
                    for row in new
                ]
                curve = field.curve(np.array(psi)[:, near[parts.test]])
                found[name, count, n, kind] = 1000 * curve.area(field.cheapest)
    return found


def main() -> None:
    """All seeds."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=10)
    told = parser.parse_args()
    answers, embeddings = read(told.data, "complete")
    rows = [areas(answers, embeddings, seed) for seed in range(told.seeds)]
    for name, count, n, kind in rows[0]:
        if kind == "plain":
            plain, learned = (
                np.array([row[name, count, n, way] for row in rows]) for way in ("plain", "learned")
            )
            print(f"| {name}, K = {count}, n = {n} | {plain.mean():.1f} | {interval(learned - plain)} |")


if __name__ == "__main__":
    main()
