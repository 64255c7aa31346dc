r"""The shape of a prediction: is it near uniform, or do a few tokens hold the mass?

If logits are normal with variance s² over a large vocabulary, then V·p is lognormal, and every
figure here follows from s alone: the deficit is s²/2, the Gini coefficient erf(s/2), and the share
of tokens within a factor f of 1/V is Φ((ln f + s²/2)/s) - Φ((-ln f + s²/2)/s).

Shapes: `*B` any leading dimensions, each with one prediction; V vocabulary.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

_MOST = (1, 10)
_NEAR = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """Means over predictions.

    Attributes:
        entropy_deficit_nats: ln V - H: 0 where uniform, ln V where one token has all.
        effective_share: exp(H) / V, the share of the vocabulary that seems to be in play.
        top1_mass: Probability of the likeliest token.
        top10_mass: Probability of the ten likeliest together.
        gini: Gini coefficient of the probabilities: 0 where uniform, 1 - 1/V where one has all.
        peak_over_uniform: V times the highest probability.
        near_uniform_share: Share of the vocabulary with a probability in [1/2, 2]/V.
    """

    entropy_deficit_nats: float
    effective_share: float
    top1_mass: float
    top10_mass: float
    gini: float
    peak_over_uniform: float
    near_uniform_share: float


def shape(logits: Float[Tensor, "*B V"]) -> Shape:
    """Return the shape of softmax(logits), in float64.

    A logit of -inf is a probability of 0; NaN in one prediction makes every mean NaN but that of
    the share near 1/V, which a NaN is not in.

    Source: Gini 1921, doi:10.2307/2223319, for the coefficient.
    """
    size = logits.shape[-1]
    p = logits.double().softmax(-1).sort(-1).values
    entropy = torch.special.entr(p).sum(-1)
    tops = {k: p[..., -min(k, size) :].sum(-1) for k in _MOST}
    near = (p * size >= 1 / _NEAR) & (p * size <= _NEAR)
    return Shape(
        entropy_deficit_nats=math.log(size) - float(entropy.mean()),
        effective_share=float(entropy.exp().mean()) / size,
        top1_mass=float(tops[1].mean()),
        top10_mass=float(tops[10].mean()),
        gini=float(_gini(p).mean()),
        peak_over_uniform=size * float(p[..., -1].mean()),
        near_uniform_share=float(near.double().mean()),
    )


def _gini(ascending: Float[Tensor, "*B V"]) -> Float[Tensor, "*B"]:
    """Return the mean difference of two entries over twice their mean, from sorted entries."""
    size = ascending.shape[-1]
    ranks = torch.arange(1, size + 1, dtype=ascending.dtype, device=ascending.device)
    return ((2 * ranks - size - 1) * ascending).sum(-1) / (size * ascending.sum(-1))
