"""From logits to the next token.

The order, here and nowhere else, is that of Hugging Face's `generate`:

    repetition penalty -> temperature (fixed or adaptive) -> a filter -> top-k -> top-p -> min-p
    -> draw

Everything is computed in float64 and per row. Functions are pure; the randomness of a draw is one
number in [0, 1) that the caller brings.
"""

from assay.sampling.draw import SamplingConfig, distribution, sample, uniforms
from assay.sampling.filters import keep_min_p, keep_top_k, keep_top_p, penalise
from assay.sampling.temperature import ADAPTS, AdaptConfig, entropy_nats

__all__ = [
    "ADAPTS",
    "AdaptConfig",
    "SamplingConfig",
    "distribution",
    "entropy_nats",
    "keep_min_p",
    "keep_top_k",
    "keep_top_p",
    "penalise",
    "sample",
    "uniforms",
]
