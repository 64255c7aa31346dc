"""A decoder of x-transformers with learned positions, GELU, fused attention and a tied output."""

from torch import nn
from x_transformers import Decoder, TransformerWrapper

from shapes import Shape


def build(shape: Shape) -> nn.Module:
    """Return the model."""
    return TransformerWrapper(
        num_tokens=shape.vocab_size,
        max_seq_len=shape.seq_len,
        tie_embedding=True,
        attn_layers=Decoder(
            dim=shape.d_model,
            depth=shape.n_layers,
            heads=shape.n_heads,
            attn_dim_head=shape.d_model // shape.n_heads,
            attn_flash=True,
        ),
    )
