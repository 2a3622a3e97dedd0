"""Routing over a pool of which half is new: every estimator on real answers, paired by seed.

    python benchmarks/routing.py --data DIR [--pool all|cot|complete] [--seeds 20]
                                 [--answers 50,100,200,400,1000] [--embedder wordllama] [--json out.json]

DIR has prompts.parquet, scores.parquet and models.parquet as described beside the data. For each seed
half of the models are known and half are new; 5,000 prompts are for fitting, 1,100 for validation (a
new model answers the first n of them) and 2,500 for the test. Everything that is chosen is chosen on
known models (modelyard.routing.selection). Area is the mean accuracy over relative cost from the
cheapest new model to the dearest; a model's cost is its mean USD a request. `split` is the division.
Needs scikit-learn for the clairvoyant network, which is fitted on the new models' answers to all 5,000.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPRegressor

from modelyard.routing.answers import Answers
from modelyard.routing.candidates import Candidate, candidates
from modelyard.routing.clusters import fit_clusters
from modelyard.routing.deferral import Curve, Field
from modelyard.routing.embedders import load_embedder
from modelyard.routing.estimators import Evidence, Known
from modelyard.routing.estimators.nearest import Nearest
from modelyard.routing.selection import Trials, choose, relative_brier

TRAIN, VALIDATION, TEST = 5000, 1100, 2500
NEIGHBOURS = (10, 20, 40, 80)
STRENGTHS = (0.0, 10.0)
COMPLETE = 11_900  # answers; one model of the 51 has fewer
QUALITY_SHARE = 0.99  # of the best single model's: QNC99


@dataclass(frozen=True, slots=True, kw_only=True)
class Division:
    """One seed's models and prompts."""

    known: np.ndarray
    new: np.ndarray
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def split(seed: int, models: int, prompts: int) -> Division:
    """The division of a seed: the published protocol's sizes, in the order of one permutation each."""
    chance = np.random.default_rng(seed)
    order, places = chance.permutation(models), chance.permutation(prompts)
    cuts = np.split(places, np.cumsum([TRAIN, VALIDATION, TEST]))
    return Division(
        known=order[: models // 2], new=order[models // 2 :], train=cuts[0], validation=cuts[1], test=cuts[2]
    )


def read(folder: Path, pool: str, embedder: str = "wordllama") -> tuple[Answers, np.ndarray]:
    """The answers, joined by prompt, and the prompts' embeddings (kept beside the data of this process)."""
    models = pd.read_parquet(folder / "models.parquet")
    if pool == "cot":
        models = models[models["protocol"] == "cot"]
    if pool == "complete":
        models = models[models["n"] > COMPLETE]
    prompts = pd.read_parquet(folder / "prompts.parquet")
    scores = pd.read_parquet(folder / "scores.parquet", columns=["model", "prompt_id", "score", "cost_usd"])
    wanted = scores[scores["model"].isin(set(models["model"]))]
    tables = {
        name: wanted.pivot(index="model", columns="prompt_id", values=name).reindex(
            index=models["model"], columns=prompts["prompt_id"]
        )
        for name in ("score", "cost_usd")
    }
    answers = Answers(
        models=tuple(models["model"]),
        examples=tuple(prompts["prompt_id"]),
        errors_mn=1.0 - tables["score"].to_numpy(np.float64),
        cost_usd_mn=tables["cost_usd"].to_numpy(np.float64),
    )
    return answers, load_embedder(embedder).embed(list(prompts["text"]))


#: What is chosen from; UniRoute's paper has both estimators.
FAMILIES: Mapping[str, list[Candidate]] = {
    "laplace_20": [Candidate(estimator="laplace", clusters=20)],
    "uniroute_tuned": [*candidates("laplace"), *candidates("means")],
    "empirical_bayes": [*candidates("empirical_bayes")],
    "low_rank": [*candidates("low_rank", (10, 20, 40))],
    "transfer": [*candidates("transfer", (10, 20, 40))],
}
#: What `auto` chooses from: it is the default.
AUTO = ("empirical_bayes", "low_rank", "transfer")


class Seed:
    """One seed's experiment."""

    def __init__(self, answers: Answers, embeddings: np.ndarray, seed: int) -> None:
        self.seed, self.answers, self.embeddings = seed, answers, embeddings
        self.parts = split(seed, len(answers.models), len(answers.examples))
        new = answers.of_models(self.parts.new)
        whole = ~np.isnan(new.errors_mn[:, self.parts.test]).any(axis=0)
        self.test = self.parts.test[whole]  # that every new model answered
        cost = new.mean_cost_usd()
        self.dearest_usd = float(cost.max())
        self.field = Field(quality_mq=1.0 - new.errors_mn[:, self.test], cost_m=cost / cost.max())
        self.errors_new = new.errors_mn
        self.errors_known = answers.of_models(self.parts.known).errors_mn

    def run(self, counts: tuple[int, ...]) -> Iterator[dict[str, object]]:
        """A record a method and number of answers."""
        yield self._record("clairvoyant_mlp", 0, self.field.curve(self._network()))
        yield self._record("oracle", 0, self.field.oracle())
        truth = 1.0 - self.field.quality_mq.mean(axis=1)
        yield self._record("zero_router_true", 0, self.field.zero_router(truth))
        for n in counts:
            seen = self.parts.validation[:n]
            means = np.nanmean(self.errors_new[:, seen], axis=1)
            yield self._record("zero_router", n, self.field.zero_router(means))
            yield self._nearest(n, seen)
            yield from self._estimators(n, seen)

    def _estimators(self, n: int, seen: np.ndarray) -> Iterator[dict[str, object]]:
        train, trials = self.parts.train, Trials(answers=n, seed=self.seed)
        best: dict[str, tuple[float, dict[str, object]]] = {}
        for name, family in FAMILIES.items():
            candidate, scores = choose(family, self.errors_known[:, train], self.embeddings[train], trials)
            record = self._record(name, n, self.field.curve(self._profiled(candidate, seen)))
            record["chosen"] = candidate.name
            best[name] = (scores[candidate.name], record)
            yield record
        winner = min(AUTO, key=lambda name: best[name][0])
        yield {**best[winner][1], "method": "auto"}

    def _profiled(self, candidate: Candidate, seen: np.ndarray) -> np.ndarray:
        """The new models' errors on the test prompts, from their answers to the validation prompts."""
        columns = np.concatenate([self.parts.train, seen])
        space = fit_clusters(self.embeddings[self.parts.train], candidate.clusters, self.seed)
        inside = space.assign(self.embeddings[columns])
        estimator = candidate.fit(
            Known(errors_mn=self.errors_known[:, columns], clusters_n=inside, clusters=candidate.clusters)
        )
        places = np.arange(len(self.parts.train), len(columns))
        psi = np.array(
            [
                estimator.profile(
                    Evidence(errors_n=errors[seen], clusters_n=inside[places], columns_n=places)
                ).psi_k
                for errors in self.errors_new
            ]
        )
        return psi[:, space.assign(self.embeddings[self.test])]

    def _nearest(self, n: int, seen: np.ndarray) -> dict[str, object]:
        chance = np.random.default_rng(self.seed)
        judged, fitted = np.split(chance.permutation(self.parts.train), [2000])
        losses: dict[Nearest, float] = {}
        drawn = fitted[:n]
        for k, strength in product(NEIGHBOURS, STRENGTHS):
            rule = Nearest(neighbours=k, strength=strength)
            predicted = rule.predict(
                self.errors_known[:, drawn], self.embeddings[drawn], self.embeddings[judged]
            )
            losses[rule] = relative_brier(predicted, self.errors_known[:, judged])
        rule = min(losses, key=losses.__getitem__)
        predicted = rule.predict(self.errors_new[:, seen], self.embeddings[seen], self.embeddings[self.test])
        return {**self._record("knn", n, self.field.curve(predicted)), "chosen": f"k={rule.neighbours}"}

    def _network(self) -> np.ndarray:
        network = MLPRegressor(
            hidden_layer_sizes=(128,), early_stopping=True, max_iter=60, random_state=self.seed
        )
        train = self.parts.train
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            network.fit(self.embeddings[train], np.nan_to_num(self.errors_new[:, train], nan=1.0).T)
        return network.predict(self.embeddings[self.test]).T

    def _record(self, method: str, n: int, curve: Curve) -> dict[str, object]:
        best = self.field.best_single
        return {
            "method": method,
            "answers": n,
            "seed": self.seed,
            "area": curve.area(self.field.cheapest),
            "qnc99": curve.cost_of(QUALITY_SHARE * best),
            "qnc": curve.cost_of(best),
            "peak": curve.peak,
            "best_single": best,
            "dearest_usd": self.dearest_usd,
        }


def report(table: pd.DataFrame) -> None:
    """Means, and differences paired by seed."""
    areas = table.pivot_table(index="method", columns="answers", values="area") * 1000
    print("### Area x 1000, mean over seeds\n")
    print("| method | " + " | ".join(f"n = {n}" if n else "-" for n in areas.columns) + " |")
    print("|---|" + "---|" * len(areas.columns))
    for method, row in areas.iterrows():
        print(f"| {method} | " + " | ".join("" if np.isnan(x) else f"{x:.1f}" for x in row) + " |")
    print("\n### low_rank minus others, x 1000: mean, 95 % interval, won-lost, sign test\n")
    counts = sorted(n for n in table["answers"].unique() if n)
    print("| against | " + " | ".join(f"n = {n}" for n in counts) + " |\n|---|" + "---|" * len(counts))
    for other in sorted(set(table["method"]) - {"low_rank", "oracle"}):
        cells = [paired(table, "low_rank", other, n) for n in counts]
        print(f"| {other} | " + " | ".join(cells) + " |")
    print(
        "\n### Median relative cost of 99 % of the best single model's accuracy (share of seeds that fail)\n"
    )
    for method, rows in table.groupby("method"):
        cells = [
            f"{n}: {part['qnc99'].median():.3f} ({part['qnc99'].isna().mean():.0%})"
            for n, part in rows.groupby("answers")
        ]
        print(f"- {method}: " + ", ".join(cells) + f"; peak {rows['peak'].mean():.3f}")


def paired(table: pd.DataFrame, one: str, other: str, n: int) -> str:
    """The difference of two methods over seeds."""
    # what has seen all answers, or none, stands beside each n
    rows = table[table["answers"].isin((0, n))].pivot(index="seed", columns="method", values="area")
    gaps = 1000 * (rows[one] - rows[other])
    won, lost = int((gaps > 1e-9).sum()), int((gaps < -1e-9).sum())
    p = stats.binomtest(won, won + lost).pvalue if won + lost else 1.0
    return f"{interval(gaps)}, {won}-{lost}, p {p:.2g}"


def interval(gaps: np.ndarray | pd.Series) -> str:
    """The mean of paired differences, and its 95 % interval (t)."""
    half = stats.t.ppf(0.975, len(gaps) - 1) * gaps.std(ddof=1) / np.sqrt(len(gaps))
    return f"{gaps.mean():+.1f} ± {half:.1f}"


def main() -> None:
    """Run all seeds."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pool", choices=("all", "cot", "complete"), default="all")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--embedder", default="wordllama")
    parser.add_argument("--answers", default="50,100,200,400,1000")
    parser.add_argument("--json", type=Path)
    told = parser.parse_args()
    answers, embeddings = read(told.data, told.pool, told.embedder)
    counts = tuple(int(n) for n in told.answers.split(","))
    records: list[dict[str, object]] = []
    for seed in range(told.seeds):
        records += Seed(answers, embeddings, seed).run(counts)
        if told.json:
            told.json.write_text(json.dumps(records))
    print(f"{len(answers.models)} models, {len(answers.examples)} prompts, seeds 0 to {told.seeds - 1}\n")
    report(pd.DataFrame(records))


if __name__ == "__main__":
    main()
