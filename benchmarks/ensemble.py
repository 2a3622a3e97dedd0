"""The ensemble on real and made series: each rule's loss relative to the best single expert in hindsight.

    python benchmarks/ensemble.py [--series-dir DIR] [--steps 4000] [--sktime PYTHON] [--river PYTHON]

The series, and ten simple experts for each, are `ensemble_series`'s; with `--series-dir` every CSV of a
folder that has a `value` column (or the columns of ETTh1) is a second table. Everybody gets the same
forecasts and the same feedback: the second third teaches, the last third is measured, leads 1 and 6, and
a row is learnt when its truth is known. `policy` is `integrate` and `backtest` as they come; a rule by
its name is the library's `Aggregator` over the ten experts. The peers run in `ensemble_peers`, with the
interpreters given; river's tuned row is the best in hindsight of two losses and four rates.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from ensemble_series import HOUR, LEADS, START, Case, cases, tables
from modelyard.ensemble.combining.aggregator import Aggregator, Pool
from modelyard.ensemble.combining.rules import METHODS
from modelyard.ensemble.learning.integrate import integrate_tables
from modelyard.ensemble.measuring.backtest import backtest_policy
from modelyard.ensemble.policies.settings import Settings

MEASURED = (1, LEADS)
PEERS = ("river", "sktime")
Losses = dict[tuple[str, int], float]  # by contestant and lead


def best_single(case: Case, lead: int) -> float:
    """The least mean absolute error of one expert on the measured rows."""
    error = np.abs(case.forecast[case.cut :, lead - 1] - case.truth[case.cut :, None])
    return float(error.mean(axis=0).min())


def rule_loss(case: Case, lead: int, method: str) -> float:
    """Of the library over the experts, with the delay of the lead."""
    pool = Aggregator(Pool(experts=len(case.groups), method=method, delay=lead))
    errors = []
    for t, row in enumerate(case.forecast[:, lead - 1]):
        mixed = pool.predict(row)[0]
        pool.update(case.truth[t - lead + 1] if t >= lead - 1 else np.nan)
        if t >= case.cut:
            errors.append(abs(mixed - case.truth[t]))
    return float(np.mean(errors))


def policy_losses(case: Case) -> Losses:
    """Of the policy as it comes."""
    predictions, truth = tables(case)
    cut = START + HOUR * case.cut
    settings = Settings(horizon=LEADS, period=case.season, step_s=3600.0, validation_until=cut)
    policy = integrate_tables(
        predictions, truth, settings=settings, groups=case.groups, excluded=(), created_at="2000-01-01T00:00Z"
    )
    table = backtest_policy(policy, predictions, truth).summary["table"]
    return {
        ("policy", row["lead"]): row["mae"]
        for row in table
        if row["kind"] == "policy" and row["rows"] == "all" and row["lead"] in MEASURED
    }


def measure(case: Case) -> Losses:
    """Everything of ours on one series, relative to the best single expert in hindsight."""
    found = policy_losses(case)
    found |= {(method, lead): rule_loss(case, lead, method) for method in METHODS for lead in MEASURED}
    return {(who, lead): loss / best_single(case, lead) for (who, lead), loss in found.items()}


def peer_losses(peer: str, python: str, all_cases: list[Case]) -> tuple[str, list[Losses]]:
    """A peer's version, and its losses on every case."""
    given: dict[str, np.ndarray] = {}
    for i, case in enumerate(all_cases):
        for lead in MEASURED:
            key = f"{i}_{lead}"
            given |= {f"forecast_{key}": case.forecast[:, lead - 1], f"truth_{key}": case.truth}
            given[f"cut_{key}"] = np.array(case.cut)
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "in.npz", **given)
        script = Path(__file__).with_name("ensemble_peers.py")
        paths = [str(Path(folder) / name) for name in ("in.npz", "out.json")]
        subprocess.run([python, "-W", "ignore", str(script), peer, *paths], check=True)
        result = json.loads((Path(folder) / "out.json").read_text())
    found: list[Losses] = [
        {
            (name, lead): losses[f"{i}_{lead}"] / best_single(case, lead)
            for name, losses in result["losses"].items()
            for lead in MEASURED
        }
        for i, case in enumerate(all_cases)
    ]
    return f"{peer} {result['version']}", found


def print_tables(rows: dict[str, Losses]) -> None:
    """A Markdown table of every series, and one of the medians, worsts and pairs."""
    contestants = list(dict.fromkeys(who for row in rows.values() for who, _ in row))
    for lead in MEASURED:
        print(f"\nLead {lead}:\n\n| series | " + " | ".join(contestants) + " |")
        print("|---|" + "---|" * len(contestants))
        for name, row in rows.items():
            print(f"| {name} | " + " | ".join(f"{row[who, lead]:.3g}" for who in contestants) + " |")
    print("\n| | " + " | ".join(f"median@{h} | worst@{h} | policy better@{h}" for h in MEASURED) + " |")
    print("|---|" + "---|" * (3 * len(MEASURED)))
    for who in contestants:
        cells = []
        for lead in MEASURED:
            own = [row[who, lead] for row in rows.values()]
            known = [value for value in own if value == value]
            won = sum(
                row["policy", lead] < row[who, lead] or row[who, lead] != row[who, lead]
                for row in rows.values()
            )
            cells += [f"{statistics.median(known):.3f}", f"{max(known):.3g}", f"{won} of {len(own)}"]
        print(f"| {who} | " + " | ".join(cells) + " |")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--series-dir", type=Path)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument(
        "--river", default=sys.executable, help="an interpreter that has river; empty: without"
    )
    parser.add_argument("--sktime", default="", help="an interpreter that has sktime")
    chosen = parser.parse_args()
    all_cases = list(cases(chosen.series_dir, chosen.steps))
    begun, rows = time.process_time(), {}
    for case in all_cases:
        rows[case.name] = measure(case)
        print(
            f"{case.name}: {json.dumps({f'{w}@{h}': round(v, 3) for (w, h), v in rows[case.name].items()})}",
            file=sys.stderr,
        )
    print(f"{len(rows)} series, {time.process_time() - begun:.0f} CPU s for ours")
    for peer in PEERS:
        python = getattr(chosen, peer)
        if python:
            version, found = peer_losses(peer, python, all_cases)
            print(version)
            for case, losses in zip(all_cases, found, strict=True):
                rows[case.name] |= losses
    print_tables(rows)


if __name__ == "__main__":
    main()
