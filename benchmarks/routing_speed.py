"""What profiling and embedding cost, on data that is made here.

    python benchmarks/routing_speed.py

50 known models, 6,000 prompts, 300 clusters; new models with 400 answers. One thread; medians of
repetitions, CPU seconds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np

from modelyard.routing.answers import Answers
from modelyard.routing.clusters import fit_clusters
from modelyard.routing.decision import Request
from modelyard.routing.embedders import load_embedder
from modelyard.routing.estimators import Evidence, Known
from modelyard.routing.estimators.counts import EmpiricalBayes
from modelyard.routing.estimators.low_rank import LowRank, LowRankOptions
from modelyard.routing.estimators.transfer import Transfer
from modelyard.routing.router import Router, RouterOptions

MODELS, PROMPTS, CLUSTERS, ANSWERS, POOL = 50, 6000, 300, 400, 1000
SHORT = "Which of these cities is the capital of the country that borders both seas? A B"


def median_s(action: Callable[[], object], times: int) -> float:
    """The median CPU seconds of an action, after one that does not count."""
    action()
    costs = []
    for _ in range(times):
        start = time.process_time()
        action()
        costs.append(time.process_time() - start)
    return statistics.median(costs)


def main() -> None:
    """Print a table."""
    chance = np.random.default_rng(0)
    embeddings = chance.standard_normal((PROMPTS, 256)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    start = time.process_time()
    clusters = fit_clusters(embeddings, CLUSTERS, 0)
    rows = [("300 clusters of 6,000 prompts fitted", time.process_time() - start)]
    inside = clusters.assign(embeddings)
    errors = (chance.random((MODELS, PROMPTS)) < chance.random((MODELS, 1))).astype(float)
    known = Known(errors_mn=errors, clusters_n=inside, clusters=CLUSTERS)
    columns = chance.choice(PROMPTS, ANSWERS, replace=False)
    evidence = Evidence(errors_n=errors[0, columns], clusters_n=inside[columns], columns_n=columns)
    for name, fit in {
        "empirical_bayes": lambda: EmpiricalBayes.fit(known, strength=20.0),
        "low_rank": lambda: LowRank.fit(known, LowRankOptions(rank=4)),
        "transfer": lambda: Transfer.fit(known, spread=1.0),
    }.items():
        estimator = fit()
        rows.append((f"{name}: fitted on {MODELS} known models", median_s(fit, 5)))
        rows.append(
            (
                f"{name}: one model profiled from 400 answers",
                median_s(lambda e=estimator: e.profile(evidence), 50),
            )
        )
        many = median_s(lambda e=estimator: [e.profile(evidence) for _ in range(1000)], 1)
        rows.append((f"{name}: 1,000 models profiled", many))
    for name in ("wordllama", "hashing"):
        embedder = load_embedder(name)
        short = median_s(lambda e=embedder: e.embed([SHORT]), 500)
        rows.append((f"{name}: a prompt of {len(SHORT)} characters embedded", short))
    rows.append(("nearest of 300 centroids", median_s(lambda: clusters.assign(embeddings[:1]), 500)))
    answers = Answers(
        models=tuple(f"m{i}" for i in range(MODELS)), examples=tuple(map(str, range(PROMPTS))),
        errors_mn=errors, cost_usd_mn=np.full(errors.shape, 0.01),
    )  # fmt: skip
    options = RouterOptions(estimator="low_rank", clusters=CLUSTERS)
    router = Router.fit(answers, [f"{SHORT} {i}" for i in range(PROMPTS)], load_embedder(), options)
    few = {str(i): float(errors[0, i]) for i in columns}
    onboard = median_s(lambda: router.onboard("new", few, cost_usd=0.01), 5)
    rows.append((f"Router.onboard from {ANSWERS} answers, {MODELS} models known", onboard))
    rows.append((f"Router.route of a prompt, {MODELS} models", median_s(lambda: router.route(SHORT), 300)))
    for number in range(MODELS, POOL):
        router = router.onboard(f"m{number}", few, cost_usd=0.01 + number * 1e-6)
    asked = Request(lambda_=0.4)
    rows.append(
        (f"Router.route of a prompt, {POOL:,} models", median_s(lambda: router.route(SHORT, asked), 300))
    )
    many_prompts = embeddings[chance.integers(PROMPTS, size=100_000)]
    batch = median_s(lambda: router.route_batch(many_prompts), 3)
    rows.append((f"Router.route_batch of 100,000 embedded prompts, {POOL:,} models", batch))
    print("| what | CPU |\n|---|---|")
    for what, seconds in rows:
        print(f"| {what} | {1000 * seconds:.3f} ms |" if seconds < 1 else f"| {what} | {seconds:.2f} s |")


if __name__ == "__main__":
    main()
