"""How often a verdict is wrong, and how often a gain is found: python benchmarks/evidence_statistics.py

Options: --repetitions 2000, --seed 0, --json FILE, --only TEXT (cases whose name contains it).

Every repetition draws the outcomes of two models on a pack, and asks `judge` for its verdict as a user would
get it. The same outcomes go to other ways to decide: statsmodels and scipy on the same data, and what is
done where nobody thinks of pairs, clusters or looks. Where the claim is false, the share of passes is the
rate of false passes (5 % is allowed); where it is true, it is the power. With 2,000 repetitions a rate of 5 %
is known to within 1 point (two standard deviations).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import statsmodels.api as sm
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar

from modelyard.evidence.design import Design, declare
from modelyard.evidence.discordance import exact_p, score_p
from modelyard.evidence.outcomes import Item, Outcome, Outcomes, Table
from modelyard.evidence.power import exact_power
from modelyard.evidence.verdict import Judgement, judge

ALPHA = 0.05
PEEK = 10
#: Both pass, only the baseline, only the candidate; the rest fails both. Fifth of the items discordant.
ALIKE, BETTER = (0.5, 0.1, 0.1), (0.5, 0.05, 0.11)
CELLS = np.array([[1, 1], [1, 0], [0, 1], [0, 0]], np.float64)
Draw = Callable[[np.random.Generator], Outcomes]
Peer = Callable[[Table], bool]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One situation, many times."""

    name: str
    draw: Draw
    design: Design
    peers: dict[str, Peer] = field(default_factory=dict)
    # The true difference.
    truth: float = 0.0
    false_claim: bool = True
    # What the rate is without simulation: summed over every outcome.
    exact: float | None = None


def outcomes(pairs_n2: np.ndarray, cluster_n: np.ndarray | None = None) -> Outcomes:
    """Pairs of scores as outcomes of a whole pack."""
    names = [str(number) for number in range(len(pairs_n2))]
    clusters = names if cluster_n is None else [f"c{number}" for number in cluster_n]
    items = tuple(Item(id=name, cluster=cluster) for name, cluster in zip(names, clusters, strict=True))
    pairs = pairs_n2.tolist()
    return Outcomes(
        pack=items,
        answered=tuple(
            Outcome(item=item, baseline=(b,), candidate=(c,))
            for item, (b, c) in zip(items, pairs, strict=True)
        ),
    )


def cells(rng: np.random.Generator, shares: tuple[float, float, float], shape: tuple[int, ...]) -> np.ndarray:
    """Pairs of 0/1 scores by the shares of the first three cells."""
    return CELLS[rng.choice(4, p=[*shares, 1 - sum(shares)], size=shape)]


def alone(n: int, shares: tuple[float, float, float]) -> Draw:
    """Independent items."""
    return lambda rng: outcomes(cells(rng, shares, (n,)))


def in_clusters(count: int, size: int, shares: tuple[float, float, float], icc: float = 0.2) -> Draw:
    """Clusters in which two items copy one draw with a chance of `icc`: that is their correlation."""

    def draw(rng: np.random.Generator) -> Outcomes:
        own, shared = cells(rng, shares, (count, size)), cells(rng, shares, (count, 1))
        copied = rng.random((count, size, 1)) < np.sqrt(icc)
        return outcomes(np.where(copied, shared, own).reshape(-1, 2), np.repeat(np.arange(count), size))

    return draw


def skewed(count: int, size: int, gain: float = 0.0) -> Draw:
    """Continuous scores: mostly a little better, seldom much worse; items of a cluster share half of it."""

    def draw(rng: np.random.Generator) -> Outcomes:
        worse = rng.exponential(0.1, (count, size))
        if size > 1:
            worse = (worse + rng.exponential(0.1, (count, 1))) / 2
        base = rng.uniform(0.5, 0.8, count * size)
        candidate = (base + 0.1 + gain - worse.reshape(-1)).clip(0, 1)
        return outcomes(np.stack([base, candidate], axis=1), np.repeat(np.arange(count), size))

    return draw


def symmetric(count: int, gain: float) -> Draw:
    """Continuous scores of items that stand alone: normal differences."""

    def draw(rng: np.random.Generator) -> Outcomes:
        base = rng.uniform(0.4, 0.6, count)
        return outcomes(np.stack([base, (base + rng.normal(gain, 0.08, count)).clip(0, 1)], axis=1))

    return draw


def failing(n: int, margin: float) -> Draw:
    """Continuous scores, alike but for failed answers: so many that the candidate is worse by the margin."""

    def draw(rng: np.random.Generator) -> Outcomes:
        base = rng.uniform(0.6, 0.9, n)
        failed = rng.random(n) < margin / 0.75
        candidate = np.where(failed, 0.0, base + rng.uniform(-0.1, 0.1, n))
        return outcomes(np.stack([base, candidate], axis=1))

    return draw


def unpaired_z(table: Table) -> bool:
    """Two independent samples, as though the items were not the same."""
    base, cand = table.baseline_n, table.candidate_n
    error = np.sqrt((base.var(ddof=1) + cand.var(ddof=1)) / len(base))
    return bool(stats.norm.sf((cand.mean() - base.mean()) / error) <= ALPHA)


def blind_z(table: Table) -> bool:
    """Pairs, but as though no two items belonged together."""
    gap = table.difference_n
    error = gap.std(ddof=1) / np.sqrt(len(gap))
    return bool(error > 0 and stats.norm.sf(gap.mean() / error) <= ALPHA)


def peeking(table: Table) -> bool:
    """The exact McNemar test after every ten items, until it passes."""
    gap = table.difference_n
    wins, losses = (gap > 0).cumsum()[PEEK - 1 :: PEEK], (gap < 0).cumsum()[PEEK - 1 :: PEEK]
    return bool((exact_p(wins, losses) <= ALPHA).any())


def statsmodels_mcnemar(table: Table) -> bool:
    """Their exact test, halved to one side."""
    n11, losses, wins, n00 = table.counts
    p = mcnemar([[n11, losses], [wins, n00]], exact=True).pvalue
    return bool(wins > losses and p / 2 <= ALPHA)


def statsmodels_clusters(margin: float = 0.0) -> Peer:
    """Their cluster-robust regression on a constant, with t."""

    def passes(table: Table) -> bool:
        groups = {"groups": table.cluster_n, "use_correction": True, "df_correction": True}
        gap = table.difference_n + margin
        if not gap.std():
            return False
        fit = sm.OLS(gap, np.ones(len(gap))).fit(cov_type="cluster", cov_kwds=groups, use_t=True)
        return bool(fit.params[0] > 0 and fit.pvalues[0] / 2 <= ALPHA)

    return passes


def wald(margin: float) -> Peer:
    """scipy's t-test of the differences against the margin."""

    def passes(table: Table) -> bool:
        gap = table.difference_n
        return bool(gap.std() > 0 and stats.ttest_1samp(gap, -margin, alternative="greater").pvalue <= ALPHA)

    return passes


def scipy_t(table: Table) -> bool:
    """scipy's t-test of the means of clusters (of one size)."""
    difference_g, weight_g = table.cluster_sums()
    return bool(stats.ttest_1samp(difference_g / weight_g, 0.0, alternative="greater").pvalue <= ALPHA)


def scipy_bootstrap(method: str) -> Peer:
    """scipy's bootstrap of the means of clusters (of one size): the lower bound lies above 0."""

    def passes(table: Table) -> bool:
        difference_g, weight_g = table.cluster_sums()
        found = stats.bootstrap(
            (difference_g / weight_g,), np.mean, n_resamples=1000, method=method, alternative="greater",
            confidence_level=1 - ALPHA, rng=np.random.default_rng(0), vectorized=True,
        )  # fmt: skip
        return bool(found.confidence_interval.low > 0)

    return passes


PAIRS: dict[str, Peer] = {
    "statsmodels McNemar": statsmodels_mcnemar,
    "unpaired z": unpaired_z,
    "McNemar at every 10th item": peeking,
}
LOOKING: dict[str, Peer] = {"McNemar at every 10th item": peeking}
CLUSTERS: dict[str, Peer] = {
    "statsmodels cluster": statsmodels_clusters(),
    "unpaired z": unpaired_z,
    "cluster-blind z": blind_z,
    "McNemar at every 10th item": peeking,
}
CONTINUOUS: dict[str, Peer] = {
    "scipy t of clusters": scipy_t,
    "scipy percentile": scipy_bootstrap("percentile"),
    "scipy BCa": scipy_bootstrap("BCa"),
    "cluster-blind z": blind_z,
}
EXACT = declare(sequential=True, method="mcnemar_exact")
EARLY_CLUSTERS = declare(sequential=True, method="cluster_robust")


def within(margin: float, **choices: Any) -> Design:
    """Non-inferiority."""
    return declare(alternative="non_inferiority", margin=margin, **choices)


def at_margin(n: int, margin: float, discordant: float) -> Case:
    """Independent items of a candidate that is worse by exactly the margin."""
    shares = (0.6, (discordant + margin) / 2, (discordant - margin) / 2)
    return Case(
        name=f"margin {margin}: {n} items, {discordant:.0%} discordant", draw=alone(n, shares),
        design=within(margin), peers={"scipy t": wald(margin)}, truth=-margin,
        exact=exact_level(n, margin, discordant),
    )  # fmt: skip


def exact_level(n: int, margin: float, discordant: float) -> float:
    """The chance of a false pass of Tango's test at the margin, summed over all wins and losses."""
    wins, losses = np.ogrid[: n + 1, : n + 1]
    moved, win_share = np.minimum(wins + losses, n), (discordant - margin) / 2 / discordant
    chance = stats.binom.pmf(moved, n, discordant) * stats.binom.pmf(wins, moved, win_share)
    passes = (score_p(wins, losses, n, margin) <= ALPHA) & (wins + losses <= n)
    return float(chance[passes].sum())


def false_claims() -> list[Case]:
    """The candidate is no better, or worse by the margin."""
    clusters = in_clusters(40, 10, ALIKE)
    worse = (0.6, 0.1, 0.05)
    regression = {"statsmodels cluster": statsmodels_clusters(0.05), "scipy t": wald(0.05)}
    tango = within(0.05, sequential=True, method="tango_score")
    return [
        Case(
            name="fixed n: 300 items", draw=alone(300, ALIKE), design=declare(), peers=PAIRS,
            exact=exact_power(300, 0.1, 0.1, ALPHA),
        ),
        Case(name="clustered: 40 of 10", draw=clusters, design=declare(), peers=CLUSTERS),
        Case(name="clustered: 20 of 10", draw=in_clusters(20, 10, ALIKE), design=declare(), peers=CLUSTERS),
        Case(name="sequential: 300 items", draw=alone(300, ALIKE), design=EXACT, peers=LOOKING),
        Case(name="sequential: 1000 items", draw=alone(1000, ALIKE), design=EXACT, peers=LOOKING),
        Case(name="sequential, clustered: 40 of 10", draw=clusters, design=EARLY_CLUSTERS, peers=LOOKING),
        at_margin(200, 0.05, 0.2),
        at_margin(200, 0.05, 0.06),
        at_margin(500, 0.02, 0.1),
        at_margin(500, 0.02, 0.03),
        Case(
            name="margin 0.05, clustered: 40 of 10", draw=in_clusters(40, 10, worse), design=within(0.05),
            peers=regression, truth=-0.05,
        ),
        Case(name="margin 0.05, sequential: 300 items", draw=alone(300, worse), design=tango, truth=-0.05),
        *(
            Case(
                name=f"margin {margin}, continuous, rare failures: 200 items",
                draw=failing(200, margin),
                design=within(margin),
                peers={"scipy t": wald(margin)},
                truth=-margin,
            )
            for margin in (0.05, 0.02)
        ),
        *(
            Case(
                name=f"skewed scores: {count} clusters of {size}", draw=skewed(count, size),
                design=declare(), peers=CONTINUOUS,
            )
            for count, size in [(20, 1), (50, 1), (20, 5)]
        ),
    ]  # fmt: skip


def true_claims() -> list[Case]:
    """The candidate is better by `truth`, or not worse at all where a margin is given."""
    much, little, clusters = (0.5, 0.05, 0.2), (0.5, 0.08, 0.12), in_clusters(40, 10, (0.5, 0.06, 0.14))
    same, tango = alone(300, (0.6, 0.05, 0.05)), within(0.05, sequential=True, method="tango_score")
    regression, against = {"statsmodels cluster": statsmodels_clusters()}, {"scipy t": wald(0.05)}
    found = [
        Case(
            name="300 items, +6", draw=alone(300, BETTER), design=declare(), peers=PAIRS, truth=0.06,
            exact=exact_power(300, 0.11, 0.05, ALPHA),
        ),
        Case(name="300 items, +6, sequential", draw=alone(300, BETTER), design=EXACT, truth=0.06),
        Case(name="300 items, +15", draw=alone(300, much), design=declare(), peers=PAIRS, truth=0.15),
        Case(name="300 items, +15, sequential", draw=alone(300, much), design=EXACT, truth=0.15),
        Case(name="1000 items, +4", draw=alone(1000, little), design=declare(), peers=PAIRS, truth=0.04),
        Case(name="1000 items, +4, sequential", draw=alone(1000, little), design=EXACT, truth=0.04),
        Case(name="40 clusters of 10, +8", draw=clusters, design=declare(), peers=regression, truth=0.08),
        Case(name="40 clusters of 10, +8, sequential", draw=clusters, design=EARLY_CLUSTERS, truth=0.08),
        Case(name="margin 0.05: 300 items, +0", draw=same, design=within(0.05), peers=against),
        Case(name="margin 0.05: 300 items, +0, sequential", draw=same, design=tango),
        Case(
            name="normal scores: 50 items, +3", draw=symmetric(50, 0.03), design=declare(),
            peers={"scipy t of clusters": scipy_t}, truth=0.03,
        ),
        Case(
            name="skewed scores: 50 clusters, +3", draw=skewed(50, 1, 0.03), design=declare(),
            peers={"scipy t of clusters": scipy_t}, truth=0.03,
        ),
    ]  # fmt: skip
    return [replace(case, false_claim=False) for case in found]


def run(case: Case, repetitions: int, seed: int) -> dict[str, Any]:
    """Draw, judge and compare."""
    rng = np.random.default_rng(seed)
    found: list[Judgement] = []
    passed = dict.fromkeys(case.peers, 0)
    for _ in range(repetitions):
        drawn = case.draw(rng)
        found.append(judge(drawn, case.design))
        table = drawn.table()
        for name, peer in case.peers.items():
            passed[name] += peer(table)
    pack = len(drawn.pack)
    items = [judgement.stopped_at or pack for judgement in found]
    stopped = [judgement for judgement in found if judgement.stopped_at]
    return {
        "case": case.name,
        "false_claim": case.false_claim,
        "method": found[0].method,
        "exact": case.exact,
        "passed": float(np.mean([judgement.verdict == "pass" for judgement in found])),
        "failed": float(np.mean([judgement.verdict == "fail" for judgement in found])),
        "items": pack,
        "mean_items": float(np.mean(items)) if case.design.sequential else None,
        "stopped": len(stopped) / repetitions,
        "interval_holds": float(np.mean([holds(judgement, case.truth) for judgement in found])),
        "level": found[0].level,
        "others": {name: count / repetitions for name, count in passed.items()},
    }


def holds(judgement: Judgement, truth: float) -> bool:
    """Whether the interval holds the truth."""
    low, high = judgement.ci
    return low <= truth <= high


def repair_use(repetitions: int, seed: int, tries: int = 20) -> dict[str, Any]:
    """Twenty candidates that are no better, one after the other on one pack of 200, until one passes.

    What the baseline answered stays; items are of different difficulty.
    """
    rng = np.random.default_rng(seed)
    spending, careless, gains = 0, 0, []
    for _ in range(repetitions):
        chance = rng.beta(1.5, 1, 200)
        base = (rng.random(200) < chance).astype(float)
        candidates = [(rng.random(200) < chance).astype(float) for _ in range(tries)]
        tables = [outcomes(np.stack([base, candidate], axis=1)) for candidate in candidates]
        gains.append(max(float(candidate.mean() - base.mean()) for candidate in candidates))
        promising = [statsmodels_mcnemar(told.table()) for told in tables]
        # Whoever does not pass at 5 % does not pass at less.
        spending += any(
            ready and judge(told, declare(iteration=k + 1)).verdict == "pass"
            for k, (ready, told) in enumerate(zip(promising, tables, strict=True))
        )
        careless += any(promising)
    return {
        "case": f"best of {tries} repairs: 200 items", "false_claim": True, "method": "mcnemar_exact",
        "passed": spending / repetitions, "others": {"McNemar at 5 % every time": careless / repetitions},
        "best_gain": float(np.mean(gains)),
    }  # fmt: skip


def line(row: dict[str, Any]) -> str:
    """One row of the table."""
    others = ", ".join(f"{name} {rate:.1%}" for name, rate in row["others"].items())
    used = f"{row['mean_items']:.0f} of {row['items']}" if row.get("mean_items") else ""
    exact = f" (exactly {row['exact']:.1%})" if row.get("exact") else ""
    return f"| {row['case']} | {row['method']} | {row['passed']:.1%}{exact} | {used} | {others} |"


def measured(only: str, repetitions: int, seed: int) -> Iterator[dict[str, Any]]:
    """The rows of the cases whose name contains `only`."""
    for case in (*false_claims(), *true_claims()):
        if only in case.name:
            yield run(case, repetitions, seed)
    if only in "best of 20 repairs: 200 items":
        yield repair_use(repetitions, seed)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repetitions", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", default="")
    told = parser.parse_args()
    rows = []
    for row in measured(told.only, told.repetitions, told.seed):
        print(line(row), file=sys.stderr, flush=True)
        rows.append(row)
    for false_claim, title in ((True, "false passes, 5 % allowed"), (False, "power")):
        print(f"| {title} | method | verdict pass | mean items | others on the same outcomes |")
        print("|---|---|---|---|---|")
        for row in rows:
            if row["false_claim"] is false_claim:
                print(line(row))
        print()
    for row in rows:
        if "best_gain" in row:
            print(
                f"the best of those candidates looks {row['best_gain'] * 100:+.1f} points better on average"
            )
    if told.json:
        told.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
