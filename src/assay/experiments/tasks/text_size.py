"""How much text there is to train on."""

from typing import Literal, final

from assay.data.config import DataConfig
from assay.data.prepare import prepare
from assay.experiments.tasks.task import Task, Values
from assay.runs.run import Run


@final
class TextSize(Task):
    """Bytes and tokens of both sides of a text's split."""

    kind: Literal["text-size"] = "text-size"
    data: DataConfig

    @property
    def texts(self) -> tuple[DataConfig, ...]:
        """The text."""
        return (self.data,)

    def take(self, runs: tuple[Run, ...]) -> Values:
        """Read what was counted when it was prepared."""
        summary = prepare(self.data).summary
        train = summary["train"]
        return {"bytes": train["bytes"], "tokens": train["tokens"], "vocab": summary["vocab_size"]}
