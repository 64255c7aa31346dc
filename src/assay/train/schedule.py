"""Learning-rate schedules: the `train.schedule` field.

A schedule is a factor of the peak rate, a pure function of the step, counted from 1 to `steps`.
Every schedule but the constant one warms up linearly and reaches factor 1 at `warmup_steps`.
"""

import math
from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeInt

from assay.citation import Citation
from assay.family import Family, Variant

Fraction = Annotated[float, Field(ge=0, le=1)]
_WARMUP_SHARE = 20  # a twentieth of the steps, unless told


def _warmup(step: int, warmup: int) -> float:
    return min(1.0, step / warmup) if warmup else 1.0


def _resolved(warmup_steps: int | None, steps: int) -> int:
    return steps // _WARMUP_SHARE if warmup_steps is None else warmup_steps


def _progress(step: int, start: int, steps: int) -> float:
    """Return how far `step` lies between `start` and `steps`, in [0, 1]."""
    return min(1.0, max(0.0, (step - start) / max(1, steps - start)))


class ScheduleVariant(Variant):
    """How the learning rate goes over the steps of a run."""

    def factor(self, step: int, steps: int) -> float:
        """Return the factor of the peak rate at `step`, counted from 1, of `steps`."""
        raise NotImplementedError


class ConstantConfig(ScheduleVariant):
    """The peak rate after the warm-up, to the end."""

    kind: Literal["constant"] = "constant"
    warmup_steps: NonNegativeInt = 0
    """Steps over which the rate rises from 0."""
    citation: ClassVar[Citation | None] = None

    def factor(self, step: int, steps: int) -> float:
        """Return the factor of the peak rate at `step` of `steps`."""
        return _warmup(step, self.warmup_steps)


class LinearConfig(ScheduleVariant):
    """A straight line from the peak to `final`."""

    kind: Literal["linear"] = "linear"
    warmup_steps: NonNegativeInt | None = None
    """Steps over which the rate rises from 0. Null: a twentieth of the steps."""
    final: Fraction = 0.0
    """Factor at the last step."""
    citation: ClassVar[Citation | None] = Citation(
        "Devlin et al. 2018", "arXiv:1810.04805", "app. A.2"
    )

    def factor(self, step: int, steps: int) -> float:
        """Return the factor of the peak rate at `step` of `steps`."""
        warmup = _resolved(self.warmup_steps, steps)
        return _warmup(step, warmup) * (1 - (1 - self.final) * _progress(step, warmup, steps))


class CosineConfig(ScheduleVariant):
    """Half a cosine from the peak to `final`."""

    kind: Literal["cosine"] = "cosine"
    warmup_steps: NonNegativeInt | None = None
    """Steps over which the rate rises from 0. Null: a twentieth of the steps."""
    final: Fraction = 0.1
    """Factor at the last step."""
    citation: ClassVar[Citation | None] = Citation(
        "Loshchilov & Hutter 2016", "arXiv:1608.03983", "eq. 5"
    )

    def factor(self, step: int, steps: int) -> float:
        """Return the factor of the peak rate at `step` of `steps`."""
        warmup = _resolved(self.warmup_steps, steps)
        fall = 0.5 * (1 - math.cos(math.pi * _progress(step, warmup, steps)))
        return _warmup(step, warmup) * (1 - (1 - self.final) * fall)


class WSDConfig(ScheduleVariant):
    """Warm-up, stable, decay: the peak rate until the last `decay` of the steps, then a line."""

    kind: Literal["wsd"] = "wsd"
    warmup_steps: NonNegativeInt | None = None
    """Steps over which the rate rises from 0. Null: a twentieth of the steps."""
    decay: Fraction = 0.2
    """Share of the steps over which the rate falls."""
    final: Fraction = 0.0
    """Factor at the last step."""
    citation: ClassVar[Citation | None] = Citation("Hu et al. 2024", "arXiv:2404.06395", "sec. 4.2")

    def factor(self, step: int, steps: int) -> float:
        """Return the factor of the peak rate at `step` of `steps`."""
        warmup = _resolved(self.warmup_steps, steps)
        start = max(warmup, steps - round(self.decay * steps))
        return _warmup(step, warmup) * (1 - (1 - self.final) * _progress(step, start, steps))


class InverseSqrtConfig(ScheduleVariant):
    """After the warm-up, the root of its length over the step: a run may be longer than was said.

    The rate depends on `steps` through the warm-up alone.
    """

    kind: Literal["inverse_sqrt"] = "inverse_sqrt"
    warmup_steps: NonNegativeInt | None = None
    """Steps over which the rate rises from 0. Null: a twentieth of the steps."""
    citation: ClassVar[Citation | None] = Citation(
        "Vaswani et al. 2017", "arXiv:1706.03762", "eq. 3"
    )

    def factor(self, step: int, steps: int) -> float:
        """Return the factor of the peak rate at `step` of `steps`."""
        warmup = _resolved(self.warmup_steps, steps)
        return _warmup(step, warmup) * min(1.0, math.sqrt(max(1, warmup) / step))


SCHEDULES = Family(
    ScheduleVariant, (ConstantConfig, LinearConfig, CosineConfig, WSDConfig, InverseSqrtConfig)
)
ScheduleConfig = Annotated[ScheduleVariant, SCHEDULES]
