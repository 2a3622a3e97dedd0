"""Plans of TAO AutoML: a JSON document that holds the arguments of one run, carried out on a platform.

    {"ready": true, "automl_settings": {...}, "automl_hyperparameters": [...], "custom_param_ranges": {...},
     "automl_workspace_path": "./automl_workspace",
     "steps": [{"params": {"skill_dir": "...", "action": "train", "train_dataset_uri": "...",
                           "platform_kwargs": {...}, "sdk_kwargs": {...}, "spec_overrides": {...}, ...}}]}

A plan that is not ready says why in `blocking_issues`. The platforms' SDKs are those of nvidia-tao-sdk, made
anew for each plan.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from modelyard.core.errors import TuneError
from modelyard.core.faults import Faults, Section
from modelyard.jobs.backends.sdk_client import Sdk
from modelyard.tuning.tao.automl_runner import AutoMLRunner

#: The class of each platform's SDK.
PLATFORMS = {
    "lepton": "LeptonSDK", "slurm": "SlurmSDK", "kubernetes": "KubernetesSDK", "docker": "DockerSDK",
    "brev": "BrevSDK", "virtualenv": "VirtualEnvSDK",
}  # fmt: skip
#: Of a step's parameters, those that are arguments of `run` as they stand.
_ARGUMENTS = (
    "train_dataset_uri", "eval_dataset_uri", "base_checkpoint", "workspace_id", "image", "spec_overrides",
    "execution",
)  # fmt: skip

#: Makes the SDK of a platform.
MakeSdk = Callable[..., Sdk]


def make_sdk(platform: str, **sdk_kwargs: Any) -> Sdk:
    """The SDK of a platform.

    Raises:
        TuneError: There is no such platform, or its SDK is not installed or cannot be made.
    """
    if platform not in PLATFORMS:
        raise TuneError(f"platform: {platform!r} is not known; use one of {', '.join(PLATFORMS)}")
    place, name = f"tao_sdk.platforms.{platform}", PLATFORMS[platform]
    try:
        kind = getattr(importlib.import_module(place), name)
    except (ImportError, AttributeError) as error:
        hint = "nvidia-tao-sdk==7.0.0, the only one that has it" if platform == "lepton" else "nvidia-tao-sdk"
        raise TuneError(
            f"platform {platform}: {place}.{name} cannot be had ({error}); install {hint}"
        ) from error
    try:
        made: Sdk = kind(**sdk_kwargs)
    except (TypeError, ValueError, OSError) as error:
        raise TuneError(f"platform {platform}: {name} cannot be made ({error}); mend sdk_kwargs") from error
    return made


def run_automl_plan(
    plan: Mapping[str, Any], platform: str, *, make: MakeSdk = make_sdk, poll_interval: float = 30
) -> dict[str, Any]:
    """Carry out a plan; the result dictionary of `AutoMLRunner.run`.

    Args:
        plan: The document.
        platform: One of `PLATFORMS`.
        make: Makes the SDK, from the platform's name and the plan's `sdk_kwargs`.
        poll_interval: Of the runner.

    Raises:
        DocumentError: The plan is not ready, or something in it is missing or wrong; nothing has been made.
        TuneError: The SDK cannot be had; and whatever the runner raises.
    """
    faults = Faults(file="plan")
    arguments = _arguments(plan, faults)
    params = _params(plan, faults)
    skill_dir = params.text("skill_dir")
    action = params.text("action", "train")
    sdk_kwargs = _mapping(params, "sdk_kwargs")
    faults.raise_if_any()
    sdk = make(platform, **sdk_kwargs)
    runner = AutoMLRunner(sdk, Path(skill_dir), action, poll_interval)
    return runner.run(**arguments)


def _arguments(plan: Mapping[str, Any], faults: Faults) -> dict[str, Any]:
    """The arguments of `run`."""
    whole, params = Section(plan, faults=faults), _params(plan, faults)
    if not whole.raw("ready"):
        issues = whole.raw("blocking_issues") or ["no reason is given"]
        told = "; ".join(map(str, issues)) if isinstance(issues, list | tuple) else str(issues)
        faults.add("ready", whole.raw("ready"), f"is not true: {told}", "settle what blocks the plan")
    if not params.has("train_dataset_uri"):
        faults.add(params.key("train_dataset_uri"), None, "is missing", "give the data set; empty for none")
    own = {name: params.raw(name) for name in _ARGUMENTS if params.has(name)}
    return {
        **_mapping(params, "platform_kwargs"), **own,
        "automl_settings": whole.raw("automl_settings") or {},
        "automl_hyperparameters": whole.raw("automl_hyperparameters"),
        "custom_param_ranges": whole.raw("custom_param_ranges"),
        "workspace_path": whole.raw("automl_workspace_path") or "./automl_workspace",
        "resume": bool(whole.raw("resume")),
    }  # fmt: skip


def _params(plan: Mapping[str, Any], faults: Faults) -> Section:
    """The parameters of the first step."""
    steps = plan.get("steps") if isinstance(plan, Mapping) else None
    first = steps[0] if isinstance(steps, list) and steps else {}
    params = first.get("params") if isinstance(first, Mapping) else None
    return Section(params if isinstance(params, Mapping) else {}, faults=faults, path="steps[0].params")


def _mapping(params: Section, name: str) -> dict[str, Any]:
    value = params.raw(name) or {}
    if not isinstance(value, Mapping):
        params.faults.add(params.key(name), value, "is not a mapping", "write names and values")
        return {}
    return {str(key): each for key, each in value.items()}
