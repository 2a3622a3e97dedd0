"""`wandb_config`: a search in Weights & Biases, by our own exporter.

The original logs one run with a table, and nothing where a key is missing. Here every trial is a run in a
group of the run's name; without a key they are folders for `wandb sync`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from modelyard.core.faults import Faults, Section
from modelyard.tuning.exporters import Exported, make_exporter
from modelyard.tuning.view import view_study

_KEY = "WANDB_API_KEY"


@dataclass(frozen=True, slots=True, kw_only=True)
class WandbWish:
    """What is to be written where."""

    project: str
    online: bool


def read_wandb(config: object, environment: Mapping[str, str], faults: Faults) -> WandbWish | None:
    """What a configuration asks for; None where it asks for nothing."""
    section = Section({} if config is None else config, faults=faults, path="wandb_config")
    enabled = section.flag("enabled", default=False)
    project = section.text("project", "TAO AutoML")
    for name, variable in (("api_key", _KEY), ("entity", "WANDB_ENTITY")):
        if enabled and section.raw(name) is not None:
            remedy = f"put it into the variable {variable}"
            faults.add(section.key(name), None, "is not taken from arguments", remedy)
        section.raw(name)
    if enabled and section.raw("group") is not None:
        remedy = "leave it out: the group has the name of the run's folder"
        faults.add(section.key("group"), section.raw("group"), "cannot be chosen", remedy)
    section.raw("group")
    section.close()
    if enabled and find_spec("wandb") is None:
        faults.add("wandb_config", None, "needs wandb", "pip install 'modelyard[wandb]'")
    return WandbWish(project=project, online=bool(environment.get(_KEY))) if enabled else None


def export_to_wandb(run_dir: Path, wish: WandbWish) -> Exported:
    """Write what is not there yet; offline into the run's folder."""
    mode = "online" if wish.online else "offline"
    options = {"project": wish.project, "mode": mode, "dir": str(run_dir)}
    return make_exporter("wandb", options).export(view_study(run_dir))
