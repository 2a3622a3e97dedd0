"""Does merging help? The command line that the subjects share (merge_helps_digits.py, merge_helps_lm.py).

`make` trains the checkpoints, `evaluate` measures one (it is the objective of a search, too), and
`report` merges them with every method and prints what each is worth on data that nothing has seen;
`soup` averages greedily, chosen on the data for choosing, and prints the same.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from merge_helps_family import MEAN, SPLITS

if TYPE_CHECKING:
    from merge_helps_family import Subject


def main(subject: Subject) -> None:
    """Do what the command line says."""
    told = parser(subject).parse_args()
    if told.verb == "make":
        for seed in told.seed:
            subject.make(told.folder, seed)
    elif told.verb == "evaluate":
        evaluate(subject, told)
    elif told.verb == "soup":
        from merge_helps_soup import print_soups

        print_soups(subject, told.folder, told.modelyard)
    else:
        from merge_helps_report import Plan, print_report

        tool = told.tool or told.modelyard
        print_report(
            subject,
            Plan(
                folder=told.folder,
                tool=tool,
                ours=told.modelyard is not None,
                trials=told.trials,
                skip=tuple(told.skip.split(",")),
                fresh=told.fresh,
            ),
        )


def evaluate(subject: Subject, told: argparse.Namespace) -> None:
    """Print the scores of a checkpoint, or one of its means."""
    scores = subject.measure(told.checkpoint, told.split, told.domain or subject.domains)
    if told.metric:
        print(scores[MEAN][told.metric.removeprefix("mean_")])
    else:
        json.dump(scores, sys.stdout, indent=2)
        print()


def parser(subject: Subject) -> argparse.ArgumentParser:
    """The command line."""
    whole = argparse.ArgumentParser(description=f"Does merging help? {subject.title}")
    verbs = whole.add_subparsers(dest="verb", required=True)
    making = verbs.add_parser("make", help="train the checkpoints that are not there yet")
    making.add_argument("folder", type=Path)
    making.add_argument("--seed", type=int, nargs="+", default=[1])
    judging = verbs.add_parser("evaluate", help="print the scores of one checkpoint")
    judging.add_argument("checkpoint", type=Path)
    judging.add_argument("--split", choices=SPLITS, default="val")
    judging.add_argument("--domain", action="append")
    judging.add_argument("--metric", choices=[f"mean_{name}" for name in subject.measures])
    stirring = verbs.add_parser("soup", help="greedy soups of base and specialists")
    stirring.add_argument("folder", type=Path)
    stirring.add_argument("--modelyard", type=Path, required=True, help="our console script")
    telling = verbs.add_parser("report", help="merge with every method and print the tables")
    telling.add_argument("folder", type=Path)
    tools = telling.add_mutually_exclusive_group(required=True)
    tools.add_argument("--modelyard", type=Path, help="our console script")
    tools.add_argument("--tool", type=Path, help="a stand-in that is called as TOOL FILE.yml OUT")
    telling.add_argument("--trials", type=int, default=20, help="of the search; 0 for none")
    telling.add_argument("--skip", default="passthrough", help="methods to leave out, with commas")
    telling.add_argument("--fresh", action="store_true", help="measure again what is measured")
    return whole
