"""Greedy soups of each family's base and specialists, chosen on val and measured on test."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from merge_helps_family import MEAN, Family, Subject, best
from merge_helps_recipes import Tool, average, merge, objective, soup


def print_soups(subject: Subject, folder: Path, modelyard: Path) -> None:
    """A row a design: the best parent, the plain average and the greedy soup, and what the soup holds."""
    tool = Tool(path=modelyard, ours=True)
    measure, higher = next(iter(subject.measures.items()))
    designs: dict[str, list[Family]] = {}
    for family in subject.families(folder):
        designs.setdefault(family.design, []).append(family)
    print(f"| design | best parent | average of all | greedy soup | gain on it ({measure}) | soups |")
    print("|---|---|---|---|---|---|")
    for design, families in designs.items():
        rows = [_soup(subject, tool, family, measure, higher=higher) for family in families]
        gains = [found - parent for parent, _, found, _ in rows]
        means = [f"{statistics.fmean(row[i] for row in rows):.3f}" for i in range(3)]
        gain = f"{statistics.fmean(gains):+.3f}, in {sum(g > 0 for g in gains)} of {len(gains)}"
        print(
            f"| {design} | {' | '.join(means)} | {gain} | {'; '.join(row[3] for row in rows)} |", flush=True
        )


def _soup(
    subject: Subject, tool: Tool, family: Family, measure: str, *, higher: bool
) -> tuple[float, float, float, str]:
    def worth(checkpoint: Path) -> float:
        return subject.measure(checkpoint, "test", family.domains)[MEAN][measure]

    with tempfile.TemporaryDirectory(dir=family.home) as work:
        domains = "".join(f" --domain {domain}" for domain in family.domains)
        command = objective(subject.script, "mean_loss") + domains
        record = soup(tool, family, Path(work) / "soup", command)
        merge(tool, average(family, family.parents).document, Path(work) / "average", 0)
        taken = [n for n, w in zip(family.parents, record["best"]["assignments"].values(), strict=True) if w]
        parent = best((worth(family.home / name) for name in family.parents), higher=higher)
        return parent, worth(Path(work) / "average"), worth(Path(work) / "soup"), "+".join(taken)
