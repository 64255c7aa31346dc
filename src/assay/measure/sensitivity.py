r"""How much the choice of the learning rate matters to a model.

$$\mathbb{E}_\eta\left[\min(\ell(\eta), \ell_0) - \ell^*\right]$$

with ℓ(η) the final loss at rate η, ℓ₀ the loss before training and ℓ* the best of all rates. Rates
are to be spread evenly in their logarithm; the mean gives each the same weight.

Source: Wortsman et al. 2023, arXiv:2309.14322, section 2.2.
"""

import math
from collections.abc import Sequence

from assay.errors import ConfigError

Point = tuple[float, float]
"""A learning rate and the loss it ended at, in nats."""


def lr_sensitivity(
    points: Sequence[Point], initial_nats: float, *, best_nats: float | None = None
) -> float:
    """Return how far, on average over the rates, the loss stays from the best one, in nats.

    A loss that is no number, of a run that diverged, counts as the initial loss. So a model that
    learns at no rate has sensitivity 0: where models are compared, look at their best losses too,
    or hold all of them to one `best_nats`.

    Args:
        points: One for each rate.
        initial_nats: The loss before training.
        best_nats: What the losses are held to; without it, the best of these.

    Raises:
        ConfigError: If there are fewer than two rates, or the initial loss is no number.
    """
    rates = [rate for rate, _ in points]
    if len(set(rates)) < 2 or len(set(rates)) < len(rates):
        raise ConfigError(
            f"learning rates: {rates} found; expected at least two, no two alike. Average the "
            "losses of one rate first."
        )
    if not math.isfinite(initial_nats):
        raise ConfigError(f"initial loss: {initial_nats} found; expected a finite number of nats.")
    bounded = [min(loss, initial_nats) if loss < math.inf else initial_nats for _, loss in points]
    best = min(bounded) if best_nats is None else best_nats
    return math.fsum(loss - best for loss in bounded) / len(bounded)
