"""GPT-2 of Hugging Face transformers, without dropout, with PyTorch's fused attention."""

import torch
from torch import Tensor, nn
from transformers import DynamicCache, GPT2Config, GPT2LMHeadModel

from shapes import Shape


class Logits(nn.Module):
    """The logits alone, as every entrant gives them."""

    def __init__(self, inner: GPT2LMHeadModel) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, tokens: Tensor) -> Tensor:
        """Map ids (B, T) to logits (B, T, V)."""
        return self.inner(input_ids=tokens, use_cache=False).logits


def gpt2(shape: Shape) -> GPT2LMHeadModel:
    """Return the library's own model with random weights."""
    config = GPT2Config(
        vocab_size=shape.vocab_size,
        n_positions=shape.seq_len,
        n_embd=shape.d_model,
        n_layer=shape.n_layers,
        n_head=shape.n_heads,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        resid_pdrop=0.0,
        attn_implementation="sdpa",
        bos_token_id=None,
        eos_token_id=None,
    )
    return GPT2LMHeadModel(config)


def build(shape: Shape) -> nn.Module:
    """Return the model."""
    return Logits(gpt2(shape))


class Decoder:
    """Greedy decoding with the library's growing cache, one call a token; no `generate` around."""

    def __init__(self, model: GPT2LMHeadModel) -> None:
        self.model = model.eval()

    @torch.inference_mode()
    def start(self, prompts: Tensor) -> Tensor:
        """Read prompts (B, T) and return the first new token of each row."""
        self.cache = DynamicCache(config=self.model.config)
        return self.step(prompts)

    @torch.inference_mode()
    def step(self, tokens: Tensor) -> Tensor:
        """Take in tokens (B, t) and return the next of each row: (B, 1)."""
        out = self.model(
            input_ids=tokens, past_key_values=self.cache, use_cache=True, logits_to_keep=1
        )
        return out.logits[:, -1:].argmax(-1)
