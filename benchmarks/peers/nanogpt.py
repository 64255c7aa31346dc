"""A GPT in nanoGPT's manner: packed projections, PyTorch's fused attention, no biases.

Written anew from the published description (https://github.com/karpathy/nanoGPT, README).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shapes import Shape


class Attention(nn.Module):
    """Causal self-attention with one projection to queries, keys and values."""

    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.qkv = nn.Linear(d_model, 3 * d_model, bias=False)
        self.out = nn.Linear(d_model, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, D) to (B, T, D)."""
        parts = self.qkv(x).unflatten(-1, (3, self.n_heads, -1))
        q, k, v = (part.transpose(1, 2) for part in parts.unbind(2))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Norms before attention and MLP, residuals around them."""

    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(d_model, bias=False)
        self.attention = Attention(d_model, n_heads)
        self.mlp_norm = nn.LayerNorm(d_model, bias=False)
        self.up = nn.Linear(d_model, 4 * d_model, bias=False)
        self.down = nn.Linear(4 * d_model, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, D) to (B, T, D)."""
        x = x + self.attention(self.attention_norm(x))
        return x + self.down(F.gelu(self.up(self.mlp_norm(x))))


class NanoGPT(nn.Module):
    """Learned positions, tied output."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        d_model = shape.d_model
        self.tokens = nn.Embedding(shape.vocab_size, d_model)
        self.positions = nn.Embedding(shape.seq_len, d_model)
        self.blocks = nn.Sequential(*(Block(d_model, shape.n_heads) for _ in range(shape.n_layers)))
        self.norm = nn.LayerNorm(d_model, bias=False)
        for name, weight in self.named_parameters():
            if weight.ndim == 2:  # what writes into the residual stream starts smaller
                joins = name.endswith(("out.weight", "down.weight"))
                std = 0.02 / (2 * shape.n_layers) ** 0.5 if joins else 0.02
                nn.init.normal_(weight, std=std)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map ids (B, T) to logits (B, T, V)."""
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.blocks(self.tokens(tokens) + self.positions(places))
        return F.linear(self.norm(x), self.tokens.weight)


def build(shape: Shape) -> nn.Module:
    """Return the model."""
    return NanoGPT(shape)
