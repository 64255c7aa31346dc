"""Tied against untied: at one shape, at equal parameters, at equal FLOPs, and on little text."""

from collections.abc import Mapping, Sequence

import numpy as np

from assay.experiments.claim import Budget, Claim, Judgement, Number, Part, Table
from assay.experiments.claims.changes import against_zero, is_higher, is_lower, is_not_lower
from assay.experiments.claims.tied_arms import (
    SIZES,
    Arm,
    arms_at,
    config,
    few_tokens,
    loss_parts,
    middle,
    trainings,
)
from assay.experiments.claims.tied_pictures import few_figure, frequency, trend_figure
from assay.experiments.claims.verdicts import all_of, whole
from assay.experiments.compare import Comparison
from assay.experiments.evidence import Evidence
from assay.experiments.outcome import Size
from assay.experiments.tasks import Task
from assay.source import Source

_BPB = "val_bits_per_byte"
_DELTA_BPB, _DELTA_NATS = 0.01, 0.02
_FEW: tuple[Arm, ...] = ("tied", "untied", "narrow")


def tasks(budget: Budget, evidence: Evidence) -> Sequence[Task]:
    """Train every arm at every width; look closer at the middle one."""
    asked: list[Task] = []
    for width in SIZES[budget].widths:
        for arm in arms_at(budget, width):
            asked += trainings(budget, width, arm)
    for arm in _FEW:
        asked += few_tokens(budget, arm)
        asked += loss_parts(budget, arm)
    return asked


def judge(budget: Budget, evidence: Evidence) -> Judgement:
    """Judge quality at three kinds of equality, overfitting, cost, and the trend over widths."""
    mid, widths = middle(budget), SIZES[budget].widths
    more = _differences(budget, evidence)
    found = against_zero(more, delta=_DELTA_BPB)
    gaps = against_zero(_few(budget, evidence), delta=_DELTA_NATS)
    slope = against_zero({"trend": _slopes(more, widths)})["trend"]
    tied, untied = (Size.of(config(budget, mid, arm)) for arm in ("tied", "untied"))
    parts = (
        Part("shape", whole([is_not_lower(found[f"untied {width}"]) for width in widths])),
        Part("parameters", whole([is_not_lower(found[f"narrow {width}"]) for width in widths])),
        Part("flops", is_not_lower(found[f"longer {mid}"])),
        Part("overfitting", is_higher(gaps["gap untied"])),
        Part("fewer", is_higher(gaps["gap narrow"])),
        Part("cost", "confirmed" if tied.train_flops < untied.train_flops else "refuted"),
        Part("trend", is_lower(slope)),
    )
    told = {part.id: part.verdict for part in parts}
    frequent = frequency(budget, evidence)
    return Judgement(
        all_of([told["shape"], told["overfitting"]]),
        parts,
        numbers=(
            *_named(budget, found),
            *(_gap(budget, name, each) for name, each in gaps.items()),
            Number.difference("trend", slope, of=_runs(budget, "untied")),
            Number("flops_ratio", tied.train_flops / untied.train_flops),
            Number("saved_mb", 16 * (untied.parameters - tied.parameters) / 1e6),
            Number("epochs", evidence[few_tokens(budget, "tied")[0]].value("epochs")),
            *frequent.numbers,
        ),
        tables=(_table(budget, evidence, found), frequent.table),
        figures=(trend_figure(budget, found), frequent.figure, few_figure(budget, evidence, _FEW)),
    )


def _differences(budget: Budget, evidence: Evidence) -> dict[str, list[float]]:
    """Return bits per byte of every untied arm less those of the tied one, seed by seed."""
    more = {}
    for width in SIZES[budget].widths:
        tied = evidence.values(trainings(budget, width, "tied"), _BPB)
        for arm in arms_at(budget, width)[1:]:
            other = evidence.values(trainings(budget, width, arm), _BPB)
            more[f"{arm} {width}"] = [a - b for a, b in zip(other, tied, strict=True)]
    return more


def _few(budget: Budget, evidence: Evidence) -> dict[str, list[float]]:
    """Return by how much an untied arm's gap and best loss on little text exceed the tied one's."""
    more = {}
    for name, metric in (("gap", "gap_nats"), ("best", "best_val_nats")):
        tied = evidence.values(few_tokens(budget, "tied"), metric)
        for arm in _FEW[1:]:
            other = evidence.values(few_tokens(budget, arm), metric)
            more[f"{name} {arm}"] = [a - b for a, b in zip(other, tied, strict=True)]
    return more


def _slopes(more: Mapping[str, Sequence[float]], widths: Sequence[int]) -> list[float]:
    """Return, for each seed, the slope of untied less tied over doublings of the width."""
    by_width = np.array([more[f"untied {width}"] for width in widths])
    x = np.log2(widths) - np.log2(widths).mean()
    return list(map(float, x @ by_width / (x @ x)))


def _runs(budget: Budget, arm: Arm) -> list[Task]:
    found: list[Task] = []
    for width in SIZES[budget].widths:
        found += [*trainings(budget, width, "tied"), *trainings(budget, width, arm)]
    return found


def _named(budget: Budget, found: Mapping[str, Comparison]) -> list[Number]:
    """Return the differences under names that do not depend on the budget's widths."""
    widths = SIZES[budget].widths
    places = {"small": widths[0], "middle": middle(budget), "large": widths[-1]}
    return [
        Number.difference(
            f"{arm}_{place}",
            found[f"{arm} {width}"],
            of=[*trainings(budget, width, "tied"), *trainings(budget, width, arm)],
        )
        for place, width in places.items()
        for arm in arms_at(budget, width)[1:]
    ]


def _gap(budget: Budget, name: str, found: Comparison) -> Number:
    what, arm = name.split()
    looked = few_tokens(budget, "tied") + few_tokens(
        budget, "untied" if arm == "untied" else "narrow"
    )
    return Number.difference(f"{what}_{arm}", found, of=looked)


def _table(budget: Budget, evidence: Evidence, found: Mapping[str, Comparison]) -> Table:
    rows = tuple(
        _row(budget, evidence, width, arm, found.get(f"{arm} {width}"))
        for width in SIZES[budget].widths
        for arm in arms_at(budget, width)
    )
    columns = (
        "width", "arm", "d_model", "parameters", "residual", "flops", "bpb", "difference", "word",
    )  # fmt: skip
    spec = {"residual": "+.1%", "flops": ".3f", "bpb": ".3f", "difference": "+.3f"}
    return Table("arms", columns, rows, spec)


def _row(
    budget: Budget, evidence: Evidence, width: int, arm: Arm, found: Comparison | None
) -> tuple[str | Number, ...]:
    runs, name = trainings(budget, width, arm), f"{arm}_{width}"
    mine, tied = Size.of(runs[0].run), Size.of(config(budget, width, "tied"))
    both = [*trainings(budget, width, "tied"), *runs]
    return (
        str(width),
        arm,
        str(runs[0].run.model.d_model),
        f"{mine.parameters:,}",
        Number(f"residual_{name}", mine.parameters / tied.parameters - 1),
        Number(f"flops_{name}", mine.train_flops / tied.train_flops),
        Number.mean(f"bpb_{name}", evidence.values(runs, _BPB), of=runs),
        "" if found is None else Number.difference(f"difference_{name}", found, of=both),
        "" if found is None else found.word,
    )


CLAIM = Claim(
    id="tying-quality",
    section="2.3, 5.3",
    tasks=tasks,
    judge=judge,
    sources=(
        Source("Press & Wolf 2017", "arXiv:1608.05859", "sec. 4"),
        Source("Inan et al. 2017", "arXiv:1611.01462", "sec. 4"),
    ),
)
