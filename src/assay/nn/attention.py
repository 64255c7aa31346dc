r"""The attention kernels: three ways to compute the same function.

$$\mathrm{out}_h = \mathrm{softmax}(Q_h K_{g(h)}^T / \sqrt{K} + M) V_{g(h)}$$

`fused` is PyTorch's own; `blocks` takes plain products over a few blocks of queries, each with the
keys it may see; `flex` is PyTorch's FlexAttention, meant for CUDA. They differ by rounding, and
dropout draws other numbers in each. `nn/reference.py` says what they compute.

Shapes: B batch, T queries, Tk keys, H query heads, G key and value heads, K width of one head.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from assay.errors import ConfigError
from assay.nn.attention_mask import MaskSpec, Tile
from assay.nn.rotation import Rotation

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

Kernel = Literal["fused", "blocks", "flex"]

_BLOCK = 128  # queries; below twice as many, skipping the future saves less than a block costs
_MOST_BLOCKS = 4  # more of them cost more in calls, and in compiling, than they skip


@dataclass(frozen=True, slots=True)
class Context:
    """What all layers of one forward pass share.

    Attributes:
        rotation: How to turn queries and keys, or None.
        sight: What each query sees.
        kernel: What computes the attention.
        mask: `sight` drawn in full for `fused`, or None where that kernel needs none.
        block_mask: The same for `flex`.
    """

    rotation: Rotation | None
    sight: MaskSpec
    kernel: Kernel = "fused"
    mask: Float[Tensor, "P #H T Tk"] | Bool[Tensor, "P #H T Tk"] | None = None
    block_mask: "BlockMask | None" = None

    @classmethod
    def of(cls, rotation: Rotation | None, sight: MaskSpec, kernel: Kernel, x: Tensor) -> "Context":
        """Return the context of a pass over `x`, with what its kernel wants drawn beforehand."""
        if kernel == "flex":
            return cls(rotation, sight, kernel, block_mask=_block_mask(sight, x.device))
        if kernel == "blocks":
            return cls(rotation, sight, kernel)
        wide = torch.promote_types(x.dtype, torch.float32)
        return cls(rotation, sight, kernel, mask=sight.mask(x.device, wide))


def attend(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B G Tk K"],
    v: Float[Tensor, "B G Tk K"],
    context: Context,
    *,
    dropout: float = 0.0,
) -> Float[Tensor, "B H T K"]:
    """Return the attention output; query head h reads key and value head h // (H / G).

    Raises:
        ConfigError: If `flex` is to drop attention weights.
    """
    if context.kernel == "blocks":
        return _blocks(q, k, v, context.sight, dropout)
    if context.kernel == "flex":
        return _flex(q, k, v, context, dropout)
    return _fused(q, k, v, context, dropout)


def _fused(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B G Tk K"],
    v: Float[Tensor, "B G Tk K"],
    context: Context,
    dropout: float,
) -> Float[Tensor, "B H T K"]:
    if (group := q.shape[1] // k.shape[1]) > 1:
        k, v = (t.repeat_interleave(group, dim=1) for t in (k, v))
    mask = context.mask
    if mask is not None and mask.is_floating_point():
        mask = mask.to(q.dtype)
    causal = mask is None and q.shape[2] > 1
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=causal
    )


# Blocks of queries -------------------------------------------------------------------------------


def n_blocks(n_queries: int) -> int:
    """Return into how many blocks `blocks` cuts the queries: one for each 128, four at most."""
    return max(1, min(_MOST_BLOCKS, n_queries // _BLOCK))


def _blocks(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B G Tk K"],
    v: Float[Tensor, "B G Tk K"],
    sight: MaskSpec,
    dropout: float,
) -> Float[Tensor, "B H T K"]:
    """Take one block of queries after another; their weights add up only for a backward pass."""
    n_rows, n_groups, _, width = k.shape
    q = (q * width**-0.5).reshape(n_rows * n_groups, -1, *q.shape[2:])  # a group side by side
    k, v = (t.reshape(n_rows * n_groups, *t.shape[2:]) for t in (k, v))
    size = -(-sight.n_queries // n_blocks(sight.n_queries))
    found = []
    for first in range(0, sight.n_queries, size):
        piece = sight.tile_for_queries(first, min(first + size, sight.n_queries))
        scores = _scores(q, k, sight, piece, n_rows)
        weights = F.dropout(scores.softmax(-1), dropout, training=dropout > 0)
        found.append(torch.bmm(weights, v[:, piece.first_key : piece.end_key]))
    return _joined(found, q.shape[1]).reshape(n_rows, -1, sight.n_queries, width)


def _scores(
    q: Float[Tensor, "N R T K"],
    k: Float[Tensor, "N Tk K"],
    sight: MaskSpec,
    piece: Tile,
    n_rows: int,
) -> Float[Tensor, "N Rt s"]:
    """Return a piece's scores for N = B·G groups of R query heads, the rows of the heads joined.

    A bias that all heads share goes into the product, which spares a pass over the scores.
    """
    asked = q[:, :, piece.first_query : piece.end_query].flatten(1, 2)
    keys = k[:, piece.first_key : piece.end_key].mT
    if sight.is_causal_only and sight.n_queries == 1:
        return torch.bmm(asked, keys)
    bias = sight.bias(piece, q.device, q.dtype)
    if bias.shape[:2] == (1, 1):
        shared = bias[0].expand(q.shape[1], -1, -1).flatten(0, 1)
        return torch.baddbmm(shared[None], asked, keys)
    scores = torch.bmm(asked, keys)
    return scores.view(n_rows, -1, *bias.shape[2:]).add_(bias).view(scores.shape)


def _joined(found: list[Tensor], group: int) -> Float[Tensor, "N R T K"]:
    """Put the blocks of queries one after another again."""
    heads = [block.reshape(block.shape[0], group, -1, block.shape[2]) for block in found]
    return heads[0] if len(heads) == 1 else torch.cat(heads, dim=2)


# FlexAttention -----------------------------------------------------------------------------------


def _flex(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B G Tk K"],
    v: Float[Tensor, "B G Tk K"],
    context: Context,
    dropout: float,
) -> Float[Tensor, "B H T K"]:
    if dropout > 0:
        raise ConfigError(
            f"model.mixer.dropout: {dropout} found; expected 0 with the attention kernel flex, "
            "which cannot drop weights. Set it to 0 or take the kernel fused or blocks."
        )
    attention = _flex_attention(compiled=q.is_cuda and not torch.compiler.is_compiling())
    grouped = q.shape[1] != k.shape[1]
    score_mod = _score_mod(context.sight)
    return attention(
        q, k, v, score_mod=score_mod, block_mask=context.block_mask, enable_gqa=grouped
    )


@cache
def _flex_attention(*, compiled: bool) -> Callable[..., Tensor]:
    """Return FlexAttention, imported when first asked for; uncompiled it holds all scores."""
    from torch.nn.attention.flex_attention import flex_attention

    return cast(
        Callable[..., Tensor], torch.compile(flex_attention) if compiled else flex_attention
    )


# Only lambdas over numbers and tensors trace into the kernel; a function with checked types cannot.


def _block_mask(sight: MaskSpec, device: torch.device) -> "BlockMask":
    from torch.nn.attention.flex_attention import create_block_mask

    rows = None if sight.padding is None else sight.padding.shape[0]
    sizes = {"B": rows, "H": None, "Q_LEN": sight.n_queries, "KV_LEN": sight.n_keys}
    return create_block_mask(_mask_mod(sight), **sizes, device=str(device))  # type: ignore[arg-type]


def _mask_mod(sight: MaskSpec) -> Callable[..., Any]:
    """Return what `MaskSpec.visible` says, of one query and one key."""
    past, first, reach = sight.past, sight.first_key, sight.window or sight.n_keys
    if (padding := sight.padding) is None:
        return lambda _row, _head, q, k: (k <= q + past) & (q + past - k < reach)
    return lambda row, _head, q, k: (
        (k <= q + past) & (q + past - k < reach) & ((k + first >= padding[row]) | (k == q + past))
    )


def _score_mod(sight: MaskSpec) -> Callable[..., Any] | None:
    past, by_distance = sight.past, sight.by_distance
    if by_distance is None:
        return None
    return lambda score, _row, head, q, k: (
        score + by_distance[head, (q + past - k).clamp(min=0)]  # later keys are hidden
    )
