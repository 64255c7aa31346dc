"""Weights for decoding: as they are, or rounded to bfloat16 or to 8-bit integers.

What is rounded are the matrices: the token embedding and the weight of every linear layer. Vectors
and position tables stay, and so does arithmetic, but for what meets the weights in a product: the
kernels may round it to bfloat16, or split it into two bytes (`native/dots.h`).

Shapes: N outputs (or tokens), K inputs (or channels).
"""

import copy
from dataclasses import dataclass
from typing import Literal, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from assay.nn.model import GPT

Weights = Literal["fp32", "bf16", "int8"]
_STEPS = 127  # on either side of zero


@final
@dataclass(frozen=True, slots=True)
class Packed:
    """A matrix as it is stored.

    Attributes:
        data: float32, bfloat16 or int8.
        scale: Of each row, with int8: the matrix is `data * scale`.
    """

    data: Tensor
    scale: Float[Tensor, " N"] | None = None

    def rows(self, ids: Int[Tensor, " E"]) -> Float[Tensor, "E K"]:
        """Return some rows in float32."""
        found = self.data[ids].float()
        return found if self.scale is None else found * self.scale[ids, None]

    def widened(self) -> Float[Tensor, "N K"]:
        """Return the matrix in float32."""
        wide = self.data.float()
        return wide if self.scale is None else wide * self.scale[:, None]

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes."""
        return self.data.nbytes + (0 if self.scale is None else self.scale.nbytes)


def pack(weight: Float[Tensor, "N K"], kind: Weights) -> Packed:
    """Round a matrix to the nearest; int8 has one scale a row, its largest magnitude over 127."""
    weight = weight.detach()
    if kind == "fp32":
        return Packed(weight.float().contiguous())
    if kind == "bf16":
        return Packed(weight.to(torch.bfloat16).contiguous())
    scale = weight.abs().amax(1).float() / _STEPS
    scale = scale.where(scale > 0, 1.0)  # a row of zeros, or nearly
    # a scale below 2^-126 is coarse, and a number may be more than 127 of it
    steps = (weight / scale[:, None]).round().clamp(-_STEPS, _STEPS)
    return Packed(steps.to(torch.int8).contiguous(), scale)


def rounded(model: GPT, kind: Weights) -> GPT:
    """Return a copy of `model` in float32 with the values that packed matrices stand for.

    On a CUDA device bf16 makes a copy in bfloat16 as a whole, which is what is fast there.
    """
    twin = copy.deepcopy(model).float()
    if kind == "bf16" and twin.embed.weight.is_cuda:
        return twin.to(torch.bfloat16)
    with torch.no_grad():
        for matrix in matrices(twin):
            matrix.copy_(pack(matrix, kind).widened())
    return twin


def matrices(model: GPT) -> list[Tensor]:
    """Return the token embedding and the weight of every linear layer."""
    linear = [module.weight for module in model.modules() if isinstance(module, nn.Linear)]
    return [model.embed.weight, *linear]
