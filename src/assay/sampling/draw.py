"""The chain from logits to a token; its order is written down in `assay.sampling`.

Shapes: B rows, V vocabulary, L tokens so far.
"""

import math
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, NonNegativeInt, PositiveFloat, model_serializer, model_validator
from torch import Tensor

from assay.errors import DivergedError
from assay.sampling.filters import (
    FilterConfig,
    NoFilterConfig,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    penalise,
)
from assay.sampling.temperature import AdaptConfig, FixedConfig
from assay.schema import Config

_GREEDY = ("temperature", "repetition_penalty")  # what the likeliest token depends on


class SamplingConfig(Config):
    """How the next token is drawn; the defaults draw from the model's own distribution."""

    temperature: Annotated[float, Field(ge=0)] = 1.0
    """Divides the logits; 0 is greedy: always the likeliest token, the lowest id among equals."""
    adapt: AdaptConfig = FixedConfig()
    """How the temperature follows the entropy of each row."""
    filter: FilterConfig = NoFilterConfig()
    """A filter before the three that follow."""
    top_k: NonNegativeInt = 0
    """Keep the k likeliest tokens and those as likely as the k-th; 0 keeps all."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Keep the fewest tokens whose probability reaches p; 1 keeps all."""
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Keep tokens at least p times as likely as the likeliest; 0 keeps all."""
    repetition_penalty: PositiveFloat = 1.0
    """Over 1 makes tokens of the prompt and of the text so far less likely; 1 does nothing."""

    @model_validator(mode="after")
    def _every_setting_has_an_effect(self) -> "SamplingConfig":
        if self.temperature > 0:
            self.adapt.check(self.temperature)
            return self
        for name, field in type(self).model_fields.items():
            if name in _GREEDY:
                continue
            if (found := getattr(self, name)) != field.default:
                raise ValueError(
                    f"{name}: {getattr(found, 'kind', found)} found with temperature 0, which is "
                    f"greedy and leaves it without effect. Leave {name} out, or set a temperature "
                    "over 0."
                )
        return self

    @model_serializer(mode="wrap")
    def _written(self, write: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """Leave `filter` out where there is none: a config from before it keeps its name."""
        fields = write(self)
        if self.filter == NoFilterConfig():
            fields.pop("filter", None)
        return fields


def sample(
    logits: Float[Tensor, "B V"],
    config: SamplingConfig,
    uniform: Float[Tensor, " B"],
    history: Int[Tensor, "B L"] | None = None,
) -> Int[Tensor, " B"]:
    """Draw one token for each row: that in which the cumulative probability passes `uniform`.

    Args:
        logits: Of the next token.
        config: How to draw.
        uniform: One number in [0, 1) for each row.
        history: Ids of the tokens so far, for the repetition penalty; -1 marks padding.

    Raises:
        ConfigError: As `distribution` does.
        DivergedError: As `distribution` does.
    """
    _check_finite(logits)
    if config.temperature == 0 and config.repetition_penalty == 1:
        return logits.argmax(-1)
    if (ids := _likeliest(logits, config)) is not None:
        among = distribution(logits.gather(1, ids), config)
        return ids.gather(1, _draw(among, uniform)[:, None]).squeeze(1)
    return _draw(distribution(logits, config, history), uniform).to(logits.device)


_PLAIN = (FixedConfig(), NoFilterConfig(), 1.0)  # no token counts but those that top-k keeps


def _likeliest(logits: Float[Tensor, "B V"], config: SamplingConfig) -> Int[Tensor, "B k"] | None:
    """Return the ids that top-k keeps, in order, where they alone decide; a cheaper way.

    They do not where all tokens have a say in the temperature, in a filter before top-k or in the
    penalty, and are not k where some equal the k-th.
    """
    k = config.top_k
    plain = (config.adapt, config.filter, config.repetition_penalty) == _PLAIN
    if not plain or not 0 < k < logits.shape[1]:
        return None
    top = logits.topk(k + 1, dim=-1)
    if (top.values[:, k - 1] == top.values[:, k]).any():
        return None
    return top.indices[:, :k].sort(-1).values


def _draw(probability: Float[Tensor, "B V"], uniform: Float[Tensor, " B"]) -> Int[Tensor, " B"]:
    """Draw by inversion; on the CPU a scan goes from left to right and needs no mending."""
    cumulative, uniform = probability.cumsum(-1), uniform.to(probability)
    if probability.device.type == "cpu":
        return _first_passed(cumulative, uniform)
    return invert(cumulative, probability > 0, uniform)


def invert(
    cumulative: Float[Tensor, "B V"], possible: Bool[Tensor, "B V"], uniform: Float[Tensor, " B"]
) -> Int[Tensor, " B"]:
    """Return the first possible token at which `cumulative` passes `uniform` times its total.

    A scan on many threads may round downwards from one token to the next, or upwards over an
    impossible one. A running maximum over the possible tokens alone mends both.
    """
    return _first_passed(cumulative.masked_fill(~possible, -1).cummax(-1).values, uniform)


def _first_passed(rising: Float[Tensor, "B V"], uniform: Float[Tensor, " B"]) -> Int[Tensor, " B"]:
    total = rising[:, -1:]
    under = torch.nextafter(total, torch.zeros_like(total))  # a number rounded to 1 draws the last
    passed = (uniform[:, None] * total).minimum(under)
    return torch.searchsorted(rising, passed, right=True).squeeze(-1)


def distribution(
    logits: Float[Tensor, "B V"], config: SamplingConfig, history: Int[Tensor, "B L"] | None = None
) -> Float[Tensor, "B V"]:
    """Return the probabilities that `sample` draws from, in float64.

    Raises:
        ConfigError: If a repetition penalty has no history, or an entropy target is out of reach.
        DivergedError: If a logit is not a finite number.
    """
    _check_finite(logits)
    wide = (logits.cpu() if logits.device.type == "mps" else logits).double()  # mps has no float64
    wide = penalise(wide, history, config.repetition_penalty)
    if config.temperature == 0:
        return torch.zeros_like(wide).scatter(1, wide.argmax(-1, keepdim=True), 1.0)
    wide = wide - wide.amax(-1, keepdim=True)  # so that no temperature, however low, overflows
    scaled = wide / config.adapt.temperature(wide, config.temperature)
    kept = keep_top_k(config.filter.keep(scaled), config.top_k)
    kept = keep_top_p(kept, config.top_p)
    return keep_min_p(kept, config.min_p).softmax(-1)


def uniforms(seed: int, *, prompt: int, sample: int) -> Iterator[float]:
    """Yield one number in [0, 1) a step, for ever, for one sample of one prompt.

    A pure function of its arguments and of the step: a row draws the same numbers alone or in any
    batch. Philox with key `seed` and a 256-bit counter that starts at
    `prompt * 2**128 + sample * 2**64` (each under 2**64); a number is the upper 53 bits of one
    64-bit output, over 2**53.

    Source: Salmon et al. 2011, doi:10.1145/2063384.2063405.
    """
    bits = np.random.Philox(key=seed, counter=(prompt << 128) | (sample << 64))
    while True:
        yield (int(bits.random_raw()) >> 11) * 2.0**-53


def _check_finite(logits: Float[Tensor, "B V"]) -> None:
    if all(math.isfinite(end) for end in logits.aminmax()):  # nan is passed on, and cheaper
        return
    finite = logits.isfinite()
    row, token = (~finite).nonzero()[0].tolist()
    raise DivergedError(
        f"logits: {logits[row, token].item()} found for token {token} in row {row}; expected a "
        "finite number. The weights have diverged or are damaged; load an earlier checkpoint."
    )
