"""Learning in service on real answers: python benchmarks/routing_feedback.py --data DIR [--seeds 10]

DIR and division as in routing.py (`--pool complete`). New models are onboarded from 100 answers (low_rank, 20
clusters, its options chosen on known models); then their other 1,000 validation answers come one after
another and are learned (`Router.learn` by cluster, several half-lives). Beside it: onboarding from all 1,100.
Area on the test prompts, paired by seed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from modelyard.routing.candidates import candidates
from modelyard.routing.clusters import fit_clusters
from modelyard.routing.deferral import Field
from modelyard.routing.estimators import Evidence, Known
from modelyard.routing.feedback import learned
from modelyard.routing.profiles import Profiles
from modelyard.routing.selection import Trials, choose
from routing import TRAIN, interval, read, split

FEW, CLUSTERS = 100, 20
HALF_LIVES = (20.0, 100.0, 500.0, 1e9)


def areas(answers, embeddings, seed: int) -> dict[str, float]:
    """Of each way, times 1,000."""
    parts = split(seed, len(answers.models), len(answers.examples))
    clusters = fit_clusters(embeddings[parts.train], CLUSTERS, seed)
    near = clusters.assign(embeddings)
    known = answers.errors_mn[np.ix_(parts.known, parts.train)]
    fitted_on = Known(errors_mn=known, clusters_n=near[parts.train], clusters=CLUSTERS)
    trials = Trials(answers=FEW, seed=seed)
    chosen, _ = choose([*candidates("low_rank", (CLUSTERS,))], known, embeddings[parts.train], trials)
    estimator = chosen.fit(fitted_on)
    errors = np.nan_to_num(answers.errors_mn[np.ix_(parts.new, parts.validation)], nan=1.0)
    here = near[parts.validation]

    def onboarded(count: int) -> Profiles:
        estimates = [
            estimator.profile(
                Evidence(errors_n=row[:count], clusters_n=here[:count], columns_n=np.full(count, -1))
            )
            for row in errors
        ]
        psi, sd = (np.array([getattr(each, name) for each in estimates]) for name in ("psi_k", "sd_k"))
        names = tuple(f"{i:03d}" for i in range(len(errors)))
        flat = np.ones(psi.shape)
        return Profiles(
            names=names, psi_mk=psi, sd_mk=sd, answers_mk=flat.astype(np.int64), cost_usd_m=flat[:, 0],
            cost_usd_mk=flat, errors_mn=np.zeros((len(errors), 0)),
        )  # fmt: skip

    few = onboarded(FEW)
    ways = {f"onboarded from {FEW}": few, f"onboarded from {len(here)}": onboarded(len(here))}
    for half_life in HALF_LIVES:
        models = few
        for name, row in zip(few.names, errors, strict=True):
            models = learned(models, name, here[FEW:], row[FEW:], half_life=half_life)
        ways[f"and {len(here) - FEW} learned, half-life {half_life:g}"] = models
    costs = answers.of_models(parts.new).mean_cost_usd()
    truth = np.nan_to_num(answers.errors_mn[np.ix_(parts.new, parts.test)], nan=1.0)
    field = Field(quality_mq=1.0 - truth, cost_m=costs / costs.max())
    return {
        way: 1000 * field.curve(models.psi_mk[:, near[parts.test]]).area(field.cheapest)
        for way, models in ways.items()
    }


def main() -> None:
    """All seeds; means and differences to the few answers."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=10)
    told = parser.parse_args()
    answers, embeddings = read(told.data, "complete")
    rows = [areas(answers, embeddings, seed) for seed in range(told.seeds)]
    base = np.array([row[f"onboarded from {FEW}"] for row in rows])
    print(f"{len(answers.models)} models, {TRAIN} prompts fitted on, seeds 0 to {told.seeds - 1}")
    for way in rows[0]:
        values = np.array([row[way] for row in rows])
        print(f"| {way} | {values.mean():.1f} | {interval(values - base)} |")


if __name__ == "__main__":
    main()
