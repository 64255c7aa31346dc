"""What is said of how arms were made comparable, seeds added and code mixed."""

from collections.abc import Iterator, Mapping

from assay.experiments.design import Arm, Design, shown
from assay.experiments.made import Matching, Tuning, Widening
from assay.experiments.markup import code, plain
from assay.experiments.matching import UNITS as AMOUNTS
from assay.experiments.outcome import Size
from assay.experiments.results import Results
from assay.experiments.tuning import at_edge
from assay.experiments.widening import seeds_asked


def how_made(results: Results) -> Iterator[str]:
    """Yield a sentence for everything that was done beside changing the named fields."""
    record, arms = results.study.record, results.study.design.arms
    made = record.made
    if all(arm.besides == arms[0].besides for arm in arms):
        yield "Controlled: arms differ in the named fields and in nothing else."
    else:
        yield "**Not controlled**: " + "; ".join(
            f"{code(arm.name)} also has "
            + ", ".join(plain(f"{f}={shown(v)}") for f, v in arm.besides.items())
            for arm in arms
            if arm.besides
        )
    if made.matching:
        yield _matching_words(made.matching, results)
    if made.tuning:
        yield _tuning_words(made.tuning, results)
    if made.widening:
        yield _widening_words(made.widening, results)
    if record.other_code:
        yield (
            f"**Mixed**: {len(record.other_code)} of {len(results.study.cells())} runs were made "
            "by other code; they are marked in the table of runs."
        )


def how_arm_made(design: Design, sizes: Mapping[str, Size], arm: Arm) -> str:
    """Return how one arm was made comparable, for a table; empty where nothing was done."""
    made, first = design.made, design.arms[0]
    told = []
    if made.matching and arm is not first:
        share = _share(made.matching, sizes[arm.name], sizes[first.name])
        by = made.matching.by
        how = f"by {by}={shown(arm.besides[by])}" if by in arm.besides else "as it is"
        told.append(f"matched in {AMOUNTS[made.matching.what]} {how} ({share:.1%})")
    if made.tuning and made.tuning.field in arm.besides:
        told.append(_tuned(made.tuning, arm))
    return "; ".join(told)


def _share(matching: Matching, size: Size, first: Size) -> float:
    if matching.what == "parameters":
        return size.parameters / first.parameters
    return size.train_flops / first.train_flops


def _tuned(tuning: Tuning, arm: Arm) -> str:
    value = arm.besides[tuning.field]
    edge = ", at the edge of what was tried" if at_edge(tuning, value) else ""
    tried = f"{len(tuning.values)} values x {len(tuning.seeds)} seeds"
    return f"tuned: {tuning.field}={shown(value)} over {tried}{edge}"


def _matching_words(matching: Matching, results: Results) -> str:
    first, *others = results.sizes.values()
    apart = max(abs(_share(matching, size, first) - 1) for size in others)
    return (
        f"Arms are matched to the first in {AMOUNTS[matching.what]} by {code(matching.by)}; the "
        f"largest difference left is {apart:.1%}."
    )


def _tuning_words(tuning: Tuning, results: Results) -> str:
    arms = results.study.design.arms
    edges = [code(arm.name) for arm in arms if at_edge(tuning, arm.besides[tuning.field])]
    warning = (
        f" At the edge of these values, so that a better one may lie beyond: {', '.join(edges)}."
        if edges
        else ""
    )
    return (
        f"Tuned: {code(tuning.field)} over {len(tuning.values)} values "
        f"({plain(', '.join(map(shown, tuning.values)))}) x {len(tuning.seeds)} seeds for every "
        f"arm, none of them a seed compared here (study {code(tuning.study)}).{warning}"
    )


def _widening_words(widening: Widening, results: Results) -> str:
    metric = results.study.record.metric
    asked = seeds_asked(results.outcomes, metric, widening)
    held = (
        f" The rule asks for {asked}, so intervals are wider than that: --most-seeds "
        f"{widening.most} holds it back."
        if asked > widening.most
        else ""
    )
    return (
        f"Seeds were added by Stein's rule: {widening.n_first} first, whose spread decided on "
        f"{len(results.study.design.seeds)} in all, for intervals of at most "
        f"+- {widening.half_width:g}; intervals and tests go by the spread of the first "
        f"{widening.n_first}, which keeps the error rate.{held}"
    )
