"""What a run needs to go on, beside weights and optimizer: the content of `state.json`."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, NonNegativeFloat, NonNegativeInt

from assay.errors import CheckpointError, ConfigError
from assay.runs.monitor import LookoutState
from assay.schema import Config, decode
from assay.train.checkpoint import STATE, read_state

Best = Annotated[tuple[NonNegativeInt, float], Field(strict=False)]


class RunState(Config):
    """Where a run stands. Data order, schedule and dropout are functions of seed and step."""

    step: NonNegativeInt = 0
    """Steps taken."""
    best: Best | None = None
    """Step and validation loss of the best evaluation that has a checkpoint."""
    train_s: NonNegativeFloat = 0.0
    """Seconds spent in steps, over all stretches."""
    config: dict[str, Any] = Field(default_factory=dict)
    """The resolved config."""
    data_sha256: str = ""
    """Of text and split."""
    machine: dict[str, Any] = Field(default_factory=dict)
    """Where the last session ran: device, precision, kernel, threads, processor, torch and more."""
    ties: dict[str, str] = Field(default_factory=dict)
    """Names that stand for another tensor of `model.safetensors`, which is stored once."""
    metrics_sha256: str = ""
    """Of the rows of `metrics.jsonl` so far."""
    lookout: LookoutState = LookoutState()
    """Losses and gradient norms of the last steps."""


def read_run_state(checkpoint: Path) -> RunState:
    """Return the state in a verified checkpoint.

    Raises:
        CheckpointError: If it is not one that a run wrote.
    """
    try:
        return decode(RunState, read_state(checkpoint))
    except ConfigError as error:
        raise CheckpointError(
            f"{checkpoint / STATE}: {error} It was not written by a run of this version."
        ) from None
