"""What a forward pass, its memory and a cache cost in T, L and d: counted, then timed."""

from collections.abc import Mapping, Sequence

from assay.citation import Citation
from assay.experiments.claim import Budget, Claim, Judgement, Number, Part, Verdict
from assay.experiments.claims.clock import exponent, ratio
from assay.experiments.claims.cost_counts import (
    bend,
    counted,
    counts_of,
    exact_caches,
    exact_counts,
    pairs_kept,
    step_is_straight,
)
from assay.experiments.claims.cost_grid import Tasks, named
from assay.experiments.claims.cost_pictures import (
    bytes_table,
    memory_figure,
    seconds_figure,
    share_figure,
    slopes_table,
)
from assay.experiments.claims.verdicts import above, of_answers, of_facts, whole
from assay.experiments.evidence import Evidence
from assay.experiments.tasks import Task
from assay.experiments.tasks.cost import Axis, Pass

_DELTA = 0.15  # in an exponent: doubling x is told from a cost that grows 1.8- or 2.2-fold


def tasks(budget: Budget, evidence: Evidence) -> Sequence[Task]:
    """Ask for counts and times along each axis."""
    found = named(budget)
    several = (found.flops, found.memory, found.seconds)
    return [*(task for group in several for task in group.values()), *found[3:]]


def judge(budget: Budget, evidence: Evidence) -> Judgement:
    """Hold counts to the closed forms exactly, and exponents of times to those of the counts."""
    asked = named(budget)
    exponents = {
        (what, axis): exponent(f"{what}_{axis}", evidence, task, what, family=len(asked.seconds))
        for axis, task in asked.seconds.items()
        for what in task.passes
    }
    gain = ratio("cache_gain", evidence, asked.seconds["seq_len"], ("uncached", "cached"))
    crossings = evidence[asked.crossover].values["at"]
    straight = step_is_straight(evidence, asked)
    parts = (
        Part("count", of_facts(exact_counts(evidence, asked))),
        Part("order", "holds only when" if any(crossings) else "refuted"),
        Part("memory", of_facts([bend(evidence, asked) == 0])),
        Part("as_called", of_facts([not pairs_kept(evidence, asked) > 0])),
        Part("cache", of_facts(exact_caches(evidence, asked))),
        Part("decode", of_answers([above(gain, 1.0)]) if straight else "refuted"),
        Part("time", _times(exponents, asked)),
    )
    return Judgement(
        whole([part.verdict for part in parts]),
        parts,
        numbers=(
            *counts_of(evidence, asked),
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
        Citation("Kaplan et al. 2020", "arXiv:2001.08361", "sec. 2.1"),
        Citation("Dao et al. 2022", "arXiv:2205.14135", "sec. 3"),
    ),
)
