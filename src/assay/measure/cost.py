"""What a pass costs as one thing grows: seconds, how fast they grow, and FLOPs counted.

Times on a busy machine drift, so points are timed in rounds, each round visiting every point once
in an order of its own: a slow minute then falls on all points alike. How fast a cost grows is the
slope on a log-log scale, the exponent p of cost = a·xᵖ: 1 where it doubles with x, 2 where it
quadruples. Costs that are sums, such as a·T + b·T², have a slope that itself grows; the slope of a
closed form over the same points says what to expect there.

Shapes: R rounds, P points.
"""

import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy import special
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from assay.errors import ConfigError
from assay.nn.cache import KVCache
from assay.nn.loss import next_token_loss
from assay.nn.model import GPT, ModelConfig
from assay.schema import override

Numbers = Sequence[int] | Sequence[float]
Work = Callable[[], object]
Prepared = Callable[[], Work]
"""Makes ready what is not to be timed, and returns the work that is."""

_ATTENTION_OPS = ("bmm", "baddbmm", "attention")  # the rest are products with weights


@dataclass(frozen=True, slots=True)
class Slope:
    """The exponent with which a cost grows.

    Attributes:
        value: Mean over rounds of each round's own slope.
        low: Lower end of its interval.
        high: Upper end of its interval.
        rounds: How many there were.
    """

    value: float
    low: float
    high: float
    rounds: int


class FlopCount(NamedTuple):
    """Forward FLOPs of one sequence, as PyTorch counts them.

    Attributes:
        attention: In products of queries with keys and of weights with values: the T² term.
        matrices: In products with weights.
    """

    attention: int
    matrices: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.attention + self.matrices


# Time --------------------------------------------------------------------------------------------


def interleaved_seconds(
    points: Sequence[Prepared],
    *,
    rounds: int,
    seed: int = 0,
    clock: Callable[[], float] = time.perf_counter,
) -> Float[np.ndarray, "R P"]:
    """Time every point once a round, after a round that is not counted.

    Args:
        points: What to time; each is prepared anew for each round, outside the time.
        rounds: R, at least 2.
        seed: Of the order within a round.
        clock: Returns seconds.

    Raises:
        ConfigError: With fewer than two rounds, or no point.
    """
    if rounds < 2 or not points:
        raise ConfigError(
            f"rounds: {rounds} of {len(points)} points found; expected at least 2 of at least 1, "
            "or there is no spread."
        )
    rng = np.random.default_rng(seed)
    seconds = np.empty((rounds + 1, len(points)))
    for row in seconds:
        for place in rng.permutation(len(points)):
            work = points[place]()
            began = clock()
            work()
            row[place] = clock() - began
    return seconds[1:]


def log_slope(sizes: Numbers, costs: Float[np.ndarray, "R P"], *, level: float = 0.95) -> Slope:
    """Return the exponent of `costs` in `sizes`, with Student's interval over rounds.

    A round is a cluster: points of one round share its circumstances, rounds do not. So each round
    gives one least-squares slope, and the interval is that of their mean, exact where the rounds'
    slopes are normal. It says how well the mean is known, not whether a power law fits.

    Raises:
        ConfigError: If there are fewer than two rounds or sizes, or a number is not above zero.
    """
    x, y = _logs("sizes", np.asarray(sizes, np.float64)), _logs("costs", costs)
    if len(costs) < 2 or np.ptp(x) == 0:
        raise ConfigError(
            f"slope: {len(costs)} rounds of sizes {list(sizes)} found; expected at "
            "least 2 rounds of at least 2 different sizes."
        )
    slopes = (y - y.mean(1, keepdims=True)) @ (x - x.mean()) / np.sum((x - x.mean()) ** 2)
    error = float(slopes.std(ddof=1)) / len(slopes) ** 0.5
    half = float(special.stdtrit(len(slopes) - 1, (1 + level) / 2)) * error
    mean = float(slopes.mean())
    return Slope(mean, mean - half, mean + half, len(slopes))


def exact_slope(sizes: Numbers, costs: Numbers) -> float:
    """Return the exponent of costs known without noise, (P,): of a closed form or a count."""
    twice = np.tile(np.asarray(costs, np.float64), (2, 1))
    return log_slope(sizes, twice).value


def quadratic_term(sizes: Numbers, costs: Numbers) -> float:
    """Return the largest |c| with which three neighbouring points lie on a + b·x + c·x².

    Zero says that all points lie on one straight line.
    """
    x, y = np.asarray(sizes, np.float64), np.asarray(costs, np.float64)
    bends = np.diff(np.diff(y) / np.diff(x)) / (x[2:] - x[:-2])
    return float(np.abs(bends).max())


def _logs(name: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
    if not (values > 0).all():
        raise ConfigError(f"{name}: {values.min():g} found; expected numbers above zero only.")
    return np.log(values)


# What is timed -----------------------------------------------------------------------------------


def forward_pass(model: GPT, tokens: Int[Tensor, "B T"]) -> Prepared:
    """Return a pass without gradients, all logits included."""

    def work() -> None:
        with torch.inference_mode():
            model(tokens)

    return lambda: work


def last_logits(model: GPT, tokens: Int[Tensor, "B T"]) -> Prepared:
    """Return what the T-th token costs without a cache: all tokens again, the last one's logits."""

    def work() -> None:
        with torch.inference_mode():
            model.logits(model.features(tokens)[:, -1])

    return lambda: work


def training_step(
    model: GPT, tokens: Int[Tensor, "B T1"], optimizer: torch.optim.Optimizer
) -> Prepared:
    """Return a step: loss, gradients, update. The model does learn."""

    def work() -> None:
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(next_token_loss(model, tokens))
        optimizer.step()

    return lambda: work


def cached_step(model: GPT, tokens: Int[Tensor, "B T"]) -> Prepared:
    """Return what the T-th token costs, the keys and values of those before it being cached.

    Each time a fresh cache is filled beforehand; it has room for the token, so none is copied.
    """

    def prepare() -> Work:
        cache = filled_cache(model, tokens[:, :-1], room=tokens.shape[1])
        last = tokens[:, -1:]

        def work() -> None:
            with torch.inference_mode():
                model(last, cache)

        return work

    return prepare


def filled_cache(model: GPT, tokens: Int[Tensor, "B T"], *, room: int = 0) -> KVCache:
    """Return a cache that has read `tokens`, with room for `room` in all."""
    config = model.config
    cache = KVCache.empty(config.n_layers, window=config.window, room=room)
    with torch.no_grad():
        model.features(tokens, cache)
    return cache


# FLOPs -------------------------------------------------------------------------------------------


def counted_flops(config: ModelConfig, seq_len: int) -> FlopCount:
    """Count a forward pass over one sequence, on the meta device, by PyTorch's own counter."""
    with torch.device("meta"):
        model, tokens = GPT(config).eval(), torch.zeros(1, seq_len, dtype=torch.long)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(tokens)
    return _by_kind(counter)


def counted_step_flops(config: ModelConfig, seq_len: int) -> FlopCount:
    """Count the pass for the T-th token alone, those before it being cached."""
    with torch.device("meta"):
        model, tokens = GPT(config).eval(), torch.zeros(1, seq_len, dtype=torch.long)
    cache = filled_cache(model, tokens[:, :-1], room=seq_len)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(tokens[:, -1:], cache)
    return _by_kind(counter)


def _by_kind(counter: FlopCounterMode) -> FlopCount:
    attention = matrices = 0
    for op, flops in counter.get_flop_counts()["Global"].items():
        if any(name in str(op) for name in _ATTENTION_OPS):
            attention += flops
        else:
            matrices += flops
    return FlopCount(attention, matrices)


def crossover(config: ModelConfig, *, most: int = 1 << 20) -> int | None:
    """Find the first T at which the T² term costs as much as all other FLOPs of the blocks.

    Bisection over the counter of PyTorch, not over the closed form of `assay.count`; None where it
    does not happen up to `most` tokens.
    """
    config = override(config, {"n_layers": 1})  # blocks are alike
    if config.position.bounded:  # the table ends, and costs no FLOPs
        config = override(config, {"position": "none"})
    output = 2 * config.vocab * config.d_model

    def excess(n_tokens: int) -> int:
        found = counted_flops(config, n_tokens)
        return found.attention - (found.matrices - n_tokens * output)

    first = 1 + bisect_left(range(1, most + 1), 0, key=excess)
    return first if first <= most else None
