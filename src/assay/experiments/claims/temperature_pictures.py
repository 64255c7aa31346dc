"""Numbers, tables and figures of the claim on temperature."""

from collections.abc import Mapping, Sequence

from assay.experiments.claim import Figure, Number, Table, Verdict
from assay.experiments.claims.sweep import Sweep
from assay.experiments.claims.temperature_grid import DIVERSITY, HIGH, LOW, MIDDLE
from assay.experiments.claims.writers import JUDGES

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


def numbers_of(sweep: Sweep) -> tuple[Number, ...]:
    """Return what may be quoted."""
    names, told = (DIVERSITY, *JUDGES, "loop_rate"), (sweep.grid[0], LOW, MIDDLE, HIGH)
    return (
        *(sweep.number(name, t, label) for name in names
          for t, label in zip(told, ("coldest", "low", "middle", "high"), strict=True)),
        *(sweep.of_people(name) for name in names),
        *(Number.mean(f"best_{name}", sweep.best(name), of=sweep.tasks) for name in JUDGES),
        Number.mean("loops_under", sweep.falls_under("loop_rate", _LOOPS), of=sweep.tasks),
        Number("temperature_coldest", sweep.grid[0]),
        Number("temperature_hottest", sweep.grid[-1]),
    )  # fmt: skip


def article_table(sweep: Sweep, cells: Mapping[str, Verdict]) -> Table:
    """Return the article's table, a verdict beside each of its cells."""
    places = {LOW: "low", MIDDLE: "middle", HIGH: "high"}
    rows: list[tuple[str | Number, ...]] = [
        (
            f"{t:g}",
            sweep.number(DIVERSITY, t),
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


def sweep_table(sweep: Sweep) -> Table:
    """Return every figure at every temperature, and of people's text."""
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


def coherence_figure(sweep: Sweep) -> Figure:
    """Draw what both judges need over the temperature; rules are people's text."""
    rules = tuple(("y", sweep.of_people(name).value) for name in JUDGES)
    return Figure(
        "coherence", "lines", _lines(sweep, JUDGES), "temperature", "value", "figure",
        low="low", high="high", rules=rules,
    )  # fmt: skip


def diversity_figure(sweep: Sweep) -> Figure:
    """Draw diversity and repetition over the temperature."""
    names = (DIVERSITY, "distinct_2_words", "self_bleu_4_words", "loop_rate", "rep_4")
    return Figure(
        "diversity", "lines", _lines(sweep, names), "temperature", "value", "figure",
        low="low", high="high",
    )  # fmt: skip
