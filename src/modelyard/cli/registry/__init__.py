"""`modelyard registry`: a group of commands."""

from __future__ import annotations

import click

from modelyard.cli.lazy import LazyGroup

_COMMANDS = {
    "list": "List the registered versions and what each alias serves.",
    "show": "Tell all that is known of a version.",
    "history": "Tell how an alias moved: who, when, why and on what evidence.",
    "register": "Register a model as a version that can be promoted.",
    "key": "Make a private key for somebody who approves or certifies.",
    "trust": "Let a public key count: its approvals and certificates.",
    "approvals": "List the approvals that were given, and for what.",
    "sign": "Sign the files of a version's checkpoint.",
    "verify-model": "Hold the files of a version's checkpoint against its signatures.",
    "export": "Copy versions, aliases and their history to an MLflow server.",
    "verify": "Hold every alias and move against the journal and the certificates.",
    "reconcile": "Finish what a process that died left half done.",
}


@click.group(name="registry", cls=LazyGroup, package="modelyard.cli.registry", known=_COMMANDS)
def command() -> None:
    """Versions of models, the aliases stage and prod, and the proof of how they moved."""
