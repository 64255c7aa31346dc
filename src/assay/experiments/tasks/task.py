"""A task: something to be computed once and written down, named by all that it depends on."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from assay.config import RunConfig
from assay.data.config import DataConfig
from assay.runs.run import Run
from assay.schema import Config

Values = Mapping[str, Any]
"""What a task found, ready for JSON: numbers, words, lists, nested. A number that is not finite is
None, and reads as NaN."""


class Task(Config, ABC):
    """What is to be computed; its fields are all it depends on, beside texts, runs and code.

    Attributes:
        timed: Whether it measures seconds or memory: such tasks run alone, one after another, and
            nobody expects their bits again.
    """

    timed: ClassVar[bool] = False

    @property
    def needs(self) -> tuple[RunConfig, ...]:
        """Runs it looks at, in the order in which `take` is given them."""
        return ()

    @property
    def texts(self) -> tuple[DataConfig, ...]:
        """Texts it reads beside those of its runs."""
        return ()

    @abstractmethod
    def take(self, runs: tuple[Run, ...]) -> Values:
        """Compute it.

        Args:
            runs: Finished, one for each of `needs`.
        """
