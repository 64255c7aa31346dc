"""The article's `MiniGPT`, appendix A.3.1, and its loop for generating, A.3.3, written anew.

What it computes is the appendix to the letter: PyTorch's default weights, a boolean mask made in
each pass, dropout of 0.1 on attention, the whole context run again for every token.
"""

import torch
from torch import Tensor, nn

from shapes import Shape


class Block(nn.Module):
    """Norms before `nn.MultiheadAttention` and the MLP, residuals around them."""

    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__()
        self.ln1 = nn.LayerNorm(d_model)
        self.ln2 = nn.LayerNorm(d_model)
        self.attn = nn.MultiheadAttention(d_model, n_heads, dropout=0.1, batch_first=True)
        self.ffn = nn.Sequential(
            nn.Linear(d_model, 4 * d_model), nn.GELU(), nn.Linear(4 * d_model, d_model)
        )

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map (B, T, D) to (B, T, D); `mask` (T, T) is true where a query must not look."""
        h = self.ln1(x)
        mixed, _ = self.attn(h, h, h, attn_mask=mask)  # weights asked for, as the appendix does
        x = x + mixed
        return x + self.ffn(self.ln2(x))


class MiniGPT(nn.Module):
    """Learned positions, tied output."""

    def __init__(self, shape: Shape, max_len: int) -> None:
        super().__init__()
        self.token_emb = nn.Embedding(shape.vocab_size, shape.d_model)
        self.pos_emb = nn.Embedding(max_len, shape.d_model)
        self.blocks = nn.ModuleList(
            Block(shape.d_model, shape.n_heads) for _ in range(shape.n_layers)
        )
        self.ln_f = nn.LayerNorm(shape.d_model)
        self.lm_head = nn.Linear(shape.d_model, shape.vocab_size, bias=False)
        self.lm_head.weight = self.token_emb.weight

    def forward(self, x: Tensor) -> Tensor:
        """Map ids (B, T) to logits (B, T, V)."""
        length = x.shape[1]
        places = torch.arange(length, device=x.device)
        h = self.token_emb(x) + self.pos_emb(places)
        mask = torch.triu(torch.ones(length, length, device=x.device), diagonal=1).bool()
        for block in self.blocks:
            h = block(h, mask)
        return self.lm_head(self.ln_f(h))


def build(shape: Shape) -> nn.Module:
    """Return the model, for windows of T tokens."""
    return MiniGPT(shape, shape.seq_len)


@torch.no_grad()
def next_tokens(model: nn.Module, ids: Tensor) -> Tensor:
    """Take one step of A.3.3: return `ids` (B, t) with a token drawn for each row, (B, t + 1)."""
    logits = model(ids)[:, -1, :]
    drawn = torch.multinomial(torch.softmax(logits, dim=-1), num_samples=1)
    return torch.cat([ids, drawn], dim=1)
