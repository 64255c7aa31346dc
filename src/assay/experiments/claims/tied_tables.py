"""The table of all arms, for the claim on tied embeddings."""

from collections.abc import Mapping

from assay.experiments.claim import Budget, Number, Table
from assay.experiments.claims.tied_arms import SIZES, Arm, arms_at, config, trainings
from assay.experiments.claims.tied_differences import BPB
from assay.experiments.compare import Comparison
from assay.experiments.evidence import Evidence
from assay.experiments.outcome import Size


def arms_table(budget: Budget, evidence: Evidence, found: Mapping[str, Comparison]) -> Table:
    """Return size and loss of every arm at every width."""
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
        Number.mean(f"bpb_{name}", evidence.values(runs, BPB), of=runs),
        "" if found is None else Number.difference(f"difference_{name}", found, of=both),
        "" if found is None else found.word,
    )
