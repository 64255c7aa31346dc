"""All that a report of a study shows, read once from its folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from assay.experiments.compare import Comparison
from assay.experiments.outcome import Outcome, Size
from assay.experiments.study import Study


@dataclass(frozen=True, slots=True)
class Results:
    """A study and what came of it.

    Attributes:
        study: What was asked.
        outcomes: The runs of each arm.
        sizes: What each arm costs.
        comparisons: Every other arm with the first.
    """

    study: Study
    outcomes: Mapping[str, Sequence[Outcome]]
    sizes: Mapping[str, Size]
    comparisons: Sequence[Comparison]

    @classmethod
    def of(cls, study: Study) -> "Results":
        """Read them.

        Raises:
            RunError: If a run folder is not the one it was.
        """
        return cls(study, study.outcomes(), study.sizes(), study.comparisons())
