"""Certificates on real outcomes: python benchmarks/certify_outcomes.py DATA [--items 2000] [--json out.json]

DATA is the folder of `mmlu_pro_pool`: what 51 models made of 12,032 prompts. Twenty pairs are chosen by rule
and seed: ten whose accuracies on all prompts lie within one point of each other, ten at random; which of a
pair is the candidate is drawn too. Each is certified for superiority at 5 % on a pack of as many prompts,
drawn by the seed: with a fixed number of items, and sequentially. The answers are replayed: right or wrong,
as they were; a missing one is missing. The truth is the difference over all prompts. Every certificate is
recomputed by `modelyard.verify`.

Beside that, the same pairs on `--packs` further packs, by the statistics alone: how often a pair whose
candidate is not better passes, how often one that is better does, and how many items that takes.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import tempfile
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from modelyard.evaluation.interview import Surroundings
from modelyard.evaluation.pool import read_pool
from modelyard.evidence.certify import certify
from modelyard.evidence.comparison import Terms, declare_comparison
from modelyard.evidence.design import declare
from modelyard.evidence.outcomes import Item, Outcome, Outcomes, asking_order
from modelyard.evidence.sequential import Monitor
from modelyard.evidence.verdict import judge
from modelyard.runs.yard import open_yard
from modelyard.verify.certificate import verify_certificate

CLOSE, EACH, SEED = 0.01, 10, 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two models of the pool; `truth` is the candidate's accuracy less the baseline's over all prompts."""

    kind: str
    candidate: str
    baseline: str
    truth: float


def load(folder: Path) -> tuple[list[str], dict[str, np.ndarray]]:
    """The prompts, and each complete model's scores on them; NaN where it gave no answer."""
    table = pq.read_table(folder / "scores.parquet", columns=["model", "prompt_id", "score", "no_pred"])
    columns = {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}
    prompts = sorted({str(each) for each in columns["prompt_id"]})
    place = {prompt: at for at, prompt in enumerate(prompts)}
    scores: dict[str, np.ndarray] = {}
    for model in sorted({str(each) for each in columns["model"]}):
        mine = columns["model"] == model
        values = np.full(len(prompts), np.nan)
        rows = [place[str(each)] for each in columns["prompt_id"][mine]]
        silent = columns["no_pred"][mine].astype(bool)
        values[rows] = np.where(silent, np.nan, columns["score"][mine].astype(float))
        if mine.sum() >= 0.99 * len(prompts):
            scores[model] = values
    return prompts, scores


def pairs_of(scores: dict[str, np.ndarray]) -> list[Pair]:
    """Ten close pairs and ten at random."""
    chance = random.Random(SEED)
    mean = {model: float(np.nan_to_num(values).mean()) for model, values in scores.items()}
    every = list(combinations(sorted(mean), 2))
    close = [pair for pair in every if abs(mean[pair[0]] - mean[pair[1]]) <= CLOSE]
    chosen = [("close", pair) for pair in chance.sample(close, EACH)]
    rest = [pair for pair in every if pair not in {pair for _, pair in chosen}]
    chosen += [("random", pair) for pair in chance.sample(rest, EACH)]
    made = []
    for kind, pair in chosen:
        candidate, baseline = chance.sample(pair, 2)
        truth = mean[candidate] - mean[baseline]
        made.append(Pair(kind=kind, candidate=candidate, baseline=baseline, truth=truth))
    return made


def certified(
    folder: Path, pair: Pair, prompts: list[str], scores: dict[str, np.ndarray], *, sequential: bool
) -> dict[str, Any]:
    """One certificate, issued and recomputed."""
    folder.mkdir(parents=True)
    items = [
        {"id": p, "prompt": p, "answers": ["right"], "scorer": "exact", "split": "certify"} for p in prompts
    ]
    (folder / "pack.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    entries = []
    for name in (pair.candidate, pair.baseline):
        path = folder / f"{len(entries)}.jsonl"
        lines = [
            {"model": name, "example_id": prompt, "sample": 0,
             "text": None if np.isnan(value) else "right" if value else "wrong", "error": "no prediction"}
            for prompt, value in zip(prompts, scores[name], strict=True)
        ]  # fmt: skip
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")
        entries.append(
            {"name": plain, "model": name, "engine": "replay", "answers": path.name, "parallel": 1}
        )
    candidate, baseline = read_pool({"pool": entries}, path=folder / "yard.yaml")
    terms = Terms(design=declare(nominal_alpha=0.05, sequential=sequential, seed=SEED))
    comparison = declare_comparison(
        folder / "pack.jsonl", {"candidate": candidate, "baseline": baseline}, terms
    )
    yard = open_yard(folder / ".modelyard", create=True)
    done = certify(yard, comparison, Surroundings(environment={}))
    assert done.report is not None
    confirmed = verify_certificate(done.folder / "paired_eval_report.json")
    return {
        "verdict": done.report["verdict"],
        "confirmed": not confirmed.faults and confirmed.verdict == done.report["verdict"],
        "faults": list(confirmed.faults),
        "items": done.report["items_asked"],
        "delta": done.report["effect"]["delta"],
        "ci": done.report["effect"]["ci"],
        "p_value": done.report["p_value"],
    }


def judged(
    pair: Pair, places: np.ndarray, scores: dict[str, np.ndarray], *, sequential: bool
) -> tuple[str, int]:
    """The verdict and the items that it took, by the statistics alone."""
    design = declare(nominal_alpha=0.05, sequential=sequential, seed=SEED, method="mcnemar_exact")
    pack = asking_order([Item(id=str(place)) for place in places], SEED)
    monitor, answered = Monitor(design, pack), []
    for item in pack:
        values = [scores[name][int(item.id)] for name in (pair.baseline, pair.candidate)]
        silent = [int(np.isnan(value)) for value in values]
        outcome = Outcome(
            item=item,
            baseline=(float(np.nan_to_num(values[0])),),
            candidate=(float(np.nan_to_num(values[1])),),
            missing_baseline=silent[0], missing_candidate=silent[1],
        )  # fmt: skip
        answered.append(outcome)
        if sequential and monitor.tell(outcome) in ("pass", "fail"):
            break
    return judge(Outcomes(pack=pack, answered=tuple(answered)), design).verdict, len(answered)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--items", type=int, default=2000)
    parser.add_argument("--packs", type=int, default=50)
    parser.add_argument("--json", type=Path)
    told = parser.parse_args()
    prompts, scores = load(told.data)
    pairs = pairs_of(scores)
    chance = np.random.default_rng(SEED)
    drawn = np.sort(chance.choice(len(prompts), told.items, replace=False))
    mine = [prompts[place] for place in drawn]
    rows = []
    for number, pair in enumerate(pairs):
        cut = {name: scores[name][drawn] for name in (pair.candidate, pair.baseline)}
        row: dict[str, Any] = {"kind": pair.kind, "candidate": pair.candidate, "baseline": pair.baseline,
                               "truth": pair.truth}  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            for way, sequential in (("fixed", False), ("sequential", True)):
                row[way] = certified(Path(folder) / way, pair, mine, cut, sequential=sequential)
        rows.append(row)
        print(f"{number + 1:2d}/{len(pairs)} {row['kind']:6s} {100 * pair.truth:+6.2f} points  "
              f"fixed {row['fixed']['verdict']:12s} sequential {row['sequential']['verdict']:12s} "
              f"after {row['sequential']['items']}  confirmed {row['fixed']['confirmed']} "
              f"{row['sequential']['confirmed']}", flush=True)  # fmt: skip
    repeated = repeats(pairs, scores, told.packs, told.items, chance)
    for line in summary(rows, repeated):
        print(line)
    if told.json:
        told.json.write_text(json.dumps({"items": told.items, "pairs": rows, "repeated": repeated}, indent=1))


def repeats(
    pairs: list[Pair], scores: dict[str, np.ndarray], packs: int, items: int, chance: np.random.Generator
) -> list[dict[str, Any]]:
    """The verdicts of every pair on further packs."""
    found = []
    for _ in range(packs):
        places = chance.choice(len(next(iter(scores.values()))), items, replace=False)
        for pair in pairs:
            for sequential in (False, True):
                verdict, asked = judged(pair, places, scores, sequential=sequential)
                found.append({"kind": pair.kind, "truth": pair.truth, "sequential": sequential,
                              "verdict": verdict, "items": asked})  # fmt: skip
    return found


def summary(rows: list[dict[str, Any]], repeated: list[dict[str, Any]]) -> list[str]:
    """The lines of the tables."""
    confirmed = sum(row[way]["confirmed"] for row in rows for way in ("fixed", "sequential"))
    lines = [f"certificates confirmed: {confirmed} of {2 * len(rows)}"]
    for way in ("fixed", "sequential"):
        for kind in ("close", "random"):
            mine = [row for row in rows if row["kind"] == kind]
            right = sum(
                (row[way]["verdict"] == "pass" and row["truth"] > 0)
                or (row[way]["verdict"] == "fail" and row["truth"] < 0)
                for row in mine
            )
            wrong = sum(
                (row[way]["verdict"] == "pass" and row["truth"] <= 0)
                or (row[way]["verdict"] == "fail" and row["truth"] >= 0)
                for row in mine
            )
            items = median(row[way]["items"] for row in mine)
            lines.append(f"{way:10s} {kind:6s}: {right} right, {wrong} wrong, {len(mine) - right - wrong} "
                         f"inconclusive; items median {items:.0f}")  # fmt: skip
    for sequential in (False, True):
        for kind in ("close", "random"):
            mine = [r for r in repeated if r["sequential"] is sequential and r["kind"] == kind]
            if not mine:
                continue
            worse, better = [r for r in mine if r["truth"] <= 0], [r for r in mine if r["truth"] > 0]
            passed = [sum(r["verdict"] == "pass" for r in group) for group in (worse, better)]
            way, items = "sequential" if sequential else "fixed", median(r["items"] for r in mine)
            lines.append(
                f"{way:10s} {kind:6s}, further packs: a candidate that is not better passes {passed[0]} of "
                f"{len(worse)}, one that is better {passed[1]} of {len(better)}; items median {items:.0f}"
            )
    return lines


if __name__ == "__main__":
    main()
