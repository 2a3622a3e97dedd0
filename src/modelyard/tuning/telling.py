"""Tell the tuner what a training script measures: `tell(step=3, val_accuracy=0.91)`.

This file needs nothing but Python and may be copied into a project.
"""

from __future__ import annotations

import json
import os
import sys
from typing import SupportsFloat


def tell(step: int | None = None, **values: SupportsFloat) -> None:
    """Append one JSON line to the file that MODELYARD_METRICS names, in one write; else print it.

    Without a step a report counts as the one after the last. Tell nan as nan: the trial has then diverged.
    """
    record = {} if step is None else {"step": int(step)}
    line = json.dumps({**record, **{name: float(value) for name, value in values.items()}}) + "\n"
    path = os.environ.get("MODELYARD_METRICS")
    if not path:
        sys.stdout.write(line)
        sys.stdout.flush()
        return
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)
