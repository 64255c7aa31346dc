"""Timing in turns: each entrant once a round, so that a machine that slows down slows them all."""

import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

Visit = Callable[[], float]
"""Works for a while and returns a figure, such as tokens per second."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and quartiles of the rounds."""

    median: float
    low: float
    high: float


def take_turns(visits: Mapping[str, Visit], *, rounds: int) -> dict[str, list[float]]:
    """Return the figures of every entrant, one a round.

    A round more goes before, to warm up, and is dropped. Who begins changes from round to round.
    """
    names = list(visits)
    figures: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + 1):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            figures[name].append(visits[name]())
        tell(f"  round {number} of {rounds}")
    return {name: found[1:] for name, found in figures.items()}


def spread(values: Sequence[float]) -> Spread:
    """Return median and quartiles; of one value, that value."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high)


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Return the spread of the quotients of equal rounds."""
    return spread([a / b for a, b in zip(ours, theirs, strict=True)])


def visit_of(work: Callable[[], object], *, amount: float, seconds: float) -> Visit:
    """Return a visit that repeats `work` for about `seconds` and gives `amount` per second of it.

    The first visit, which warms up, does the work twice: once untimed, since it may compile.
    """
    repeats = 0

    def visit() -> float:
        nonlocal repeats
        if repeats:
            return amount * repeats / timed(work, repeats)
        work()
        once_s = timed(work, 1)
        repeats = max(1, round(seconds / once_s))
        return amount / once_s

    return visit


def timed(work: Callable[[], object], repeats: int) -> float:
    """Return the seconds of `repeats` times `work`, the device's queue emptied."""
    wait()
    began = time.perf_counter()
    for _ in range(repeats):
        work()
    wait()
    return time.perf_counter() - began


def wait() -> None:
    """Let the device finish what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def tell(words: str) -> None:
    """Say on stderr how far things are."""
    print(words, file=sys.stderr, flush=True)
