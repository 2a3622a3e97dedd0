"""`modelyard run start`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from modelyard.cli.options import json_option, yard_option
from modelyard.cli.run.showing import end, shown_progress


@click.command(name="start")
@click.argument("file", type=click.Path(path_type=Path), default=Path("yard.yaml"))
@click.option("--candidate", required=True, metavar="NAME", help="One of governance.candidates.")
@click.option("--train-provider", required=True, metavar="NAME", help="Who trains it.")
@click.option("--infer-provider", required=True, metavar="NAME", help="Who answers with it.")
@click.option("--run", "run_id", metavar="ID", help="[default: the candidate's name and a number]")
@click.option("--run-dir", type=click.Path(path_type=Path), help="[default: governed/ID in the yard]")
@click.option("--release", metavar="NAME@VERSION", help="What the policy from_release begins with.")
@click.option(
    "--start-policy",
    type=click.Choice(("bootstrap", "continue_last_promoted", "from_release", "resume_run")),
    default="bootstrap", show_default=True, help="From which weights the training begins.",
)  # fmt: skip
@click.option(
    "--live", is_flag=True, help="Submit the training and evaluate; without it nothing is submitted."
)
@yard_option
@json_option
def command(file: Path, yard_dir: Path, as_json: bool, **asked: Any) -> None:
    """Train a candidate of FILE, a yard.yaml, and prove it against the baseline where a pack is declared.

    Without --live the manifest and the exact request are written, and nothing is submitted. Killed at any
    moment, the same command with --run ID goes on. Exit status: 0 passed, or there is nothing to prove yet;
    4 failed the gate; 5 inconclusive; 1 the training did not end well; 2 providers do not go together.
    """
    from modelyard.lifecycle.governed.request import TrainingRequest
    from modelyard.lifecycle.governed.run_training import Caller, drive
    from modelyard.lifecycle.governed.view import governed_dir, next_run_id
    from modelyard.runs.yard import open_yard

    yard = open_yard(yard_dir, create=True)
    run_id = asked["run_id"] or next_run_id(yard, asked["candidate"])
    request = TrainingRequest(
        run_id=run_id,
        candidate=asked["candidate"],
        train_provider=asked["train_provider"],
        infer_provider=asked["infer_provider"],
        release_id=asked["release"],
        start_policy=asked["start_policy"],
        live=asked["live"],
    )
    run_dir = asked["run_dir"] or governed_dir(yard, run_id)
    with shown_progress(quiet=as_json) as told:
        result = drive(yard, file, request, run_dir, Caller(environment=dict(os.environ), told=told))
    sys.exit(end(result, as_json=as_json))
