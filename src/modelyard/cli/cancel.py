"""`modelyard cancel`."""

from __future__ import annotations

from pathlib import Path

import click

from modelyard.cli.options import execution_options, yard_option
from modelyard.runs.cancel import cancel_run
from modelyard.runs.directory import open_run
from modelyard.runs.execution import open_backend
from modelyard.runs.view import find_run, replayed
from modelyard.runs.yard import open_yard


@click.command(name="cancel")
@click.argument("run")
@yard_option
def command(run: str, yard_dir: Path) -> None:
    """Stop RUN and everything that it started; the command that began it takes it up again."""
    yard = open_yard(yard_dir, create=False)
    row = find_run(yard, run)
    directory = open_run(Path(row.dir))
    # The jobs that have not ended are stopped by the backend that has them.
    backend = next((job.backend for _, job in replayed(directory, yard.journal).open_jobs()), "local")
    options = execution_options(backend=backend)
    stopped = cancel_run(yard, directory, lambda: open_backend(options, directory.jobs_dir))
    click.echo(
        f"{row.run}: stopped" + (f" ({stopped} jobs that had outlived their driver)" if stopped else "")
    )
