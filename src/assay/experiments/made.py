"""How the arms of a study were made comparable, and how many seeds they were given: declared."""

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from assay.schema import Config

Amount = Literal["parameters", "flops"]


class Matching(Config):
    """Every arm is brought to the size or the cost of the first."""

    what: Amount
    """Parameters of the model, or FLOPs of the whole training."""
    by: str
    """The field that is changed for it."""


class Tuning(Config):
    """One field is chosen for each arm, among the same values and by as many runs."""

    field: str
    """Such as train.optimizer.lr."""
    values: Annotated[tuple[Any, ...], Field(strict=False, min_length=2)]
    """What was tried."""
    seeds: Annotated[tuple[int, ...], Field(strict=False)]
    """Under which it was tried: none of the study's own."""
    study: str
    """The study whose cells the trials are."""


class Widening(Config):
    """Seeds are added by Stein's rule until intervals are narrow enough."""

    half_width: PositiveFloat
    """Of the interval of every comparison, in the unit of the metric."""
    n_first: PositiveInt
    """Seeds whose spread decides how many there are in all."""
    most: PositiveInt
    """Seeds in all, whatever the rule asks."""


class Made(Config):
    """What was done beside changing the named fields; nothing, by default."""

    matching: Matching | None = None
    """Arms of one size or cost."""
    tuning: Tuning | None = None
    """A field chosen for each arm."""
    widening: Widening | None = None
    """Seeds added until intervals are narrow."""
