"""What a forward pass, its memory and a cache cost in T, L and d: counted, then timed."""

from collections.abc import Mapping, Sequence

import numpy as np

from assay.count import count
from assay.experiments.claim import Budget, Claim, Judgement, Number, Part, Verdict
from assay.experiments.claims.clock import exponent, ratio
from assay.experiments.claims.cost_grid import Tasks, named
from assay.experiments.claims.cost_pictures import (
    bytes_table,
    counted,
    memory_figure,
    seconds_figure,
    share_figure,
    slopes_table,
)
from assay.experiments.claims.verdicts import above, whole
from assay.experiments.evidence import Evidence
from assay.experiments.tasks import Task
from assay.experiments.tasks.cost import Axis, Pass
from assay.measure.cost import quadratic_term
from assay.presets import gpt2
from assay.source import Source

_DELTA = 0.15  # in an exponent: doubling x is told from a cost that grows 1.8- or 2.2-fold


def tasks(budget: Budget, evidence: Evidence) -> Sequence[Task]:
    """Ask for counts and times along each axis."""
    found = named(budget)
    several = (found.flops, found.memory, found.seconds)
    return [*(task for group in several for task in group.values()), *found[3:]]


def judge(budget: Budget, evidence: Evidence) -> Judgement:
    """Hold counts to the closed forms exactly, and exponents of times to those of the counts."""
    asked = named(budget)
    crossings, widths = evidence[asked.crossover].values["at"], asked.crossover.d_models
    exponents = {
        (what, axis): exponent(f"{what}_{axis}", evidence, task, what, family=len(asked.seconds))
        for axis, task in asked.seconds.items()
        for what in task.passes
    }
    exact, caches = _exact_counts(evidence, asked), _exact_caches(evidence, asked)
    bend = _bend(evidence, asked)
    gain = ratio("cache_gain", evidence, asked.seconds["seq_len"], ("uncached", "cached"))
    parts = (
        Part("count", _everywhere(exact)),
        Part("order", "holds only when" if any(crossings) else "refuted"),
        Part("memory", "confirmed" if bend == 0 else "refuted"),
        Part("as_called", "refuted" if _pairs_kept(evidence, asked) > 0 else "confirmed"),
        Part("cache", _everywhere(caches)),
        Part("decode", _decode(evidence, asked, gain)),
        Part("time", _times(exponents, asked)),
    )
    small = gpt2()
    return Judgement(
        whole([part.verdict for part in parts]),
        parts,
        numbers=(
            Number("points", len(exact)),
            Number("points_exact", sum(exact), of=tuple(asked.flops.values())),
            Number("cache_exact", sum(caches), of=tuple(asked.memory.values())),
            Number("bend", bend, unit="bytes", of=tuple(asked.memory.values())),
            Number("gpt2_share", count(small, seq_len=1024).score_share),
            Number("crossing", crossings[-1] or np.nan, of=(asked.crossover,)),
            Number("crossing_d", widths[-1]),
            Number("crossing_ratio", (crossings[-1] or np.nan) / widths[-1], of=(asked.crossover,)),
            Number("flops_in_d", counted(asked, "forward", "d_model")),
            _bytes_per_number(evidence, asked),
            Number("pairs_kept", _pairs_kept(evidence, asked), unit="bytes", of=(asked.attention,)),
            Number("times_more", _times_more(evidence, asked), of=(asked.attention,)),
            gain,
            Number("longest", max(asked.seconds["seq_len"].grid.sizes)),
            *(exponents["forward", axis] for axis in asked.seconds),
            *(Number(f"counted_{axis}", counted(asked, "forward", axis)) for axis in asked.seconds),
        ),
        tables=(slopes_table(asked, exponents, evidence), bytes_table(evidence, asked)),
        figures=(
            share_figure(budget),
            seconds_figure(evidence, asked),
            memory_figure(evidence, asked),
        ),
    )


def _everywhere(answers: Sequence[bool]) -> Verdict:
    return "confirmed" if all(answers) else "refuted"


# Counts ------------------------------------------------------------------------------------------


def _exact_counts(evidence: Evidence, asked: Tasks) -> list[bool]:
    """Return of each point whether PyTorch counts 24 L T d² + 4 L T² d + 2 T d V."""
    exact = []
    for task in asked.flops.values():
        found = evidence[task].values
        for place, (model, n_tokens) in enumerate(task.grid.points()):
            d, pairs = model.d_model, 4 * model.n_layers * n_tokens**2 * model.d_model
            rest = 24 * model.n_layers * n_tokens * d**2 + 2 * n_tokens * d * model.vocab
            exact.append((found["attention"][place], found["matrices"][place]) == (pairs, rest))
    return exact


def _exact_caches(evidence: Evidence, asked: Tasks) -> list[bool]:
    """Return of each point whether a full cache holds 2 L T d float32 numbers."""
    return [
        held == 4 * 2 * model.n_layers * n_tokens * model.d_model
        for task in asked.memory.values()
        for held, (model, n_tokens) in zip(
            evidence[task].values["cache"], task.grid.points(), strict=True
        )
    ]


def _bend(evidence: Evidence, asked: Tasks) -> float:
    """Return the largest quadratic term, along T, L or d, in what a fused model keeps."""
    return max(
        quadratic_term(task.grid.sizes, evidence[task].values["saved"])
        for task in asked.memory.values()
    )


def _pairs_kept(evidence: Evidence, asked: Tasks) -> float:
    """Return the bytes that attention as the article calls it keeps for each pair and head."""
    task = asked.attention
    return quadratic_term(task.seq_lens, evidence[task].values["as-called"]["saved"]) / task.heads


def _times_more(evidence: Evidence, asked: Tasks) -> float:
    found = evidence[asked.attention].values
    return float(found["as-called"]["saved"][-1] / found["fused"]["saved"][-1])


def _bytes_per_number(evidence: Evidence, asked: Tasks) -> Number:
    """Return what one layer more keeps for each token and channel."""
    task = asked.memory["n_layers"]
    saved, sizes, grid = evidence[task].values["saved"], task.grid.sizes, task.grid
    per_layer = (saved[-1] - saved[0]) / (sizes[-1] - sizes[0])
    per_number = per_layer / (grid.seq_len * grid.model.d_model)
    return Number("bytes_per_number", per_number, unit="bytes", of=(task,))


def _decode(evidence: Evidence, asked: Tasks, gain: Number) -> Verdict:
    """Return whether a cached token costs a + b·T FLOPs as counted, and less time than none."""
    task = asked.flops["seq_len"]
    found = evidence[task].values
    exact = found["step"] == found["closed_step"]
    straight = quadratic_term(task.grid.sizes, found["step"]) == 0
    if not (exact and straight):
        return "refuted"
    faster = above(gain, 1.0)
    return "not resolved" if faster is None else "confirmed" if faster else "refuted"


# Times -------------------------------------------------------------------------------------------


def _times(exponents: Mapping[tuple[Pass, Axis], Number], asked: Tasks) -> Verdict:
    """Return whether a forward pass's time grows as its FLOPs do, within 0.15 in each exponent."""
    verdicts: list[Verdict] = []
    for axis in asked.seconds:
        found, expected = exponents["forward", axis], counted(asked, "forward", axis)
        low, high = found.low or found.value, found.high or found.value
        inside = expected - _DELTA < low and high < expected + _DELTA
        outside = high < expected - _DELTA or low > expected + _DELTA
        verdicts.append("confirmed" if inside else "refuted" if outside else "not resolved")
    return whole(verdicts)


CLAIM = Claim(
    id="complexity",
    section="A.4",
    tasks=tasks,
    judge=judge,
    sources=(
        Source("Kaplan et al. 2020", "arXiv:2001.08361", "sec. 2.1"),
        Source("Dao et al. 2022", "arXiv:2205.14135", "sec. 3"),
    ),
)
