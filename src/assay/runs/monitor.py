"""What a run watches for while it trains: spikes, and steps without an update."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated, Any, final

from pydantic import Field, NonNegativeInt

from assay.errors import DivergedError
from assay.schema import Config
from assay.train.loop import StepReport
from assay.train.spikes import WINDOW, Spike, SpikeWatch

SKIPS_IN_A_ROW = 10
"""After so many steps without an update a run ends."""
Values = Annotated[tuple[float, ...], Field(max_length=WINDOW, strict=False)]


class LookoutState(Config):
    """What a lookout remembers, in a checkpoint."""

    skipped_in_a_row: NonNegativeInt = 0
    loss_nats: Values = ()
    grad_norm: Values = ()


@final
class StepMonitor:
    """Sees every step of a run; what it remembers goes into the checkpoints, so it resumes exactly.

    Attributes:
        spikes: Those of the last step seen.
    """

    def __init__(self, state: LookoutState) -> None:
        self._skipped = state.skipped_in_a_row
        self._watches = {
            name: SpikeWatch(name, getattr(state, name)) for name in ("loss_nats", "grad_norm")
        }
        self.spikes: list[Spike] = []

    @property
    def state(self) -> LookoutState:
        """What must be kept to go on from here."""
        values = {name: tuple(watch.before) for name, watch in self._watches.items()}
        return LookoutState(skipped_in_a_row=self._skipped, **values)

    def observe(self, report: StepReport) -> Iterator[dict[str, Any]]:
        """Yield the rows for `metrics.jsonl` that a step is worth beside its own.

        Raises:
            DivergedError: After too many skipped steps in a row.
        """
        if report.trouble is not None:
            kind = "skip" if report.skipped else "recomputed"
            yield {"kind": kind, "step": report.step, "why": report.trouble.message}
        looks = [watch.look(getattr(report, name)) for name, watch in self._watches.items()]
        self.spikes = [spike for spike in looks if spike is not None]
        for spike in self.spikes:
            yield {"kind": "spike", "step": report.step, **asdict(spike)}
        self._skipped = self._skipped + 1 if report.skipped else 0
        if self._skipped == SKIPS_IN_A_ROW:
            assert report.trouble is not None
            raise DivergedError(
                f"{SKIPS_IN_A_ROW} steps in a row were skipped; expected steps that can be taken. "
                f"The last: {report.trouble.message}"
            )
