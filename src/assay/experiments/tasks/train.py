"""Training a model, and what it is judged by at the end."""

from typing import Literal, final

from assay.config import RunConfig
from assay.experiments.outcome import METRICS
from assay.experiments.tasks.task import Task, Values
from assay.runs.run import Run


@final
class Train(Task):
    """One run; its folder is its cell."""

    kind: Literal["train"] = "train"
    run: RunConfig
    """What is trained."""

    @property
    def needs(self) -> tuple[RunConfig, ...]:
        """Its own run."""
        return (self.run,)

    def take(self, runs: tuple[Run, ...]) -> Values:
        """Read the result of the run."""
        result = runs[0].folder.read_manifest()["result"]
        return {name: result[name] for name in METRICS} | {"train_s": result["train_s"]}
