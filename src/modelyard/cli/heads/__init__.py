"""`modelyard heads`: a group of commands."""

from __future__ import annotations

import click

from modelyard.cli.lazy import LazyGroup

_COMMANDS = {
    "advise": "Tell whether heads can pay for a model on this machine, before any are trained.",
    "train": "Train heads on a model, from texts or from what it writes itself.",
    "tree": "Choose the tree that decodes fastest on this machine.",
    "generate": "Continue a prompt, by a tree of drafts that one pass checks.",
    "bench": "Hold decoding with heads against plain decoding, prompt by prompt.",
    "check": "Tell how well heads foretell on a model that may be a merge of their own.",
    "export": "Write heads in the layout of another program.",
    "import": "Read heads in the layout of another program.",
    "serve": "Serve a model with its heads by OpenAI's interface.",
}


@click.group(name="heads", cls=LazyGroup, package="modelyard.cli.heads", known=_COMMANDS)
def command() -> None:
    """Medusa heads: a model drafts its own next tokens, and checks a tree of them in one forward pass."""
