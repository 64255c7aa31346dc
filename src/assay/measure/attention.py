r"""Attention written as the formula, and as the article calls it: what the fused kernel replaces.

$$\mathrm{out} = \mathrm{softmax}(Q K^T / \sqrt{K} + M) V$$

Both make all T × T weights of every head. Shapes: B batch, H heads, T tokens, K width of one head.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from assay.nn.attention import Context, Kernel, attend
from assay.nn.attention_mask import MaskSpec

Heads = Float[Tensor, "B H T K"]


def by_hand(q: Heads, k: Heads, v: Heads) -> Heads:
    """Return causal attention, every score written out, the future at minus infinity."""
    scores = q @ k.mT * q.shape[-1] ** -0.5
    scores = scores.masked_fill(_future(q.shape[2], q.device), -torch.inf)
    return scores.softmax(-1) @ v


def by_kernel(q: Heads, k: Heads, v: Heads, kernel: Kernel) -> Heads:
    """Return causal attention by one of the kernels of the models."""
    n_tokens = q.shape[2]
    sight = MaskSpec(n_queries=n_tokens, n_keys=n_tokens, first_key=0, window=None)
    return attend(q, k, v, Context.of(None, sight, kernel, q))


def random_heads(shape: tuple[int, int, int, int], dtype: torch.dtype, *, seed: int) -> list[Heads]:
    """Return normal queries, keys and values of shape (B, H, T, K) that take gradients.

    They are drawn in float64, so that every precision gets the same numbers, rounded.
    """
    draw = torch.Generator().manual_seed(seed)
    drawn = (torch.randn(shape, generator=draw, dtype=torch.float64) for _ in "qkv")
    return [tensor.to(dtype).requires_grad_() for tensor in drawn]


class ArticleAttention(nn.Module):
    """`nn.MultiheadAttention` as appendix A.3.1 calls it: weights are returned, and thrown away.

    Source: the article, docs/article.md, appendix A.3.1.
    """

    def __init__(self, d_model: int, n_heads: int, *, need_weights: bool = True) -> None:
        """Build it; `need_weights` is PyTorch's default, and all that this class can change."""
        super().__init__()
        self.need_weights = need_weights
        self.attn = nn.MultiheadAttention(d_model, n_heads, batch_first=True)

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Return the mixed tokens under the article's Boolean mask."""
        mask = _future(x.shape[1], x.device)
        mixed, _ = self.attn(x, x, x, attn_mask=mask, need_weights=self.need_weights)
        return mixed


def _future(n_tokens: int, device: torch.device) -> Bool[Tensor, "T T"]:
    return torch.ones(n_tokens, n_tokens, dtype=torch.bool, device=device).triu(1)
