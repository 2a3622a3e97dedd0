"""Attention under a tree's mask: without needless copies, and so that a result hangs on nothing else.

The library transformers repeats keys and values where there is a mask, since not every device's fast kernel
can do without; a CPU's can, with the same result, bit for bit.

In bfloat16 a token's hidden state also hangs on what is computed beside it: on how many rows a matrix has,
and on where the keys of other branches lie between its own, because sums are rounded in another order. The
second is what `fix_sums` takes away: scores and sums in float32, each sum from the first key to the last, in
which masked keys are zeros that change nothing; the divisor is summed with the values, as one more column.
With passes of a fixed number of rows (`Decoder`) the tokens are then those of plain decoding in such passes,
whatever is drafted.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from modelyard.core.errors import HeadsError

_GROUPED, _FIXED = "modelyard_grouped", "modelyard_fixed"
#: Keys that are summed by one product of matrices: a longer one is cut where the library likes.
STRETCH = 256
#: Columns that are added to the values, so that their number stays a multiple of a vector's.
_DIVISOR_COLUMNS = 16
#: What changes attention beyond its mask; then it is transformers' business.
_OTHERWISE = ("softcap", "position_bias", "s_aux", "sinks")


def group_queries(model: Any) -> None:
    """Let a model that uses torch's attention on a CPU use this one; others are left as they are."""
    if model.config._attn_implementation == "sdpa" and model.device.type == "cpu":
        _use(model, _GROUPED, _grouped)


def fix_sums(model: Any) -> None:
    """Let attention under a mask sum in a fixed order.

    Raises:
        HeadsError: The model's attention is not torch's on a CPU.
    """
    if model.config._attn_implementation not in ("sdpa", _GROUPED) or model.device.type != "cpu":
        raise HeadsError(
            f"{model.config._attn_implementation} attention on {model.device.type}: sums in a fixed order are"
            " written for torch's attention on a CPU; decode in float32 to have plain decoding's tokens"
        )
    _use(model, _FIXED, _fixed)


def _use(model: Any, name: str, attention: Any) -> None:
    AttentionInterface.register(name, attention)
    AttentionMaskInterface.register(name, sdpa_mask)
    model.set_attn_implementation(name)


def _grouped(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
    attention_mask: torch.Tensor | None, **arguments: Any,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    """As transformers' `sdpa_attention_forward`: [batch, heads, n, width] to [batch, n, heads, width]."""
    if attention_mask is None or any(arguments.get(name) is not None for name in _OTHERWISE):
        made: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, **arguments
        )
        return made
    out_bhnd = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=attention_mask, scale=arguments.get("scaling"),
        enable_gqa=query.shape[1] != key.shape[1],
    )  # fmt: skip
    return out_bhnd.transpose(1, 2).contiguous(), None


def _fixed(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
    attention_mask: torch.Tensor | None, **arguments: Any,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    """As `_grouped`, in float32 and in order; without a mask, which is over a prompt, as the library does."""
    if attention_mask is None or any(arguments.get(name) is not None for name in _OTHERWISE):
        return _grouped(module, query, key, value, attention_mask, **arguments)
    batch, heads, rows, width = query.shape
    groups = heads // key.shape[1]
    scale = arguments.get("scaling") or width**-0.5
    query_bgrw = (query.float() * scale).reshape(batch, key.shape[1], groups * rows, width)
    scores_bgrk = query_bgrw @ key.float().transpose(-1, -2)
    scores_bghnk = (
        scores_bgrk.view(batch, key.shape[1], groups, rows, -1) + attention_mask[:, :, None].float()
    )
    shares_bghnk = torch.exp(scores_bghnk - scores_bghnk.amax(-1, keepdim=True))
    shares_bgrk = shares_bghnk.view(scores_bgrk.shape)
    values_bgkw = torch.nn.functional.pad(value.float(), (0, _DIVISOR_COLUMNS), value=1.0)
    sums_bgrw = torch.zeros((*shares_bgrk.shape[:-1], values_bgkw.shape[-1]), device=query.device)
    for start in range(0, key.shape[2], STRETCH):
        stretch = slice(start, start + STRETCH)
        sums_bgrw += shares_bgrk[..., stretch] @ values_bgkw[:, :, stretch]
    wide = value.shape[-1]
    out_bgrw = (sums_bgrw[..., :wide] / sums_bgrw[..., wide : wide + 1]).to(query.dtype)
    return out_bgrw.view(batch, heads, rows, wide).transpose(1, 2).contiguous(), None
