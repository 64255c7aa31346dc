"""Temperature trades coherence for diversity: the article's table, and what it leaves out."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from assay.citation import Citation
from assay.experiments.claim import Budget, Claim, Judgement, Part, Verdict
from assay.experiments.claims.changes import against_zero
from assay.experiments.claims.sweep import Sweep
from assay.experiments.claims.temperature_grid import DIVERSITY, HIGH, LOW, MIDDLE, grid
from assay.experiments.claims.temperature_pictures import (
    article_table,
    coherence_figure,
    diversity_figure,
    numbers_of,
    sweep_table,
)
from assay.experiments.claims.verdicts import all_of, of_words
from assay.experiments.claims.writers import JUDGES, written
from assay.experiments.compare import Comparison
from assay.experiments.evidence import Evidence
from assay.experiments.tasks.text import Written
from assay.sampling import SamplingConfig

_SAMPLES: Mapping[Budget, int] = {"quick": 20, "laptop": 200, "full": 1000}
Words = Mapping[str, Comparison]


def tasks(budget: Budget, evidence: Evidence) -> list[Written]:
    """Write at every temperature, with the writers of all seeds."""
    samplings = [SamplingConfig(temperature=t) for t in grid(budget)]
    return written(budget, samplings, _SAMPLES[budget])


def judge(budget: Budget, evidence: Evidence) -> Judgement:
    """Judge the six cells of the article's table, and what lies under its first row."""
    sweep = Sweep.of(grid(budget), tasks(budget, evidence), evidence)
    words = against_zero(_differences(sweep))
    cells = _cells(words)
    monotone = _all(words, [f"step {a:g} {b:g}" for a, b in pairwise(sweep.grid)])
    cold = _all(words, [f"cold {judge}" for judge in JUDGES])
    loops = _all(words, ["loops"])
    rows = all_of(list(cells.values()))
    parts = (
        *(Part(name, verdict) for name, verdict in cells.items()),
        Part("monotone", monotone),
        Part("cold", cold),
        Part("loops", loops),
    )
    limited: Verdict = "holds only when" if "confirmed" in (cold, loops) else "confirmed"
    return Judgement(
        limited if rows == "confirmed" else rows,
        parts,
        numbers=numbers_of(sweep),
        tables=(article_table(sweep, cells), sweep_table(sweep)),
        figures=(coherence_figure(sweep), diversity_figure(sweep)),
    )


def _differences(sweep: Sweep) -> dict[str, list[float]]:
    """Return every difference that is tested, each expected above zero."""
    steps = list(pairwise(sweep.grid))
    found = {f"step {a:g} {b:g}": sweep.rise(DIVERSITY, a, b) for a, b in steps}
    for name in (DIVERSITY, *JUDGES):
        for a, b in ((LOW, MIDDLE), (MIDDLE, HIGH)):
            found[f"{name} {a:g} {b:g}"] = sweep.rise(name, a, b)
    found |= {f"cold {name}": sweep.first_over_best(name) for name in JUDGES}
    found["loops"] = sweep.rise("loop_rate", MIDDLE, sweep.grid[0])
    return found


def _cells(words: Words) -> dict[str, Verdict]:
    """Judge each cell by its neighbours' order: diversity up, and coherence down, with heat."""
    low, high = f"{LOW:g} {MIDDLE:g}", f"{MIDDLE:g} {HIGH:g}"
    found: dict[str, Verdict] = {}
    for title, names in (("diversity", [DIVERSITY]), ("coherence", list(JUDGES))):
        for place, steps in (("low", [low]), ("middle", [low, high]), ("high", [high])):
            found[f"{title}_{place}"] = _all(
                words, [f"{n} {step}" for n in names for step in steps]
            )
    return found


def _all(words: Words, names: Sequence[str]) -> Verdict:
    """Return whether all of these lie above zero: any below refutes it."""
    return all_of([of_words([words[name].word], "higher") for name in names])


CLAIM = Claim(
    id="temperature",
    section="4.2",
    tasks=tasks,
    judge=judge,
    sources=(
        Citation("Holtzman et al. 2019", "arXiv:1904.09751", "sec. 4 and 5"),
        Citation("Caccia et al. 2018", "arXiv:1811.02549", "sec. 3"),
    ),
)
