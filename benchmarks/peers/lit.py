"""GPT of litgpt in the Pythia manner, its nearest to GPT-2: rotary positions instead of a table.

The output matrix is tied here, which litgpt leaves open, so that as many parameters are updated.
"""

import torch
from litgpt import GPT, Config
from torch import Tensor, nn

from shapes import Shape


def build(shape: Shape) -> nn.Module:
    """Return the model."""
    model = GPT(
        Config(
            block_size=shape.seq_len,
            n_layer=shape.n_layers,
            n_embd=shape.d_model,
            n_head=shape.n_heads,
            vocab_size=shape.vocab_size,
            padded_vocab_size=shape.vocab_size,
            parallel_residual=False,
        )
    )
    model.apply(model._init_weights)
    model.lm_head.weight = model.transformer.wte.weight
    return model


class Decoder:
    """Greedy decoding with the library's preallocated cache, read as far as it is filled."""

    def __init__(self, model: nn.Module, max_len: int) -> None:
        self.model, self.max_len = model.eval(), max_len

    @torch.inference_mode()
    def start(self, prompts: Tensor) -> Tensor:
        """Read prompts (B, T) and return the first new token of each row."""
        dtype = self.model.lm_head.weight.dtype
        self.model.set_kv_cache(len(prompts), self.max_len, device=prompts.device, dtype=dtype)
        self.read = 0
        return self.step(prompts)

    @torch.inference_mode()
    def step(self, tokens: Tensor) -> Tensor:
        """Take in tokens (B, t) and return the next of each row: (B, 1)."""
        end = self.read + tokens.shape[1]
        places = torch.arange(self.read, end, device=tokens.device)
        self.read = end
        return self.model(tokens, places, input_pos_maxp1=end)[:, -1:].argmax(-1)
