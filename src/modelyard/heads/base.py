"""The base model, opened so that its trunk and its output projection can run apart.

The projection to the vocabulary is a large part of a small model: it runs only on the rows whose tokens are
wanted. Nothing is fetched from a network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from inspect import signature
from pathlib import Path
from typing import Any

import torch

from modelyard.core.errors import HeadsError
from modelyard.heads.attention import fix_sums, group_queries
from modelyard.heads.config import DTYPE_NAMES
from modelyard.heads.fingerprint import fingerprint

#: Attention over all that came before; a tree cannot be checked through anything else.
_FULL = "full_attention"
_PROBE = (1, 2, 3)
#: Siblings of a node in a tree that is tried, and how far its logits may be off, as a share of them.
_SIBLINGS, _OFF = 32, 0.1


@dataclass(frozen=True, eq=False, kw_only=True)
class Base:
    """A causal language model of the library transformers, frozen and in evaluation mode."""

    folder: Path
    model: Any
    tokenizer: Any

    @classmethod
    def open(
        cls, folder: Path, *, dtype: str = "float32", device: str = "cpu", fixed_sums: bool = False
    ) -> Base:
        """Load a checkpoint.

        Args:
            folder: As transformers' `save_pretrained` writes it.
            dtype: What weights are held and computed in: float32, bfloat16 or float16.
            device: Of torch.
            fixed_sums: Let attention under a mask sum in a fixed order; see `fix_sums`.

        Raises:
            HeadsError: It cannot be loaded, a tree cannot be checked through its layers, or its attention
                is none whose sums can be fixed.
        """
        if dtype not in DTYPE_NAMES:
            raise HeadsError(f"dtype: {dtype!r} is none of {', '.join(DTYPE_NAMES)}; choose one")
        if not (folder / "config.json").is_file():
            raise HeadsError(f"{folder}: is no folder with a config.json; give the folder of a checkpoint")
        from transformers import AutoModelForCausalLM, AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            model: Any = AutoModelForCausalLM.from_pretrained(
                folder, local_files_only=True, dtype=getattr(torch, dtype)
            )
        except Exception as error:  # whatever a model's own code raises
            raise HeadsError(f"{folder}: cannot be loaded ({error}); mend the checkpoint") from error
        base = cls.of(model.to(device), tokenizer=tokenizer, folder=folder)
        if fixed_sums:
            fix_sums(base.model)
        return base

    @classmethod
    def of(cls, model: Any, *, tokenizer: Any, folder: Path) -> Base:
        """Take a model that is loaded; it is frozen and set to evaluation mode.

        Raises:
            HeadsError: A tree cannot be checked through its layers.
        """
        refuse_unfit(model.config.get_text_config().to_dict(), place=str(folder))
        model.eval().requires_grad_(False)
        group_queries(model)
        base = cls(folder=folder, model=model, tokenizer=tokenizer)
        base._refuse_altered_logits()
        base._refuse_other_places()
        return base

    @cached_property
    def fingerprint(self) -> str:
        """See `fingerprint`."""
        return fingerprint(self.folder)

    @property
    def trunk(self) -> Any:
        """All before the output projection; its last hidden state comes after the final norm."""
        return self.model.base_model

    @property
    def projection_vh(self) -> torch.Tensor:
        """The weights of the output projection, [vocabulary, hidden]."""
        weight: torch.Tensor = self.model.get_output_embeddings().weight
        return weight

    @property
    def hidden_size(self) -> int:
        """The width of the last hidden state."""
        return int(self.projection_vh.shape[1])

    @property
    def vocab_size(self) -> int:
        """The rows of the output projection; a tokenizer may know fewer."""
        return int(self.projection_vh.shape[0])

    @property
    def dtype(self) -> torch.dtype:
        """What the model computes in."""
        return self.projection_vh.dtype

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.projection_vh.device

    @property
    def most_tokens(self) -> int | None:
        """The longest text that it reads; None where its config does not say."""
        most: int | None = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        return most

    @property
    def end_tokens(self) -> frozenset[int]:
        """The tokens after which nothing follows, from the generation config or else the tokenizer."""
        told = getattr(self.model.generation_config, "eos_token_id", None)
        if told is None:
            told = getattr(self.tokenizer, "eos_token_id", None)
        return frozenset() if told is None else frozenset(told if isinstance(told, list) else [told])

    @cached_property
    def cache_word(self) -> str:
        """What the trunk calls its cache: `cache` since transformers 5.24, `past_key_values` before."""
        known = signature(self.trunk.forward).parameters
        return "cache" if "cache" in known else "past_key_values"

    def hidden(self, ids_bn: torch.Tensor, **arguments: Any) -> torch.Tensor:
        """The last hidden states after the final norm, [batch, n, hidden]; `arguments` go to the trunk."""
        hidden_bnh: torch.Tensor = self.trunk(input_ids=ids_bn, **arguments).last_hidden_state
        return hidden_bnh

    def logits(self, hidden_nh: torch.Tensor) -> torch.Tensor:
        """The logits of hidden states, [..., vocabulary], in the model's type."""
        logits_nv: torch.Tensor = self.model.get_output_embeddings()(hidden_nh)
        return logits_nv

    def _refuse_altered_logits(self) -> None:
        """A model that scales or caps its logits after the projection would be sampled wrongly."""
        ids_bn = torch.tensor([_PROBE], device=self.device)
        with torch.inference_mode():
            whole_bnv = self.model(input_ids=ids_bn, use_cache=False).logits.float()
            apart_bnv = self.logits(self.hidden(ids_bn, use_cache=False)).float()
        if not whole_bnv.isfinite().all():
            raise HeadsError(f"{self.folder}: its logits are not finite in {self.dtype}; mend the checkpoint")
        if not torch.allclose(whole_bnv, apart_bnv, rtol=0.02, atol=0.02 * float(whole_bnv.abs().max())):
            raise HeadsError(
                f"{self.folder}: this model alters its logits after the output projection, which is not"
                " supported; use another base"
            )

    def _refuse_other_places(self) -> None:
        """Of a model that finds places by the order of rows, or its own mask, no tree can be checked."""
        first, second, third = _PROBE
        plain_bn = torch.tensor([[first, second, second]], device=self.device)
        tree_bn = torch.tensor([[first, second, *[third] * _SIBLINGS, second]], device=self.device)
        count = tree_bn.shape[1]
        seen_nn = torch.eye(count, dtype=torch.bool, device=self.device)
        seen_nn[:, 0] = seen_nn[1:, 1] = True
        mask_11nn = torch.zeros((1, 1, count, count), dtype=self.dtype, device=self.device)
        mask_11nn.masked_fill_(~seen_nn, torch.finfo(self.dtype).min)
        positions_bn = torch.arange(count, device=self.device).clamp(max=2)[None]
        with torch.inference_mode():
            plain_v = self.logits(self.hidden(plain_bn, use_cache=False)[0, -1]).float()
            try:
                hidden_bnh = self.hidden(
                    tree_bn, attention_mask=mask_11nn, position_ids=positions_bn, use_cache=False
                )
            except (TypeError, ValueError, RuntimeError, IndexError) as error:
                raise self._places_are_its_own(str(error)) from error
            off_v = self.logits(hidden_bnh[0, -1]).float() - plain_v
        if not off_v.norm() <= _OFF * (plain_v - plain_v.mean()).norm():  # what all share tells nothing
            raise self._places_are_its_own("its logits in a tree are others")

    def _places_are_its_own(self, why: str) -> HeadsError:
        return HeadsError(
            f"{self.folder}: this model does not take positions and masks as they are given ({why}), so that"
            " a tree cannot be checked in one pass; use a base with rotary or learned positions"
        )


def refuse_unfit(config: Mapping[str, Any], *, place: str) -> None:
    """Refuse an architecture through which a tree of candidates cannot be checked.

    Args:
        config: The text part of a config.json.
        place: What to name in the error.

    Raises:
        HeadsError: It is an encoder and decoder, or has recurrent, convolutional or sliding layers.
    """
    kinds = config.get("layer_types") or []
    odd = sorted({str(kind) for kind in kinds if kind != _FULL})
    if config.get("is_encoder_decoder"):
        odd.append("an encoder")
    if not kinds and config.get("sliding_window") and config.get("use_sliding_window", True):
        odd.append("sliding_attention")
    odd += [key for key in ("ssm_state_size", "state_size", "conv_kernel") if config.get(key)]
    if odd:
        raise HeadsError(
            f"{place}: its layers ({', '.join(odd)}) are not full attention, so that a tree cannot be checked"
            " in one pass; use a base with full attention alone"
        )
