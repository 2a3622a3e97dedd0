"""Reading a checkpoint for a measurement that must not be of another model than the file holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


def whole(kind: Any, checkpoint: Path) -> Any:
    """A transformers model of this class in float32, with every weight from the checkpoint.

    transformers fills what a file lacks with random numbers and only warns.
    """
    model, told = kind.from_pretrained(checkpoint, dtype=torch.float32, output_loading_info=True)
    faults = {name: sorted(map(str, keys)) for name, keys in told.items() if keys}
    if faults:
        said = "; ".join(f"{name}: {len(keys)} ({keys[0]} ...)" for name, keys in faults.items())
        raise SystemExit(f"{checkpoint} does not hold the model it should: {said}; merge it anew")
    return model
