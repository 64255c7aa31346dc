"""How the weights of a model are distributed, component by component.

A component gathers one kind of matrix. Layers are kept apart: tensors of different widths, pooled,
look heavy-tailed though each of them is normal.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from assay.nn.model import GPT

QUANTILES = (0.001, 0.01, 0.25, 0.5, 0.75, 0.99, 0.999)
_NAMES = {
    "q_proj": "q",
    "k_proj": "k",
    "v_proj": "v",
    "out_proj": "out",
    "table": "position",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Distribution:
    """Of the entries of one tensor.

    Attributes:
        count: Entries.
        mean: Their mean.
        std: Their standard deviation, of the population.
        excess_kurtosis: 0 for a normal, -1.2 for a uniform distribution; NaN for constants.
        quantiles: At `QUANTILES`, interpolated.
        normal_distance: The largest difference between their distribution function and that of the
            normal with their mean and deviation; about 0.6/√count for normal entries, NaN for
            constants.
    """

    count: int
    mean: float
    std: float
    excess_kurtosis: float
    quantiles: tuple[float, ...]
    normal_distance: float


def by_component(model: GPT) -> dict[str, list[Tensor]]:
    """Return the weights of each component, layer by layer, where the model has it.

    Components: q, k, v, out, up, gate, down, embed, unembed, position, norm (scales and shifts of
    all norms of a layer, and of those outside the layers, one tensor each), bias (of linear
    layers). A tied embedding is once there, as embed.
    """
    found: dict[str, list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        owner, _, leaf = name.rpartition(".")
        found.setdefault(_component(model, owner, leaf), []).append(parameter.detach())
    return found


def describe(weights: Float[Tensor, "*S"]) -> Distribution:
    """Return the distribution of the entries, in float64.

    Source: Lilliefors 1967, doi:10.1080/01621459.1967.10482916, for the distance.
    """
    x = weights.flatten().double().sort().values
    mean, std = float(x.mean()), float(x.std(correction=0))
    at = torch.tensor(QUANTILES, dtype=x.dtype) * (len(x) - 1)
    low, high = x[at.floor().long()], x[at.ceil().long()]  # torch.quantile takes 2²⁴ at most
    z = (x - mean) / std if std > 0 else torch.full_like(x, math.nan)
    return Distribution(
        count=len(x),
        mean=mean,
        std=std,
        excess_kurtosis=float(z.pow(4).mean()) - 3,
        quantiles=tuple((low + (high - low) * at.frac()).tolist()),
        normal_distance=float(_distance_to_normal(z)),
    )


def _component(model: GPT, owner: str, leaf: str) -> str:
    layer = owner.rpartition(".")[2]
    if not isinstance(model.get_submodule(owner), nn.Linear | nn.Embedding):
        return "norm"
    return "bias" if leaf == "bias" else _NAMES.get(layer, layer)


def _distance_to_normal(ascending: Float[Tensor, " N"]) -> Float[Tensor, ""]:
    """Return the Kolmogorov-Smirnov distance of standardised entries from Φ."""
    size = len(ascending)
    steps = torch.arange(size + 1, dtype=ascending.dtype, device=ascending.device) / size
    below = torch.special.ndtr(ascending)
    return torch.maximum((steps[1:] - below).max(), (below - steps[:-1]).max())
