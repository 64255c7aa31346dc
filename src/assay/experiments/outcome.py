"""What came of a cell, read from its run folder and from nothing else."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from assay.config import RunConfig
from assay.count import count_or_none
from assay.errors import RunError
from assay.runs.folder import RunFolder
from assay.schema import config_hash

METRICS = ("val_loss_nats", "val_bits_per_byte")
"""What runs are compared by; of both the lower is the better."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run of a study.

    Attributes:
        arm: Name of its arm.
        seed: Of the run.
        key: Of its cell.
        state: finished, diverged, or as far as it came.
        metrics: By name; empty unless it finished.
        error: Why it diverged.
        train_s: Seconds of training.
    """

    arm: str
    seed: int
    key: str
    state: str
    metrics: Mapping[str, float]
    error: str
    train_s: float

    def value(self, metric: str) -> float:
        """Return a metric, NaN where the run has none."""
        return self.metrics.get(metric, math.nan)

    def result(self) -> dict[str, str | float]:
        """Return what must stay as it was when the run ended."""
        return {"state": self.state, **self.metrics, "train_s": self.train_s}


@dataclass(frozen=True, slots=True)
class Size:
    """What an arm costs: so that "better" is never silently "bigger".

    Attributes:
        parameters: Of the model; NaN where a variant does not say what it costs.
        train_tokens: Over the whole run.
        train_flops: Over the whole run, by `assay.count`; NaN as above.
    """

    parameters: float
    train_tokens: int
    train_flops: float

    @classmethod
    def of(cls, config: RunConfig) -> "Size":
        """Count a config whose vocabulary is settled."""
        counted = count_or_none(config.model, seq_len=config.seq_len)
        sequences = config.train.steps * config.train.batch_size
        tokens = sequences * config.seq_len
        if counted is None:
            return cls(math.nan, tokens, math.nan)
        return cls(counted.parameters, tokens, sequences * counted.training_flops)


def read_outcome(folder: Path, arm: str, seed: int, expected: RunConfig) -> Outcome:
    """Return what came of the run in `folder`.

    Args:
        folder: Its run folder.
        arm: Name of its arm.
        seed: Of the run.
        expected: The config it was to be run with; the vocabulary may be open.

    Raises:
        RunError: If it is not there, is a run of another config, or finished without a result.
    """
    run = RunFolder(folder)
    config, manifest = run.read_config(), run.read_manifest()
    if expected.model.vocab_size is None:
        model = expected.model.model_copy(update={"vocab_size": config.model.vocab_size})
        expected = expected.model_copy(update={"model": model})
    if config != expected or manifest.get("config_sha256") != config_hash(config):
        raise RunError(
            f"{folder}: a run of another config than the study's; expected {arm!r} with seed "
            f"{seed}. The folder was edited or exchanged: remove it, and the cell is run again."
        )
    result = manifest.get("result") or {}
    if manifest["status"] == "finished" and not set(METRICS) & set(result):
        raise RunError(
            f"{folder}: finished, but no result found in its manifest; expected {METRICS[0]}. The "
            "folder was edited: remove it, and the cell is run again."
        )
    return Outcome(
        arm=arm,
        seed=seed,
        key=folder.name,
        state=manifest["status"],
        metrics={name: result[name] for name in METRICS if name in result},
        error=str(manifest.get("error", "")) if manifest["status"] == "diverged" else "",
        train_s=float(result.get("train_s", 0.0)),
    )
