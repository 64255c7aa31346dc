"""Loss on a fixed set of windows, in nats, perplexity and bits per byte.

Shapes: N windows, T tokens of context; a window holds T + 1 tokens.
"""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from assay.nn.head import at_least_float32
from assay.nn.model import GPT

_BATCH_TOKENS = 8192


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Mean loss over the targets of an evaluation.

    Attributes:
        loss_nats: Mean cross-entropy per token.
        tokens: Targets.
        text_bytes: Bytes of text the targets stand for; special tokens stand for none.
    """

    loss_nats: float
    tokens: int
    text_bytes: int

    @property
    def perplexity(self) -> float:
        """Exp of the loss per token; inf where that overflows."""
        return math.exp(self.loss_nats) if self.loss_nats < 700 else math.inf

    @property
    def bits_per_byte(self) -> float:
        """Loss in bits over the bytes of text: comparable between tokenizers."""
        return self.loss_nats * self.tokens / math.log(2) / max(1, self.text_bytes)


TokenLosses = Callable[[GPT, Tensor], Tensor]
"""Makes, of a model and tokens (B, T + 1), what every next token costs, in nats."""


def evaluate(
    model: GPT,
    windows: Int[Tensor, "N T1"],
    byte_lengths: np.ndarray,
    precision: Callable[[], AbstractContextManager[object]],
    token_losses: TokenLosses | None = None,
) -> Evaluation:
    """Return the loss of `model` over every target of `windows`; the model's mode is restored.

    Args:
        model: In any mode; evaluated without dropout.
        windows: Token ids; each position but the last predicts the next.
        byte_lengths: Bytes of text of every token id.
        precision: Makes the context in which a forward pass runs.
        token_losses: What takes the forward pass in place of PyTorch.
    """
    was_training = model.training
    model.eval()
    device = model.embed.weight.device
    total = torch.zeros((), dtype=torch.float64)
    size = max(1, _BATCH_TOKENS // windows.shape[1])
    with torch.inference_mode():
        for first in range(0, windows.shape[0], size):
            tokens = windows[first : first + size].to(device)
            with precision():
                losses = (token_losses or _by_pytorch)(model, tokens)
            total += losses.double().sum().cpu()
    model.train(was_training)
    targets = windows[:, 1:]
    text_bytes = round(float(byte_lengths[targets.numpy()].sum()))
    return Evaluation(float(total) / targets.numel(), targets.numel(), text_bytes)


def _by_pytorch(model: GPT, tokens: Int[Tensor, "B T1"]) -> Float[Tensor, " N"]:
    logits = at_least_float32(model(tokens[:, :-1])).flatten(0, 1)
    return F.cross_entropy(logits, tokens[:, 1:].flatten(), reduction="none")
