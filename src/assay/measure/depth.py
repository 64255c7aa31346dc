"""What happens along the depth of a model: how large the stream is, how large the gradients are.

Shapes: B sequences, T1 = T + 1 tokens.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor, nn

from assay.nn.loss import next_token_loss
from assay.nn.model import GPT


@dataclass(frozen=True, slots=True)
class Depth:
    """One look through the layers.

    Attributes:
        loss_nats: Of the batch.
        stream_rms: Root mean square of what enters each block, and of what leaves the last: one
            number more than there are blocks.
        gradient_norms: Norm of the gradient of each block's parameters, all of them together.
    """

    loss_nats: float
    stream_rms: tuple[float, ...]
    gradient_norms: tuple[float, ...]


def through_depth(model: GPT, tokens: Int[Tensor, "B T1"]) -> Depth:
    """Return scales and gradients of `model` on a batch, without dropout.

    The model is left as it was: mode restored, no gradient kept, no hook. What is not finite stays
    so in the figures.
    """
    was_training = model.training
    model.eval()
    with _stream(model) as scales:
        loss = next_token_loss(model, tokens)
    parameters = [list(block.parameters()) for block in model.blocks]
    flat = [parameter for block in parameters for parameter in block]
    gradients = iter(torch.autograd.grad(loss, flat))
    norms = [
        float(nn.utils.get_total_norm([next(gradients) for _ in block])) for block in parameters
    ]
    model.train(was_training)
    return Depth(float(loss.detach()), tuple(scales), tuple(norms))


@contextmanager
def _stream(model: GPT) -> Iterator[list[float]]:
    """Collect the scale of what enters each block and leaves the last, while the context lasts."""
    scales: list[float] = []

    def note(x: Tensor) -> None:
        scales.append(float(x.detach().double().square().mean().sqrt()))

    hooks = [
        block.register_forward_pre_hook(lambda _, inputs: note(inputs[0])) for block in model.blocks
    ]
    hooks.append(model.blocks[-1].register_forward_hook(lambda _, __, output: note(output)))
    try:
        yield scales
    finally:
        for hook in hooks:
            hook.remove()
