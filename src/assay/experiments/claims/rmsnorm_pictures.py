"""Table and figure of the claim on RMSNorm."""

from collections.abc import Mapping, Sequence

from assay.experiments.claim import Figure, Number, Table
from assay.experiments.evidence import Evidence
from assay.experiments.tasks.norms import NormSeconds
from assay.experiments.tasks.train import Train

LOSS = "val_loss_nats"
PLACES = ("alone", "step")
"""Where a norm is timed: by itself, and in a training step."""


def arms_table(
    evidence: Evidence, arms: Mapping[str, Sequence[Train]], timing: NormSeconds
) -> Table:
    """Return loss and milliseconds of each norm."""
    values = evidence[timing].values
    rows: list[tuple[str | Number, ...]] = [
        (
            kind,
            Number.mean(f"loss_{kind}", evidence.values(tasks, LOSS), of=tasks),
            *(
                Number.mean(
                    f"{place}_{kind}", [1e3 * each for each in values[kind][place]], of=[timing]
                )
                for place in PLACES
            ),
        )
        for kind, tasks in arms.items()
    ]
    spec = {"loss": ".4f", "alone": ".3f", "step": ".2f"}
    return Table("arms", ("norm", "loss", *PLACES), tuple(rows), spec)


def seeds_figure(evidence: Evidence, arms: Mapping[str, Sequence[Train]], delta: float) -> Figure:
    """Draw the difference of the losses under each seed beside the margin of equivalence."""
    layer, rms = (evidence.outcomes(arms, LOSS)[kind] for kind in ("layer", "rms"))
    rows = tuple(
        {"seed": a.seed, "difference": b.value(LOSS) - a.value(LOSS)}
        for a, b in zip(layer, rms, strict=True)
    )
    rules = (("x", 0.0), ("x", -delta), ("x", delta))
    return Figure("seeds", "dots", rows, "difference", "seed", rules=rules)
