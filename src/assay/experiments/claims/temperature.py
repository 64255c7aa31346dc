"""Temperature trades coherence for diversity: the article's table, and what it leaves out."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from assay.experiments.claim import (
    Budget,
    Claim,
    Figure,
    Judgement,
    Number,
    Part,
    Table,
    Verdict,
)
from assay.experiments.claims.sweep import Sweep
from assay.experiments.claims.verdicts import all_of
from assay.experiments.claims.writers import JUDGES, against_zero, written
from assay.experiments.compare import Comparison
from assay.experiments.evidence import Evidence
from assay.experiments.tasks.text import Written
from assay.sampling import SamplingConfig
from assay.source import Source

_LOW, _MIDDLE, _HIGH = 0.5, 1.0, 1.3  # the article's rows
_QUICK = (0.1, _LOW, _MIDDLE, _HIGH)
_GRID = (0.1, 0.2, 0.3, _LOW, 0.7, 0.85, _MIDDLE, _HIGH, 1.6, 2.0)
_SAMPLES: Mapping[Budget, int] = {"quick": 20, "laptop": 200, "full": 1000}
_DIVERSITY = "distinct_4"
_LOOPS = 0.1  # share of texts beyond which text is called looping
_SPEC = {"diversity": ".3f", "judge": ".2f", "ngram": ".2f"}
_MEASURED = {
    "distinct_4": ".3f",
    "distinct_1_words": ".3f",
    "distinct_2_words": ".3f",
    "distinct_3_words": ".3f",
    "self_bleu_4_words": ".3f",
    "unique_4": ",.0f",
    "zipf_words": ".2f",
    "rep_4_words": ".1%",
}
Words = Mapping[str, Comparison]


def grid(budget: Budget) -> tuple[float, ...]:
    """Return the temperatures of a budget, rising."""
    return _QUICK if budget == "quick" else _GRID


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
        numbers=_numbers(sweep),
        tables=(_article(sweep, cells), _all_figures(sweep)),
        figures=(_coherence(sweep), _diversity(sweep)),
    )


def _differences(sweep: Sweep) -> dict[str, list[float]]:
    """Return every difference that is tested, each expected above zero."""
    steps = list(pairwise(sweep.grid))
    found = {f"step {a:g} {b:g}": sweep.rise(_DIVERSITY, a, b) for a, b in steps}
    for name in (_DIVERSITY, *JUDGES):
        for a, b in ((_LOW, _MIDDLE), (_MIDDLE, _HIGH)):
            found[f"{name} {a:g} {b:g}"] = sweep.rise(name, a, b)
    found |= {f"cold {name}": sweep.first_over_best(name) for name in JUDGES}
    found["loops"] = sweep.rise("loop_rate", _MIDDLE, sweep.grid[0])
    return found


def _numbers(sweep: Sweep) -> tuple[Number, ...]:
    names, told = (_DIVERSITY, *JUDGES, "loop_rate"), (sweep.grid[0], _LOW, _MIDDLE, _HIGH)
    return (
        *(sweep.number(name, t, label) for name in names
          for t, label in zip(told, ("coldest", "low", "middle", "high"), strict=True)),
        *(sweep.of_people(name) for name in names),
        *(Number.mean(f"best_{name}", sweep.best(name), of=sweep.tasks) for name in JUDGES),
        Number.mean("loops_under", sweep.falls_under("loop_rate", _LOOPS), of=sweep.tasks),
        Number("temperature_coldest", sweep.grid[0]),
        Number("temperature_hottest", sweep.grid[-1]),
    )  # fmt: skip


def _cells(words: Words) -> dict[str, Verdict]:
    """Judge each cell by its neighbours' order: diversity up, and coherence down, with heat."""
    low, high = f"{_LOW:g} {_MIDDLE:g}", f"{_MIDDLE:g} {_HIGH:g}"
    found: dict[str, Verdict] = {}
    for title, names in (("diversity", [_DIVERSITY]), ("coherence", list(JUDGES))):
        for place, steps in (("low", [low]), ("middle", [low, high]), ("high", [high])):
            found[f"{title}_{place}"] = _all(
                words, [f"{n} {step}" for n in names for step in steps]
            )
    return found


def _all(words: Words, names: Sequence[str]) -> Verdict:
    """Return whether all of these lie above zero: any below refutes it."""
    found = [words[name].word for name in names]
    if "lower" in found:
        return "refuted"
    return "confirmed" if all(word == "higher" for word in found) else "not resolved"


def _article(sweep: Sweep, cells: Mapping[str, Verdict]) -> Table:
    places = {_LOW: "low", _MIDDLE: "middle", _HIGH: "high"}
    rows: list[tuple[str | Number, ...]] = [
        (
            f"{t:g}",
            sweep.number(_DIVERSITY, t),
            cells[f"diversity_{place}"],
            *(sweep.number(name, t) for name in JUDGES),
            cells[f"coherence_{place}"],
        )
        for t, place in places.items()
    ]
    columns = (
        "temperature",
        "diversity",
        "diversity_verdict",
        "judge",
        "ngram",
        "coherence_verdict",
    )
    return Table("article", columns, tuple(rows), _SPEC)


def _all_figures(sweep: Sweep) -> Table:
    rows: list[tuple[str | Number, ...]] = [
        (f"{t:g}", *(sweep.number(name, t) for name in _MEASURED)) for t in sweep.grid
    ]
    rows.append(("-", *(sweep.of_people(name) for name in _MEASURED)))
    return Table("sweep", ("temperature", *_MEASURED), tuple(rows), _MEASURED)


def _lines(sweep: Sweep, names: Sequence[str]) -> tuple[Mapping[str, object], ...]:
    numbers = {(t, name): sweep.number(name, t) for t in sweep.grid for name in names}
    return tuple(
        {"temperature": t, "figure": name, "value": n.value, "low": n.low, "high": n.high}
        for (t, name), n in numbers.items()
    )


def _coherence(sweep: Sweep) -> Figure:
    rules = tuple(("y", sweep.of_people(name).value) for name in JUDGES)
    return Figure(
        "coherence", "lines", _lines(sweep, JUDGES), "temperature", "value", "figure",
        low="low", high="high", rules=rules,
    )  # fmt: skip


def _diversity(sweep: Sweep) -> Figure:
    names = (_DIVERSITY, "distinct_2_words", "self_bleu_4_words", "loop_rate", "rep_4")
    return Figure(
        "diversity", "lines", _lines(sweep, names), "temperature", "value", "figure",
        low="low", high="high",
    )  # fmt: skip


CLAIM = Claim(
    id="temperature",
    section="4.2",
    tasks=tasks,
    judge=judge,
    sources=(
        Source("Holtzman et al. 2019", "arXiv:1904.09751", "sec. 4 and 5"),
        Source("Caccia et al. 2018", "arXiv:1811.02549", "sec. 3"),
    ),
)
