"""Tied against untied: at one shape, at equal parameters, at equal FLOPs, and on little text."""

from collections.abc import Sequence

from assay.citation import Citation
from assay.experiments.claim import Budget, Claim, Judgement, Number, Part
from assay.experiments.claims.changes import against_zero
from assay.experiments.claims.tied_arms import (
    FEW,
    SIZES,
    arms_at,
    config,
    few_tokens,
    loss_parts,
    middle,
    trainings,
)
from assay.experiments.claims.tied_differences import (
    both_runs,
    differences,
    few_differences,
    gap,
    named,
    slopes,
)
from assay.experiments.claims.tied_pictures import few_figure, frequency, trend_figure
from assay.experiments.claims.tied_tables import arms_table
from assay.experiments.claims.verdicts import all_of, of_facts, of_words
from assay.experiments.evidence import Evidence
from assay.experiments.outcome import Size
from assay.experiments.tasks import Task

_DELTA_BPB, _DELTA_NATS = 0.01, 0.02


def tasks(budget: Budget, evidence: Evidence) -> Sequence[Task]:
    """Train every arm at every width; look closer at the middle one."""
    asked: list[Task] = []
    for width in SIZES[budget].widths:
        for arm in arms_at(budget, width):
            asked += trainings(budget, width, arm)
    for arm in FEW:
        asked += few_tokens(budget, arm)
        asked += loss_parts(budget, arm)
    return asked


def judge(budget: Budget, evidence: Evidence) -> Judgement:
    """Judge quality at three kinds of equality, overfitting, cost, and the trend over widths."""
    mid, widths = middle(budget), SIZES[budget].widths
    more = differences(budget, evidence)
    found = against_zero(more, delta=_DELTA_BPB)
    gaps = against_zero(few_differences(budget, evidence), delta=_DELTA_NATS)
    slope = against_zero({"trend": slopes(more, widths)})["trend"]
    tied, untied = (Size.of(config(budget, mid, arm)) for arm in ("tied", "untied"))
    parts = (
        Part("shape", of_words([found[f"untied {n}"].word for n in widths], "not lower")),
        Part("parameters", of_words([found[f"narrow {n}"].word for n in widths], "not lower")),
        Part("flops", of_words([found[f"longer {mid}"].word], "not lower")),
        Part("overfitting", of_words([gaps["gap untied"].word], "higher")),
        Part("fewer", of_words([gaps["gap narrow"].word], "higher")),
        Part("cost", of_facts([tied.train_flops < untied.train_flops])),
        Part("trend", of_words([slope.word], "lower")),
    )
    told = {part.id: part.verdict for part in parts}
    frequent = frequency(budget, evidence)
    return Judgement(
        all_of([told["shape"], told["overfitting"]]),
        parts,
        numbers=(
            *named(budget, found),
            *(gap(budget, name, each) for name, each in gaps.items()),
            Number.difference("trend", slope, of=both_runs(budget, "untied")),
            Number("flops_ratio", tied.train_flops / untied.train_flops),
            Number("saved_mb", 16 * (untied.parameters - tied.parameters) / 1e6),
            Number("epochs", evidence[few_tokens(budget, "tied")[0]].value("epochs")),
            *frequent.numbers,
        ),
        tables=(arms_table(budget, evidence, found), frequent.table),
        figures=(trend_figure(budget, found), frequent.figure, few_figure(budget, evidence, FEW)),
    )


CLAIM = Claim(
    id="tying-quality",
    section="2.3, 5.3",
    tasks=tasks,
    judge=judge,
    sources=(
        Citation("Press & Wolf 2017", "arXiv:1608.05859", "sec. 4"),
        Citation("Inan et al. 2017", "arXiv:1611.01462", "sec. 4"),
    ),
)
