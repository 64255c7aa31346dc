"""Table of the claim on reproducibility."""

from assay.experiments.claim import Number, Table
from assay.experiments.claims.repeat_arms import Tasks
from assay.experiments.evidence import Evidence
from assay.experiments.tasks import Task

_WRITTEN: dict[str, str] = {
    "nothing": "—",
    "process": "python, PYTHONHASHSEED=4242",
    "torch-seed": "torch.manual_seed(4242)",
    "looks": "model.eval(), torch.rand(7)",
    "threads": "torch.set_num_threads(2)",
    "compile": "train.compile=on",
    "micro-batches": "train.micro_batches=2",
    "blocks": "train.attention=blocks",
    "bf16": "train.precision=bf16",
    "seed": "train.seed=1",
    "resumed": "model + AdamW → resume",
    "resumed-weights-only": "model → resume",
    "exact": "train.exact_rows=1: train.micro_batches=2",
    "plain-0": "torch.manual_seed(42): —",
    "plain-1": "torch.manual_seed(42): torch.rand(1)",
}


def changes_table(evidence: Evidence, asked: Tasks) -> Table:
    """Return of every change whether the bits are the same, and how far apart if not."""
    changed = {**asked.again, **asked.execution}
    everything: dict[str, Task] = {
        **{str(name): task for name, task in changed.items()},
        "resumed": asked.resumed,
        "resumed-weights-only": asked.weights_only,
        "exact": asked.exact,
        "seed": asked.other_seed,
        "plain-0": asked.plain,
        "plain-1": asked.plain_disturbed,
    }
    rows: list[tuple[str | Number, ...]] = []
    for name, task in everything.items():
        record = evidence[task]
        first, second = (sha256[:8] for sha256 in record.values["sha256"])
        rows.append(
            (
                _WRITTEN[name],
                "=" if record.values["same"] else "≠",
                f"{first} {second}",
                Number(f"step_{name}", record.value("first_step_apart"), of=(task,)),
                Number(f"apart_{name}", record.value("loss_apart"), unit="nats", of=(task,)),
            )
        )
    columns = ("change", "bits", "hashes", "step", "apart")
    return Table("changes", columns, tuple(rows), {"step": ".0f", "apart": ".1e"})
