"""The names of runs and tasks: other numbers, another name."""

from typing import final

from assay.config import RunConfig
from assay.data.config import DataConfig
from assay.data.prepare import prepare
from assay.experiments.cell import cell_key
from assay.experiments.code import bare_python, code_sha256
from assay.experiments.tasks import Task
from assay.experiments.tasks.train import Train
from assay.experiments.written import seal
from assay.plugin import sources_of


@final
class Keys:
    """Names what is to be computed; a text is read once, however many runs train on it."""

    def __init__(self) -> None:
        self._texts: dict[DataConfig, str] = {}

    def of_run(self, config: RunConfig) -> str:
        """Return the name of a training, which is that of its run folder."""
        return cell_key(config, self._text(config.data), code_sha256())

    def of_task(self, task: Task) -> str:
        """Return the name of a task; training is named after its run."""
        if isinstance(task, Train):
            return self.of_run(task.run)
        parts = [
            task.model_dump(mode="json"),
            [self.of_run(config) for config in task.needs],
            [self._text(text) for text in task.texts],
            code_of(task),
            *map(bare_python, sources_of(task)),
        ]
        return seal(parts)[:32]

    def _text(self, config: DataConfig) -> str:
        if config not in self._texts:
            self._texts[config] = prepare(config).sha256
        return self._texts[config]


def code_of(task: Task) -> str:
    """Return the SHA-256 of the sources that what a task finds can depend on."""
    return code_sha256() if isinstance(task, Train) else code_sha256(type(task).__module__)
