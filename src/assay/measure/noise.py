"""What a trained model can lose: some of its matrices replaced by noise of equal moments.

Shapes: B sequences, T1 = T + 1 tokens.
"""

import copy
from collections.abc import Collection
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor, nn

from assay.nn.init import stream_seed
from assay.nn.loss import next_token_loss
from assay.nn.mixer import Attention
from assay.nn.model import GPT

Part = Literal["q", "k", "v"]
PARTS: tuple[Part, ...] = ("q", "k", "v")


@torch.no_grad()
def with_noise(model: GPT, parts: Collection[Part], layers: Collection[int], *, seed: int) -> GPT:
    """Return a copy whose weights in the named parts are normal, of the same mean and deviation.

    The noise of a matrix depends on `seed`, its layer and its part, and on nothing else: it is the
    same whether one matrix is replaced or all. Biases stay. Layers without attention stay as they
    are.

    Args:
        model: Left untouched.
        parts: Of the matrices that make queries, keys and values.
        layers: Counted from 0.
        seed: Of the noise.
    """
    noisy = copy.deepcopy(model)
    for layer in layers:
        mixer = noisy.blocks[layer].mixer
        if not isinstance(mixer, Attention):
            continue
        for part in parts:
            weight = _projection(mixer, part).weight
            weight.copy_(_like(weight, stream_seed(seed, f"noise/{layer}/{part}")))
    return noisy


@torch.inference_mode()
def batch_loss_nats(model: GPT, tokens: Int[Tensor, "B T1"]) -> float:
    """Return the mean loss on a batch, without dropout; the mode is restored."""
    was_training = model.training
    model.eval()
    loss = float(next_token_loss(model, tokens))
    model.train(was_training)
    return loss


def _projection(mixer: Attention, part: Part) -> nn.Linear:
    return {"q": mixer.q_proj, "k": mixer.k_proj, "v": mixer.v_proj}[part]


def _like(weight: Tensor, seed: int) -> Tensor:
    """Return normal noise of the mean and deviation of `weight`, drawn on the CPU."""
    noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed))
    std, mean = torch.std_mean(weight.double(), correction=0)
    return (noise.to(weight.device).double() * std + mean).to(weight.dtype)
