"""The temperature of each row: the `adapt` field of `SamplingConfig`.

Shapes: B rows, V vocabulary. Entropies are in nats, of the row at temperature 1.
"""

import math
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field, PositiveFloat, model_validator
from torch import Tensor

from assay.citation import Citation
from assay.errors import ConfigError
from assay.family import Family, Variant

_BISECTIONS = 50  # of the logarithm of the temperature: any bounds meet to 1e-12, relatively


def entropy_nats(logits: Float[Tensor, "B V"]) -> Float[Tensor, "B 1"]:
    """Return the entropy of each row's softmax."""
    return torch.special.entr(logits.softmax(-1)).sum(-1, keepdim=True)


class AdaptVariant(Variant):
    """A rule for the temperature of each row."""

    def check(self, base: float) -> None:
        """Raise ValueError if `sampling.temperature` = `base` does not go with it."""

    def temperature(self, logits: Float[Tensor, "B V"], base: float) -> Float[Tensor, "B 1"]:
        """Return the temperature of each row, over 0.

        Args:
            logits: Of the next token, in float64, the largest of each row 0.
            base: `sampling.temperature`.
        """
        raise NotImplementedError


class FixedConfig(AdaptVariant):
    """The same temperature for every token."""

    kind: Literal["none"] = "none"

    def temperature(self, logits: Float[Tensor, "B V"], base: float) -> Float[Tensor, "B 1"]:
        """Return `base` for every row."""
        return logits.new_full((logits.shape[0], 1), base)


class EDTConfig(AdaptVariant):
    r"""Cooler where the model is sure: $T = T_0 \, N^{\theta / H}$, never under `floor`.

    T₀ is `sampling.temperature`, H the entropy of the row. The paper sets no floor; without one T
    underflows to 0 on a sure row and the logits are divided by it.
    """

    kind: Literal["edt"] = "edt"
    theta: PositiveFloat = 1.0
    """θ, in nats: the entropy at which the temperature is T₀ times `base`."""
    base: Annotated[float, Field(gt=0, lt=1)] = 0.8
    """N."""
    floor: PositiveFloat = 1e-3
    """The lowest temperature; at most `sampling.temperature`."""
    citation: ClassVar[Citation | None] = Citation(
        "Zhang et al. 2024", "arXiv:2403.14541", "EDT, N = 0.8"
    )

    def check(self, base: float) -> None:
        """Raise ValueError if the floor is over the temperature, which would then be fixed."""
        if self.floor > base:
            raise ValueError(
                f"adapt.floor: {self.floor} found; expected at most temperature = {base}, which "
                "edt lowers. Lower the floor or raise the temperature."
            )

    def temperature(self, logits: Float[Tensor, "B V"], base: float) -> Float[Tensor, "B 1"]:
        """Return the temperature of each row."""
        return (base * self.base ** (self.theta / entropy_nats(logits))).clamp_min(self.floor)


class EntropyConfig(AdaptVariant):
    """The temperature at which the row's entropy is a target, between `floor` and `ceiling`.

    Entropy grows with the temperature, so the solution is found by bisection. A row whose entropy
    is still too low at `ceiling`, or too high at `floor`, gets that bound.
    """

    kind: Literal["entropy"] = "entropy"
    target_nats: PositiveFloat = 2.0
    """The entropy wanted; less than ln V, which only an infinite temperature reaches."""
    floor: PositiveFloat = 0.1
    """The lowest temperature."""
    ceiling: PositiveFloat = 2.0
    """The highest temperature; more than `floor`."""

    @model_validator(mode="after")
    def _bounds_are_ordered(self) -> "EntropyConfig":
        _check_order("floor", self.floor, "ceiling", self.ceiling)
        return self

    def check(self, base: float) -> None:
        """Raise ValueError for a temperature that nothing would read."""
        _check_unused(base, self.kind)

    def temperature(self, logits: Float[Tensor, "B V"], base: float) -> Float[Tensor, "B 1"]:
        """Return the temperature of each row; `base` is not read.

        Raises:
            ConfigError: If the target is not under ln V.
        """
        if self.target_nats >= (most := math.log(logits.shape[1])):
            raise ConfigError(
                f"sampling.adapt.target_nats: {self.target_nats} found; expected less than "
                f"{most:.4f}, the entropy of {logits.shape[1]} equally likely tokens. Lower it."
            )
        low = logits.new_full((logits.shape[0], 1), math.log(self.floor))
        high = torch.full_like(low, math.log(self.ceiling))
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            cold = entropy_nats(logits / middle.exp()) < self.target_nats
            low, high = torch.where(cold, middle, low), torch.where(cold, high, middle)
        return high.exp().clamp(self.floor, self.ceiling)


class DynatempConfig(AdaptVariant):
    r"""Between two temperatures by entropy: $T = a + (b - a) (H / \ln V)^x$.

    The rule of KoboldCpp, taken over by llama.cpp, where it may run after other filters and V
    counts the tokens they left; here it runs before them, so V is the whole vocabulary.
    """

    kind: Literal["dynatemp"] = "dynatemp"
    low: PositiveFloat = 0.5
    """a: the temperature of a row that is certain."""
    high: PositiveFloat = 1.5
    """b: the temperature of a uniform row; more than `low`."""
    exponent: PositiveFloat = 1.0
    """x: 1 is a straight line, more keeps cool longer."""
    citation: ClassVar[Citation | None] = Citation(
        "kalomaze 2024", "https://github.com/LostRuins/koboldcpp/pull/600", "sample_entropy"
    )

    @model_validator(mode="after")
    def _bounds_are_ordered(self) -> "DynatempConfig":
        _check_order("low", self.low, "high", self.high)
        return self

    def check(self, base: float) -> None:
        """Raise ValueError for a temperature that nothing would read."""
        _check_unused(base, self.kind)

    def temperature(self, logits: Float[Tensor, "B V"], base: float) -> Float[Tensor, "B 1"]:
        """Return the temperature of each row; `base` is not read."""
        most = math.log(logits.shape[1]) or 1.0  # a vocabulary of one token has no entropy
        share = (entropy_nats(logits) / most).clamp(0, 1)
        return self.low + (self.high - self.low) * share**self.exponent


ADAPTS = Family(AdaptVariant, (FixedConfig, EDTConfig, EntropyConfig, DynatempConfig))
AdaptConfig = Annotated[AdaptVariant, ADAPTS]


def _check_order(low_name: str, low: float, high_name: str, high: float) -> None:
    if low >= high:
        raise ValueError(
            f"{low_name}: {low} found; expected less than {high_name} = {high}. For a fixed "
            "temperature set sampling.temperature and leave adapt out."
        )


def _check_unused(base: float, kind: str) -> None:
    if base != 1:
        raise ValueError(
            f"temperature: {base} found with adapt={kind}, which sets the temperature by itself. "
            "Leave temperature out."
        )
