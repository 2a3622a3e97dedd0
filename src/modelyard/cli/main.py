"""`modelyard`: finds the command that was named and loads only that one."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from modelyard import __version__
from modelyard.cli.lazy import LazyGroup
from modelyard.core.errors import DocumentError, ModelyardError

#: Exit statuses: 0 all done, 1 failed, 2 the input was refused, 3 some members failed and the rest went on.
REFUSED = 2
INTERRUPTED = 130

_COMMANDS = {
    "init": "Write a starter yard: a pool of real forecasters to run and to change.",
    "plan": "Show what a yard.yaml would run, and check it; nothing is executed.",
    "up": "Run a yard.yaml from end to end, or take it up where it was left.",
    "train": "Plan or run the training commands of an ELPA file.",
    "tune": "Search the hyperparameters of a training command, many trials at a time.",
    "integrate": "Build an ELPA policy from validation errors.",
    "forecast": "Forecast with an ELPA policy: tables at once, or a stream one origin at a time.",
    "backtest": "Hold a yard's policy against hindsight and other libraries, on rolling origins.",
    "merge": "Merge checkpoints, out of core, by a mergekit file; compare, inspect and verify them.",
    "heads": "Medusa heads: train them, choose their tree, decode faster, measure, export, serve.",
    "evaluate": "Ask every model of a pool the questions of a frozen set, and score the answers.",
    "router": "Fit, inspect and measure a router: which model of a pool a prompt should go to.",
    "onboard": "Add a model to a router from a few of its answers.",
    "serve": "Serve a pool by OpenAI's interface; the model auto lets the router choose.",
    "route": "Tell which model a prompt should go to.",
    "run": "Governed runs: train a candidate, prove it against what serves, watch it, tell of it.",
    "repair": "Train and prove the next iteration of a governed run whose gate failed.",
    "certify": "Compare a candidate with a baseline on a frozen pack, and issue a signed certificate.",
    "promote": "Let stage or prod serve a version, on the evidence of a certificate.",
    "rollback": "Let stage or prod serve again what it served before.",
    "registry": "Versions of models, the aliases that serve them, and how each came to be served.",
    "evidence": "Recompute a certificate from its raw answers.",
    "keys": "Virtual keys of the gateway: what a client may use, and how much.",
    "usage": "What was used and spent through the gateway, by key, model, upstream or day.",
    "import": "Read logs of lm-eval or inspect_ai, or a CSV, into the results table.",
    "status": "Where the runs of a yard stand.",
    "logs": "What a step wrote.",
    "diff": "What is not the same in two runs: commands, files read and left, ends.",
    "cancel": "Stop a run; it can be taken up again.",
    "audit": "Check that the yard's journal was not tampered with; anchor its head outside.",
}


class _Modelyard(LazyGroup):
    """All commands."""

    def module_of(self, cmd_name: str) -> str:
        """`import` is in `import_results`."""
        return "import_results" if cmd_name == "import" else super().module_of(cmd_name)


@click.group(
    cls=_Modelyard,
    package="modelyard.cli",
    known=_COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, prog_name="modelyard")
def cli() -> None:
    """Train, prove and ensemble a changing pool of models from one declared file, with evidence."""


#: The extras that commands need; those that are not here need none, or say so themselves.
_EXTRAS = {
    "audit": "prove", "backtest": "ensemble,report", "certify": "prove", "forecast": "ensemble",
    "evaluate": "evaluate", "evidence": "prove", "heads": "heads",
    "import": "ensemble", "integrate": "ensemble", "keys": "gateway", "merge": "merge",
    "onboard": "evaluate,routing", "promote": "prove",
    "registry": "prove", "repair": "prove", "rollback": "prove", "route": "routing", "router": "routing",
    "run": "prove", "serve": "gateway", "tune": "tune", "up": "ensemble,report",
    "usage": "gateway",
}  # fmt: skip


def _tell_missing(error: ModuleNotFoundError, arguments: Sequence[str]) -> None:
    """A package that is not installed, by name and with the extra that has it; ours is a defect."""
    if (error.name or "").partition(".")[0] == "modelyard":
        raise error
    extra = next((_EXTRAS[word] for word in arguments if word in _EXTRAS), "")
    remedy = f"pip install 'modelyard[{extra}]'" if extra else "install it"
    click.echo(f"error: this needs the package {error.name}, which is not installed; {remedy}", err=True)


def main() -> None:
    """Run the command line; errors of ours are one message, not a traceback."""
    try:
        sys.exit(cli(standalone_mode=False) or 0)
    except (KeyboardInterrupt, click.Abort):
        sys.exit(INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except DocumentError as error:
        count = len(error.faults)
        click.echo(f"refused: {count} fault{'s' if count > 1 else ''}", err=True)
        for fault in error.faults:
            click.echo(f"  - {fault}", err=True)
        sys.exit(REFUSED)
    except ModelyardError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
    except ModuleNotFoundError as error:
        _tell_missing(error, sys.argv[1:])
        sys.exit(1)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        click.echo(f"error: {place}{error.strerror or error}; give another path or mend this one", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
