"""A study as a table, for a reader, a spreadsheet, a paper: pure functions of its folder."""

import math
from collections.abc import Iterator, Sequence
from statistics import mean, stdev

from assay.count import NOT_COUNTED
from assay.experiments.compare import Comparison
from assay.experiments.markup import code, csv_table, latex_table, markdown_table, paragraph
from assay.experiments.outcome import Outcome, Size
from assay.experiments.planning import POWER
from assay.experiments.provenance import how_arm_made, how_made
from assay.experiments.results import Results

UNITS = {"val_loss_nats": "nats per token", "val_bits_per_byte": "bits per byte"}
DOCUMENTS = {
    "document": "validation documents",
    "group": "groups of validation documents",
    "stretch": "stretches of the validation text",
}


def markdown(results: Results) -> str:
    """Return the study as Markdown: what was compared, every arm, every comparison, every run."""
    return "\n".join(
        [
            f"# {results.study.name}",
            "",
            *_paragraphs(design_words(results)),
            *markdown_table(arm_rows(results)),
            "",
            *(f"* {paragraph(line)}" for line in findings(results)),
            "",
            *_paragraphs(visible_words(results)),
            "## Runs",
            "",
            *markdown_table(run_rows(results)),
            "",
        ]
    )


def runs_csv(results: Results) -> str:
    """Return every run as a row."""
    return csv_table(run_rows(results))


def comparisons_csv(results: Results) -> str:
    """Return every comparison as a row, unrounded."""
    return csv_table(_comparison_rows(results.comparisons))


def latex(results: Results) -> str:
    """Return the arms as a LaTeX table; needs booktabs."""
    return latex_table(arm_rows(results))


def design_words(results: Results) -> Iterator[str]:
    """Yield what was compared and how arms were made, a sentence or two each."""
    record, arms = results.study.record, results.study.design.arms
    yield (
        f"{len(arms)} arms under the seeds {_listed(record.seeds)}, in pairs: runs of one seed "
        f"read the same data in the same order and start from the same weights where they share "
        f"them. Compared by {code(record.metric)} ({UNITS[record.metric]}, lower is better) with "
        f"the first arm, {code(arms[0].name)}."
    )
    yield from how_made(results)


def _listed(seeds: Sequence[int]) -> str:
    """Return seeds as they are, or as a range where they are many in a row."""
    if len(seeds) > 5 and list(seeds) == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]} to {seeds[-1]}"
    return ", ".join(map(str, seeds))


def arm_rows(results: Results) -> list[list[str]]:
    """Return a row for each arm under a row of headings; a last column only where it is needed."""
    study, sizes = results.study, results.sizes
    metric = study.record.metric
    compared = {found.arm: found for found in results.comparisons}
    rows = [
        [
            "arm",
            f"{UNITS[metric]}, mean",
            "sd",
            "difference",
            "interval",
            "p (Holm)",
            "verdict",
            "diverged",
            "parameters",
            "training FLOPs",
            "tokens",
        ]
    ]
    for arm, runs in results.outcomes.items():
        values = [run.value(metric) for run in runs if math.isfinite(run.value(metric))]
        found = compared.get(arm)
        rows.append(
            [
                arm,
                f"{mean(values):.4f}" if values else "-",
                f"{stdev(values):.4f}" if len(values) > 1 else "-",
                *_compared(found),
                str(sum(run.state == "diverged" for run in runs)),
                *_sized(sizes[arm], next(iter(sizes.values()))),
            ]
        )
    made = ["besides", *(how_arm_made(study.design, sizes, arm) for arm in study.design.arms)]
    if any(made[1:]):
        rows = [[*row, told or "-"] for row, told in zip(rows, made, strict=True)]
    return rows


def _compared(found: Comparison | None) -> list[str]:
    if found is None:
        return ["-", "-", "-", "held to"]
    if found.interval is None:
        return ["-", "-", "-", found.word]
    interval = f"[{found.interval.low:+.4f}, {found.interval.high:+.4f}]"
    return [f"{found.mean:+.4f}", interval, f"{found.p_holm:.2g}", found.word]


def _sized(size: Size, first: Size) -> list[str]:
    """Return the size, with its ratio to the first arm's where that is not 1."""
    triples = [
        (",", size.parameters, first.parameters),
        (".3g", size.train_flops, first.train_flops),
        (",", size.train_tokens, first.train_tokens),
    ]
    return [_with_ratio(*triple) for triple in triples]


def _with_ratio(spec: str, n: float, first: float) -> str:
    if math.isnan(n):
        return NOT_COUNTED
    r = n / first
    return f"{n:{spec}}" if not abs(r - 1) >= 0.0005 else f"{n:{spec}} (x{r:.3g})"


def findings(results: Results) -> Iterator[str]:
    """Yield a sentence for each comparison."""
    for found in results.comparisons:
        yield found.sentence
        if found.documents:
            low, high = found.documents.low, found.documents.high
            yield (
                f"{found.arm}: with seeds and {DOCUMENTS[found.document_kind]} resampled, "
                f"[{low:+.4f}, {high:+.4f}]"
            )


def visible_words(results: Results) -> Iterator[str]:
    """Yield what the seeds could see, and what resampling documents adds."""
    visible = [found.visible for found in results.comparisons if math.isfinite(found.visible)]
    if visible:
        yield (
            f"These seeds could see a difference of {max(visible):.2g} "
            f"{UNITS[results.study.record.metric]} with power {POWER:g}, by the noise they showed."
        )
    if any(found.documents for found in results.comparisons):
        yield (
            "An interval over seeds and documents (Multi-Bootstrap, Sellam et al. 2021) answers "
            "for other text of the same kind too, where one over seeds holds for this validation "
            "text alone. As a bootstrap it is narrow with few seeds, so no verdict goes by it."
        )


def run_rows(results: Results) -> list[list[str]]:
    """Return a row for each run under a row of headings; its code, where it is not the study's."""
    other = results.study.record.other_code
    rows = [["arm", "seed", "state", "val_loss_nats", "val_bits_per_byte", "train_s"]]
    rows[0] += ["code", "run"] if other else ["run"]
    for arm, runs in results.outcomes.items():
        for run in runs:
            code = (
                [f"other: {other[run.key][:12]}" if run.key in other else "same"] if other else []
            )
            head = [arm, str(run.seed), run.state]
            rows.append([*head, *_metrics(run), *code, f"cells/{run.key}"])
    return rows


def _metrics(run: Outcome) -> list[str]:
    found = [run.value(name) for name in ("val_loss_nats", "val_bits_per_byte")]
    shown_values = [f"{value:.6f}" if math.isfinite(value) else "" for value in found]
    return [*shown_values, f"{run.train_s:.1f}"]


def _comparison_rows(found: Sequence[Comparison]) -> Iterator[list[str]]:
    yield [
        *("arm", "pairs", "mean", "low", "high", "level", "p", "p_holm", "noise", "word", "needs"),
        *("documents_low", "documents_high"),
    ]
    for each in found:
        ends, over = each.interval, each.documents
        numbers = [each.mean, *([ends.low, ends.high, ends.level] if ends else [math.nan] * 3)]
        numbers += [each.p, each.p_holm, each.noise]
        documents = [repr(over.low), repr(over.high)] if over else ["", ""]
        shown_numbers = map(repr, numbers)
        yield [each.arm, str(each.n), *shown_numbers, each.word, str(each.needs or ""), *documents]


def _paragraphs(sentences: Iterator[str]) -> Iterator[str]:
    for sentence in sentences:
        yield from (sentence, "")
