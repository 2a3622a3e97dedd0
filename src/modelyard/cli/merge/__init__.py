"""`modelyard merge`: a group of commands; `merge FILE.yml OUT` is short for `merge run`."""

from __future__ import annotations

import os

import click

from modelyard.cli.lazy import LazyGroup

_COMMANDS = {
    "run": "Merge checkpoints as a mergekit YAML file says.",
    "legacy": "Merge with the command line of 2023 (main.py), option for option.",
    "stack": "Put layers of models one after another (layer_slices).",
    "search": "Find weights and layers of a merge by measuring candidates.",
    "soup": "Average those of several fine-tunes that together measure best.",
    "methods": "List every merge method with its parameters, formula and paper.",
    "diff": "Tell how models differ, or what each parent of a merge contributed; draw it.",
    "inspect": "Tell what a checkpoint holds: layers, sizes, kinds of tensors, values.",
    "extract-lora": "Write what fine-tuning changed as a LoRA adapter (PEFT).",
    "verify": "Hold a merged checkpoint against the record of its merge.",
}


class _Merge(LazyGroup):
    """Takes a first word that ends in .yml or .yaml as the file of `run`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0].endswith((".yml", ".yaml")):
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(name="merge", cls=_Merge, package="modelyard.cli.merge", known=_COMMANDS)
def command() -> None:
    """Merge checkpoints of any size on a small machine.

    `modelyard merge FILE.yml OUT` is short for `modelyard merge run FILE.yml OUT`.
    """
    # Merging has threads of its own; and what BLAS gives must not depend on how many it takes.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
