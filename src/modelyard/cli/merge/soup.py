"""`modelyard merge soup`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from modelyard.cli.merge.candidates import measuring_options, run_search


@click.command(name="soup")
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@measuring_options
def command(file: Path, **told: Any) -> None:
    """Average those of several fine-tunes that together measure best: the greedy soup.

    FILE is a mergekit YAML file that lists two or more models, without weights. Each is measured alone,
    then all together; then each, the best first, is added to the average where that is no worse.

    Killed or stopped, it goes on with the same command. OUT has all measures in search.json.
    """
    from modelyard.merging.soup import GREEDY

    run_search(file, {**told, "sampler": GREEDY})
