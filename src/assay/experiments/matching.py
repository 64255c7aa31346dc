"""Arms of equal parameters or equal training FLOPs, by way of one field."""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import replace

from assay.config import RunConfig
from assay.count import count
from assay.errors import ConfigError
from assay.experiments.design import Arm, Design
from assay.experiments.made import Amount, Matching
from assay.experiments.settled import settled
from assay.schema import override

MOST_APART = 0.05
"""Largest share by which a matched arm may differ from the first."""
_LARGEST = 1 << 24
_COARSEST = 1 << 9  # a width must divide among heads; no field has a coarser grain
UNITS = {"parameters": "parameters", "flops": "training FLOPs"}


def matched(design: Design, matching: Matching) -> Design:
    """Return the design with every arm but the first brought to the first one's amount.

    The value found goes into `Arm.besides`; an arm that no value brings nearer stays as it is.

    Raises:
        UncountedError: If a variant does not say what it costs.
        ConfigError: If the field is itself compared, does not exist, takes no whole numbers or
            changes nothing here, or if its best value leaves over 5 % of difference.
    """
    first, *others = design.arms
    target = amount_of(settled(design.config(first, design.seeds[0])), matching.what)
    arms = (first, *(_matched(design, arm, matching, target) for arm in others))
    made = design.made.model_copy(update={"matching": matching})
    return Design(design.base, arms, design.seeds, made=made)


def amount_of(config: RunConfig, what: Amount) -> int:
    """Return the parameters or the training FLOPs of a config whose vocabulary is settled."""
    counted = count(config.model, seq_len=config.seq_len)
    if what == "parameters":
        return counted.parameters
    return config.train.steps * config.train.batch_size * counted.training_flops


def _matched(design: Design, arm: Arm, matching: Matching, target: int) -> Arm:
    what, by = matching.what, matching.by
    if by in arm.changes:
        raise ConfigError(
            f"--match-by: {by} found, which is what arms are compared by; expected another field, "
            "such as model.d_model, model.n_layers, model.mlp.d_ff or train.steps."
        )
    config = settled(design.config(arm, design.seeds[0]))

    def amount(value: int) -> int:
        return amount_of(override(config, {by: value}), what)

    grain = _grain(amount)
    if amount(grain) == amount(2 * grain):
        raise ConfigError(
            f"--match-by: {by} found, which changes no {UNITS[what]}; expected a field that does, "
            "such as model.d_model."
        )
    value, now = _nearest(amount, target, grain), amount_of(config, what)
    if min(abs(n - target) for n in (amount(value), now)) > MOST_APART * target:
        raise ConfigError(
            f"arm {arm.name!r}: no {by} brings it within {MOST_APART:.0%} of the first arm's "
            f"{target:,} {UNITS[what]}; it has {now:,}, and with {by}={value} {amount(value):,} "
            f"({amount(value) / target:.1%}). Match by another field, such as model.mlp.d_ff, or "
            "compare larger models."
        )
    if abs(now - target) <= abs(amount(value) - target):
        return arm
    return replace(arm, besides={**arm.besides, by: value})


def _grain(amount: Callable[[int], int]) -> int:
    """Return the least whole number the field takes; all its multiples are taken too.

    Raises:
        ConfigError: What is wrong with the field, if it takes none.
    """
    wrong: ConfigError | None = None
    for value in range(1, _COARSEST + 1):
        try:
            amount(value)
        except ConfigError as error:
            wrong = wrong or error
        else:
            return value
    raise wrong or AssertionError


def _nearest(amount: Callable[[int], int], target: int, grain: int) -> int:
    """Return the multiple of `grain` whose amount is nearest; amounts grow with the value."""
    values = range(grain, _LARGEST, grain)
    place = bisect_left(values, target, key=amount)
    return min(values[max(0, place - 1) : place + 1], key=lambda value: abs(amount(value) - target))
