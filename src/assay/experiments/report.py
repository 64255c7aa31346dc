"""A study as a table, for a reader, a spreadsheet, a paper: pure functions of its folder."""

import csv
import io
import math
from collections.abc import Iterator
from statistics import mean, stdev

from assay.experiments.compare import Comparison
from assay.experiments.design import shown
from assay.experiments.outcome import Outcome, Size
from assay.experiments.planning import POWER
from assay.experiments.study import Study

UNITS = {"val_loss_nats": "nats per token", "val_bits_per_byte": "bits per byte"}


def markdown(study: Study) -> str:
    """Return the study as Markdown: what was compared, every arm, every comparison, every run."""
    return "\n".join(
        [
            f"# {study.name}",
            "",
            *design_words(study),
            "",
            *_table(arm_rows(study)),
            "",
            *findings(study),
            "",
            "## Runs",
            "",
            *_table(run_rows(study)),
            "",
        ]
    )


def runs_csv(study: Study) -> str:
    """Return every run as a row."""
    return _csv(run_rows(study))


def comparisons_csv(study: Study) -> str:
    """Return every comparison as a row, unrounded."""
    return _csv(_comparison_rows(study.comparisons()))


def latex(study: Study) -> str:
    """Return the arms as a LaTeX table; needs booktabs."""
    head, *rows = arm_rows(study)
    lines = [r"\begin{tabular}{l" + "r" * (len(head) - 1) + "}", r"\toprule"]
    lines += [" & ".join(map(_tex, head)) + r" \\", r"\midrule"]
    lines += [" & ".join(map(_tex, row)) + r" \\" for row in rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def design_words(study: Study) -> Iterator[str]:
    """Yield what was compared, in words."""
    record, arms = study.record, study.design.arms
    unit = UNITS[record.metric]
    yield (
        f"{len(arms)} arms under the seeds {', '.join(map(str, record.seeds))}, in pairs: runs of "
        f"one seed read the same data in the same order and start from the same weights where they "
        f"share them. Compared by `{record.metric}` ({unit}, lower is better) with the first arm, "
        f"`{arms[0].name}`."
    )
    besides = [arm for arm in arms if arm.besides]
    if besides:
        yield ""
        yield "**Not controlled**: " + "; ".join(
            f"`{arm.name}` also has {', '.join(f'{f}={shown(v)}' for f, v in arm.besides.items())}"
            for arm in besides
        )
    else:
        yield ""
        yield "Controlled: arms differ in the named fields and in nothing else."


def arm_rows(study: Study) -> list[list[str]]:
    """Return a row for each arm under a row of headings."""
    metric, sizes = study.record.metric, study.sizes()
    compared = {found.arm: found for found in study.comparisons()}
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
    for arm, runs in study.outcomes().items():
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
    pairs = [
        (f"{size.parameters:,}", size.parameters / first.parameters),
        (f"{size.train_flops:.3g}", size.train_flops / first.train_flops),
        (f"{size.train_tokens:,}", size.train_tokens / first.train_tokens),
    ]
    return [text if abs(r - 1) < 0.0005 else f"{text} (x{r:.3g})" for text, r in pairs]


def findings(study: Study) -> Iterator[str]:
    """Yield a sentence for each comparison, and what the seeds could see."""
    for found in study.comparisons():
        yield f"* {found.sentence}"
    visible = [found.visible for found in study.comparisons() if math.isfinite(found.visible)]
    if visible:
        yield ""
        yield (
            f"These seeds could see a difference of {max(visible):.2g} {UNITS[study.record.metric]}"
            f" with power {POWER:g}, by the noise they showed."
        )


def run_rows(study: Study) -> list[list[str]]:
    """Return a row for each run under a row of headings."""
    rows = [["arm", "seed", "state", "val_loss_nats", "val_bits_per_byte", "train_s", "run"]]
    for arm, runs in study.outcomes().items():
        for run in runs:
            rows.append([arm, str(run.seed), run.state, *_metrics(run), f"cells/{run.key}"])
    return rows


def _metrics(run: Outcome) -> list[str]:
    found = [run.value(name) for name in ("val_loss_nats", "val_bits_per_byte")]
    shown_values = [f"{value:.6f}" if math.isfinite(value) else "" for value in found]
    return [*shown_values, f"{run.train_s:.1f}"]


def _comparison_rows(found: list[Comparison]) -> Iterator[list[str]]:
    yield ["arm", "pairs", "mean", "low", "high", "level", "p", "p_holm", "noise", "word", "needs"]
    for each in found:
        ends = each.interval
        numbers = [each.mean, *([ends.low, ends.high, ends.level] if ends else [math.nan] * 3)]
        numbers += [each.p, each.p_holm, each.noise]
        yield [each.arm, str(each.n), *map(repr, numbers), each.word, str(each.needs or "")]


def _table(rows: list[list[str]]) -> Iterator[str]:
    head, *body = rows
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    for row in body:
        yield f"| {' | '.join(row)} |"


def _csv(rows: Iterator[list[str]] | list[list[str]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()


def _tex(text: str) -> str:
    for plain, escaped in (("\\", r"\textbackslash "), ("_", r"\_"), ("%", r"\%"), ("&", r"\&")):
        text = text.replace(plain, escaped)
    return text
