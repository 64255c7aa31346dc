"""Comparisons of arms with the first arm, and what may be said of each."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from assay.experiments.outcome import Outcome
from assay.experiments.planning import ALPHA, seeds_to_see, smallest_visible
from assay.experiments.statistics import (
    Interval,
    bootstrap_interval,
    holm,
    p_different,
    p_diverged,
    p_equivalent,
    t_interval,
)

Word = Literal["lower", "higher", "equivalent", "not resolved", "diverges"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One arm beside the first, seed by seed; differences are arm minus first arm.

    Attributes:
        arm: Its name.
        n: Seeds under which both finished.
        diverged: Runs of this arm that diverged.
        diverged_first: Runs of the first arm that diverged.
        mean: Mean difference, NaN with fewer than two pairs.
        interval: Where it lies, at the level that Holm's method leaves to this comparison.
        bootstrap: The same by BCa bootstrap, from eight seeds on.
        documents: Seeds and validation documents resampled, where losses by document are kept.
        document_kind: What stands for a document there: document, group or stretch.
        p: Of Student's test.
        p_holm: Adjusted for the number of comparisons.
        noise: Standard deviation of the difference over seeds.
        visible: The least difference that these seeds call different with power 0.8.
        word: What may be said.
        needs: Seeds it would take to see a difference of this size, where it is not resolved.
    """

    arm: str
    n: int
    diverged: int
    diverged_first: int
    mean: float = math.nan
    interval: Interval | None = None
    bootstrap: Interval | None = None
    documents: Interval | None = None
    document_kind: str = ""
    p: float = math.nan
    p_holm: float = math.nan
    noise: float = math.nan
    visible: float = math.nan
    word: Word = "not resolved"
    needs: int | None = None

    @property
    def sentence(self) -> str:
        """Say it with its numbers."""
        if self.word == "diverges":
            return (
                f"{self.arm}: {self.diverged} runs diverged, {self.diverged_first} of the first arm"
            )
        if self.interval is None:
            return f"{self.arm}: not resolved, {self.n} pairs of finished runs"
        where = f"{self.mean:+.4f} [{self.interval.low:+.4f}, {self.interval.high:+.4f}]"
        lost = f"; {self.diverged} runs diverged" if self.diverged else ""
        more = ""
        if self.word == "not resolved":
            needs = f", needs about {self.needs}" if self.needs else ""
            more = f" ({self.n} seeds{needs})"
        return f"{self.arm}: {self.word}{more}, {where}, p {self.p_holm:.2g}{lost}"


def compare(
    outcomes: Mapping[str, Sequence[Outcome]],
    metric: str,
    *,
    delta: float | None = None,
    alpha: float = ALPHA,
    n_first: int | None = None,
) -> list[Comparison]:
    """Compare every arm with the first.

    Args:
        outcomes: The runs of each arm, all arms under the same seeds in the same order.
        metric: What they are compared by.
        delta: The smallest difference that matters; without it nothing is called equivalent.
        alpha: Chance that any comparison of the family errs.
        n_first: Seeds of the first stage, where the others were added by Stein's rule.
    """
    first, *others = outcomes
    pairs = {arm: paired(outcomes[first], outcomes[arm], metric) for arm in others}
    stages = {
        arm: n_first and len(paired(outcomes[first][:n_first], outcomes[arm][:n_first], metric))
        for arm in others
    }
    judged = [arm for arm in others if len(pairs[arm][: stages[arm]]) > 1]
    raw = {arm: p_different(pairs[arm], n_first=stages[arm]) for arm in judged}
    adjusted = dict(zip(judged, holm([raw[arm] for arm in judged]), strict=True))
    levels = _levels(raw, alpha)
    found = []
    for arm in others:
        diverged = [[run.state == "diverged" for run in outcomes[name]] for name in (arm, first)]
        plain = Comparison(arm, len(pairs[arm]), sum(diverged[0]), sum(diverged[1]))
        apart = p_diverged(*diverged) < alpha / len(others)
        if arm not in raw:
            word: Word = "diverges" if apart else "not resolved"
            found.append(Comparison(arm, plain.n, plain.diverged, plain.diverged_first, word=word))
            continue
        values = _Values(pairs[arm], raw[arm], adjusted[arm], levels[arm], alpha, stages[arm])
        found.append(values.judged(plain, delta, apart=apart))
    return found


def paired(
    first: Sequence[Outcome], other: Sequence[Outcome], metric: str
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return other minus first, for the seeds under which both have the metric."""
    d = np.array([b.value(metric) - a.value(metric) for a, b in zip(first, other, strict=True)])
    return d[np.isfinite(d)]


def _levels(p_values: Mapping[str, float], alpha: float) -> dict[str, float]:
    """Return the level of each interval, such that it excludes zero just where Holm rejects."""
    order = sorted(p_values, key=lambda arm: p_values[arm])
    levels, left = {}, len(order)
    rejecting = True
    for arm in order:
        levels[arm] = 1 - alpha / left
        rejecting = rejecting and p_values[arm] < alpha / left
        left -= rejecting
    return levels


@dataclass(frozen=True, slots=True)
class _Values:
    """The differences of one comparison, and what of the family bears on it."""

    d: np.ndarray[tuple[int], np.dtype[np.float64]]
    p: float
    p_holm: float
    level: float
    alpha: float
    n_first: int | None

    def judged(self, plain: Comparison, delta: float | None, *, apart: bool) -> Comparison:
        d, noise = self.d, float(self.d.std(ddof=1))
        mean = float(d.mean())
        word = self._word(mean, delta, apart=apart)
        return Comparison(
            arm=plain.arm,
            n=plain.n,
            diverged=plain.diverged,
            diverged_first=plain.diverged_first,
            mean=mean,
            interval=t_interval(d, level=self.level, n_first=self.n_first),
            bootstrap=None if self.n_first else bootstrap_interval(d),
            p=self.p,
            p_holm=self.p_holm,
            noise=noise,
            visible=smallest_visible(noise, len(d), alpha=1 - self.level, n_first=self.n_first),
            word=word,
            needs=self._needs(mean, noise, delta) if word == "not resolved" else None,
        )

    def _word(self, mean: float, delta: float | None, *, apart: bool) -> Word:
        if apart:
            return "diverges"
        if delta is not None and p_equivalent(self.d, delta, n_first=self.n_first) < self.alpha:
            return "equivalent"
        if self.p_holm < self.alpha:
            return "lower" if mean < 0 else "higher"
        return "not resolved"

    def _needs(self, mean: float, noise: float, delta: float | None) -> int | None:
        sought = max(abs(mean), delta or 0.0)
        if noise == 0 or sought < noise / 50:  # over some 20,000 seeds: nobody's plan
            return None
        return seeds_to_see(noise, sought, alpha=1 - self.level)
