"""Routers of llmrouter-lib 0.4.0 and RouteLLM 0.2.0 beside modelyard's: same answers, split, embeddings.

    OPENAI_API_KEY=none LITELLM_LOCAL_MODEL_COST_MAP=True OMP_NUM_THREADS=1 \
        python benchmarks/routing_peers.py --data DIR [--seeds 5] [--cases static,dynamic] [--json out.json]

(RouteLLM makes an OpenAI client when it is imported, and wants a key to do so; nothing is called.)

DIR is that of `routing.py`, whose `split` and embeddings are used. Two cases:

static   every model of the pool is known: all learn from the answers of all models to 5,000 prompts.
dynamic  half of the pool is new, and has answered 400 prompts: peers are trained on these answers, ours
         takes the new models in (fitted on the other models' 5,000 answers, which peers cannot use).

Both are tested on 2,500 other prompts. Ours is `low_rank`, options chosen on known models' answers alone.

A peer of llmrouter-lib names one model a prompt and cannot weigh cost: a point. Its Area is that of the
line from the cheapest model to the point, flat after it, as ZeroRouter would mix the two. `read out` is
more than it offers: the Area of choosing the highest score - lambda * cost from its scores. RouteLLM's
routers and llmrouter-lib's hybrid choose between two models by a threshold, which makes a curve, joined
to the cheapest model alike; RouteLLM's point is where half of the prompts go to the strong model,
hybrid's is its own threshold. Their pair: of all pairs the one whose mix has the largest Area on the
answers that are learned from. `never falling` is the Area where no more is spent than helps: a threshold
must end at "always the strong model", which may be worse than a mix. For all alike, after the test. Below
the cheaper model of its pair such a router has only the line, so that the rest is compared apart.

`routing_peers_trained.py` says how peers are trained. Needs, besides modelyard[routing] and scikit-learn:
torch, llmrouter-lib==0.4.0 and routellm==0.2.0 (without their dependencies), transformers, datasets,
huggingface_hub, openai, litellm, torch_geometric, pyyaml, pydantic, pillow, tqdm.

Not run: llmrouter-lib's graph router on the static case (it searches the frame of all answers twice for
each of 5,000 prompts, graphrouter/router.py:92, 103, and passes 400 times over 255,000 edges); RouteLLM's
ranking over all models (each decision is a regression over all battles, routers/routers.py:196).

Cannot be trained on such answers alone. RouteLLM: BERTRouter and CausalLLMRouter load checkpoints
(routers/routers.py:112, 71) and the package has no code that trains them. llmrouter-lib, under models/:
DCRouter (routerdc/router.py:79) and CausalLMRouter (causallm_router/trainer.py:83) fine-tune a language
model; AutomixRouter asks a model whether its own answer is right (automix/data_pipeline.py:651);
KNNMultiRoundRouter (knnmultiroundrouter/router.py:204), LLMMultiRoundRouter and RouterR1
(router_r1/router.py:213) ask a model to divide the prompt; GMTRouter (gmtrouter/data_loader.py:4) and
PersonalizedRouter (personalizedrouter/router.py:44, 167) learn from users, the latter with vectors of the
models that are given; TSRouter reads another repository's folder (tsrouter/router.py:121).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from modelyard.routing.answers import Answers
from modelyard.routing.clusters import fit_clusters
from modelyard.routing.deferral import Curve, Field
from modelyard.routing.estimators import Evidence, Known
from modelyard.routing.selection import Trials, choose
from routing import FAMILIES, Division, read, split
from routing_peers_trained import ORDERS, Lesson, Routed, train_factors, train_llmrouter, train_ranking

ANSWERS = 400
#: Battles of all models; RouteLLM's own arena has 55,000, and 60,000 gave 0.003 more Area on seed 0.
ARENA = 20_000
PACKAGES = ("llmrouter-lib", "routellm", "torch", "scikit-learn", "transformers", "numpy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One seed's models and prompts."""

    name: str
    # The pool that is routed over, and the models whose answers are known beside (the same where static).
    pool: Answers
    known_errors_mn: np.ndarray
    # Prompts that known models answered, that the pool answered, and of the test.
    train: np.ndarray
    seen: np.ndarray
    test: np.ndarray
    embeddings: np.ndarray
    seed: int

    @property
    def relative_cost_m(self) -> np.ndarray:
        """Of the pool's models."""
        cost = self.pool.mean_cost_usd()
        return cost / cost.max()

    def field(self, columns: np.ndarray) -> Field:
        """What happened on some prompts."""
        return Field(quality_mq=1.0 - self.pool.errors_mn[:, columns], cost_m=self.relative_cost_m)

    def seen_quality_m(self) -> np.ndarray:
        """Of each model of the pool on what it answered."""
        return 1.0 - np.nanmean(self.pool.errors_mn[:, self.seen], axis=1)


def cases(answers: Answers, embeddings: np.ndarray, seed: int, names: list[str]) -> Iterator[Case]:
    """The cases of a seed."""
    parts: Division = split(seed, len(answers.models), len(answers.examples))
    everything = np.arange(len(answers.models))
    rows = {
        "static": (everything, everything, parts.train),
        "dynamic": (parts.new, parts.known, parts.validation[:ANSWERS]),
    }
    for name in names:
        pool, known, seen = rows[name]
        routed = answers.of_models(pool)
        whole = ~np.isnan(routed.errors_mn[:, parts.test]).any(axis=0)
        yield Case(
            name=name,
            pool=routed,
            known_errors_mn=answers.of_models(known).errors_mn,
            train=parts.train,
            seen=seen,
            test=parts.test[whole],
            embeddings=embeddings,
            seed=seed,
        )


def ours(case: Case) -> tuple[np.ndarray, str, float]:
    """The pool's predicted errors on the test prompts, [M, Q]; what was chosen; CPU seconds."""
    begun = time.process_time()
    trials = Trials(answers=len(case.seen), seed=case.seed)
    errors, inside = case.known_errors_mn, case.embeddings[case.train]
    candidate, _ = choose(FAMILIES["low_rank"], errors[:, case.train], inside, trials)
    fresh = np.setdiff1d(case.seen, case.train)
    columns = np.concatenate([case.train, fresh])
    space = fit_clusters(inside, candidate.clusters, case.seed)
    clusters = space.assign(case.embeddings[columns])
    known = Known(errors_mn=errors[:, columns], clusters_n=clusters, clusters=candidate.clusters)
    estimator = candidate.fit(known)
    places = np.flatnonzero(np.isin(columns, case.seen))
    psi = np.array(
        [
            estimator.profile(
                Evidence(errors_n=row[columns[places]], clusters_n=clusters[places], columns_n=places)
            ).psi_k
            for row in case.pool.errors_mn
        ]
    )
    spent = time.process_time() - begun
    return psi[:, space.assign(case.embeddings[case.test])], candidate.name, spent


def best_pair(case: Case) -> tuple[int, int]:
    """The cheap and the strong model whose mix has the largest Area on the answers that were seen."""
    cost, quality = case.relative_cost_m, case.seen_quality_m()
    pairs = [(a, b) for a in range(len(cost)) for b in range(len(cost)) if cost[a] < cost[b]]
    cheapest = int(np.argmin(cost))
    areas = [Curve.of(cost[list(p)], quality[list(p)]).area(cost[cheapest]) for p in pairs]
    return pairs[int(np.argmax(areas))]


def lesson(case: Case) -> Lesson:
    """What peers may learn from: the answers that the pool gave."""
    return Lesson(
        models=case.pool.models,
        prompts=tuple(case.pool.examples[n] for n in case.seen),
        quality_mn=1.0 - case.pool.errors_mn[:, case.seen],
        embeddings_nd=case.embeddings[case.seen],
        cost_m=case.relative_cost_m,
        pair=best_pair(case),
        asked_qd=case.embeddings[case.test],
        seed=case.seed,
    )


def battles_of_pair(told: Lesson) -> pd.DataFrame:
    """The pair's battles on every prompt that both answered."""
    weak, strong = told.pair
    return _battles(told, np.broadcast_to([strong, weak], (len(told.prompts), 1, 2)))


def battles_of_all(told: Lesson) -> pd.DataFrame:
    """As many pairs drawn for each prompt as make an arena."""
    each = ARENA // len(told.prompts)
    chance = np.random.default_rng(told.seed).random((len(told.prompts), each, len(told.models)))
    return _battles(told, chance.argsort(axis=2)[:, :, :2])


def _battles(told: Lesson, drawn_nb2: np.ndarray) -> pd.DataFrame:
    prompts = np.repeat(np.arange(len(drawn_nb2)), drawn_nb2.shape[1])
    a, b = drawn_nb2.reshape(-1, 2).T
    gap = told.quality_mn[a, prompts] - told.quality_mn[b, prompts]
    winner = np.where(gap > 0, "model_a", np.where(gap < 0, "model_b", "tie"))
    rows = pd.DataFrame({"a": a, "b": b, "prompt": prompts, "winner": winner})
    return rows[~np.isnan(gap)]


def peers(name: str, orders: list[str]) -> dict[str, Callable[[Lesson], Routed]]:
    """What is trained in a case, by name."""
    made: dict[str, Callable[[Lesson], Routed]] = {}
    for kind in ("knn", "svm", "mlp", "mf", "elo", "graph"):
        if kind == "graph" and name == "static":
            continue  # see the end of this file's docstring
        for order in orders:
            made[f"llmrouter {kind}, {order}"] = partial(train_llmrouter, kind=kind, order=order)
    made["llmrouter hybrid"] = partial(train_llmrouter, kind="hybrid", order="cheapest")
    made["routellm mf, pair"] = lambda told: train_factors(told, battles_of_pair(told))
    made["routellm mf, all"] = lambda told: train_factors(told, battles_of_all(told))
    made["routellm sw_ranking, pair"] = lambda told: train_ranking(told, battles_of_pair(told))
    return made


def run(case: Case, orders: list[str], only: str) -> Iterator[dict[str, object]]:
    """A record a method."""
    field = case.field(case.test)
    predicted, chosen, spent = ours(case)
    curve = field.curve(predicted)
    zero = field.zero_router(1.0 - case.seen_quality_m())
    best = int(np.argmax(case.seen_quality_m()))
    basis = {"case": case.name, "seed": case.seed, "prompts": len(case.test), "best": field.best_single}
    mine = {**_of_curve(curve, field), "train_cpu_s": spent, "note": chosen}
    yield {**basis, "method": "modelyard low_rank", **mine}
    yield {**basis, "method": "ZeroRouter", **_of_curve(zero, field)}
    told = lesson(case)

    def record(method: str, routed: Routed) -> dict[str, object]:
        cost, quality = field.outcome(routed.chosen_q)
        return {
            **basis,
            "method": method,
            "cost": cost,
            "accuracy": quality,
            **_areas(field, routed),
            "train_cpu_s": routed.train_cpu_s,
            "decide_cpu_ms": routed.decide_cpu_ms,
            "models_used": len(np.unique(routed.chosen_q)),
            "ours_minus": float(curve.at(cost)) - quality,
            "zero_minus": float(zero.at(cost)) - quality,
            **_above(field, routed, curve),
        }

    single = Routed(chosen_q=np.full(len(case.test), best), train_cpu_s=0.0)
    yield {**record("best single model", single), "note": case.pool.models[best]}
    pair = " + ".join(case.pool.models[m] for m in told.pair)
    for method, train in peers(case.name, orders).items():
        if re.search(only, method):
            yield {**record(method, train(told)), "pair": pair}


def _areas(field: Field, routed: Routed) -> dict[str, float]:
    """The Area of what it offers, joined to the cheapest model, and of what can be read out."""
    cheapest = int(np.argmin(field.cost_m))
    base = field.outcome(np.full(field.quality_mq.shape[1], cheapest))
    choices = routed.chosen_q[None] if routed.choices_pq is None else routed.choices_pq
    cost, quality = np.array([base, *(field.outcome(row) for row in choices)]).T
    areas = _of_curve(Curve.of(cost, quality), field)
    if routed.scores_mq is not None:
        areas["area_read_out"] = field.curve(1.0 - routed.scores_mq).area(field.cheapest)
    return areas


def _above(field: Field, routed: Routed, curve: Curve) -> dict[str, float]:
    """Ours minus a router of two, Area from the cost of the cheaper of the two on, neither ever falling."""
    if routed.choices_pq is None:
        return {}
    cost, quality = np.array([field.outcome(row) for row in routed.choices_pq]).T
    areas = [_never_falling(c).area(cost.min()) for c in (curve, Curve.of(cost, quality))]
    return {"ours_minus_above": areas[0] - areas[1]}


def _never_falling(curve: Curve) -> Curve:
    return Curve.of(curve.cost_p, np.maximum.accumulate(curve.quality_p))


def _of_curve(curve: Curve, field: Field) -> dict[str, float]:
    """Its Area, and the Area where no more is spent than helps, which is only known after the test."""
    best = _never_falling(curve)
    return {"area": curve.area(field.cheapest), "area_never_falling": best.area(field.cheapest)}


def report(table: pd.DataFrame) -> None:
    """A table a case: means over seeds, differences paired by seed."""
    for name, rows in table.groupby("case", sort=False):
        prompts = rows["prompts"].mean()
        print(f"\n### {name}: {rows['seed'].nunique()} seeds, {prompts:.0f} test prompts on average\n")
        print(
            "| method | accuracy | relative cost | Area x 1000 | never falling | read out | models used "
            "| CPU s | ms a decision | ours minus it, at its cost (x 1000) | ZeroRouter minus it, there |"
        )
        print("|---|" + "---|" * 10)
        for method, part in rows.groupby("method", sort=False):
            shown = [
                _mean(part, "accuracy", 1, 3),
                _mean(part, "cost", 1, 3),
                _mean(part, "area", 1000, 1),
                _mean(part, "area_never_falling", 1000, 1),
                _mean(part, "area_read_out", 1000, 1),
                _mean(part, "models_used", 1, 1),
                _mean(part, "train_cpu_s", 1, 1),
                _mean(part, "decide_cpu_ms", 1, 2),
                _interval(part, "ours_minus"),
                _interval(part, "zero_minus"),
            ]
            print(f"| {method} | " + " | ".join(shown) + " |")
        _differences(rows)


def _differences(rows: pd.DataFrame) -> None:
    """Of Areas, ours minus each."""
    tables = [rows.pivot(index="seed", columns="method", values=v) for v in ("area", "area_never_falling")]
    print("\nArea x 1000, ours minus each, paired by seed; the same of curves that never fall:\n")
    for method in tables[0].columns.drop("modelyard low_rank"):
        gaps = [pd.DataFrame({"gap": t["modelyard low_rank"] - t[method]}) for t in tables]
        print(f"- {method}: " + "; ".join(_interval(gap, "gap") for gap in gaps))
    print("\nFrom the cost of the cheaper of its two models on:\n")
    for method, part in rows.dropna(subset="ours_minus_above").groupby("method", sort=False):
        print(f"- {method}: {_interval(part, 'ours_minus_above')}")


def _mean(part: pd.DataFrame, column: str, scale: float, places: int) -> str:
    if column not in part or part[column].isna().all():
        return ""
    return f"{scale * part[column].mean():.{places}f}"


def _interval(part: pd.DataFrame, column: str) -> str:
    """Mean and 95 % interval (t), seeds won and lost."""
    gaps = 1000 * part[column].dropna()
    if len(gaps) < 2:
        return "" if gaps.empty else f"{gaps.iloc[0]:+.1f}"
    half = stats.t.ppf(0.975, len(gaps) - 1) * gaps.std(ddof=1) / np.sqrt(len(gaps))
    return f"{gaps.mean():+.1f} ± {half:.1f}, {(gaps > 1e-9).sum()}-{(gaps < -1e-9).sum()}"


def main() -> None:
    """Run all seeds."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pool", choices=("all", "cot", "complete"), default="all")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--cases", default="static,dynamic")
    parser.add_argument("--orders", default=",".join(ORDERS))
    parser.add_argument("--only", default="", help="peers whose name has this expression in it")
    parser.add_argument("--json", type=Path)
    told = parser.parse_args()
    answers, embeddings = read(told.data, told.pool, "wordllama")
    records: list[dict[str, object]] = []
    for seed in range(told.seeds):
        for case in cases(answers, embeddings, seed, told.cases.split(",")):
            for record in run(case, told.orders.split(","), told.only):
                records.append(record)
                if told.json:
                    told.json.write_text(json.dumps(records))
    print(
        f"{len(answers.models)} models, {len(answers.examples)} prompts, seeds 0 to {told.seeds - 1}; ",
        end="",
    )
    print(", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES))
    report(pd.DataFrame(records))


if __name__ == "__main__":
    main()
