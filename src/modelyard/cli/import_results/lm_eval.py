"""`modelyard import lm-eval`."""

from __future__ import annotations

from pathlib import Path

import click

from modelyard.cli.import_results.options import import_and_tell, import_options, model_option


@click.command(name="lm-eval")
@import_options
@model_option
def command(files: tuple[Path, ...], output: Path, as_json: bool, model: str | None) -> None:
    """Read samples_*.jsonl of lm-evaluation-harness (--log_samples)."""
    from modelyard.results.importers.lm_eval import read_lm_eval  # pyarrow loads here, not before

    records = (record for path in files for record in read_lm_eval(path, model))
    import_and_tell(records, output, as_json=as_json)
