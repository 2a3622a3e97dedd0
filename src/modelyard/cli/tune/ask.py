"""`modelyard tune ask`."""

from __future__ import annotations

import os
from pathlib import Path

import click


@click.command(name="ask")
@click.argument("wish")
@click.option("--endpoint", required=True, help="Of an OpenAI-compatible server, up to and with /v1.")
@click.option("--model", required=True, help="What the server calls the model.")
@click.option("--api-key-env", metavar="NAME", help="The environment variable that holds the key.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("tune.yaml"), show_default=True,
    help="The file to be written.",
)  # fmt: skip
@click.option("--timeout-s", type=float, default=60.0, show_default=True, help="Of one answer.")
@click.option("--yes", is_flag=True, help="Write what is shown without being asked.")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
def command(wish: str, out: Path, *, yes: bool, force: bool, **told: object) -> None:
    """Have a model write a tune.yaml for a WISH in plain words.

    What it writes is checked as every tune.yaml is, and shown; nothing is run.
    """
    from modelyard.core.faults import Faults, Section
    from modelyard.core.files import write_whole
    from modelyard.tuning.searchers.llm import check_installed

    check_installed()
    from modelyard.tuning.advice.chat import Chat, read_chat
    from modelyard.tuning.advice.natural import drafted

    if out.exists() and not force:
        raise click.UsageError(f"{out} is there; give another --out, or --force")
    faults = Faults(file="command line")
    settings = read_chat(Section({"temperature": 0.2, "max_tokens": 2000, **told}, faults=faults))
    faults.raise_if_any()
    draft = drafted(wish, Chat(settings, os.environ), file_name=out.name)
    click.echo(draft.text, nl=False)
    tokens = [(reply.prompt_tokens or 0) + (reply.completion_tokens or 0) for reply in draft.replies]
    took_s = sum(reply.latency_s or 0.0 for reply in draft.replies)
    click.echo(
        f"{len(draft.replies)} answers of {settings.model}, {sum(tokens)} tokens, {took_s:.1f} s", err=True
    )
    click.echo(f"each trial will run: {draft.declaration.workload.command}", err=True)
    if not yes:
        click.confirm(f"write {out}?", abort=True, err=True)
    write_whole(out, draft.text)
    click.echo(f"look at the first trial with: modelyard tune {out} --dry-run", err=True)
