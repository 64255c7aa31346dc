"""Several runs of one architecture, trained together in one process.

    for reports in train_ensemble([Run.create(config, path) for config, path in ...]):
        for run, report in zip(runs, reports): ...

Each run is one like any other: its folder, lock, manifest, checkpoints, metrics and resume are its
own, and it diverges or ends alone. Only its steps are taken together, by
`engine.vmap_ensemble` or `engine.native_ensemble`.
"""

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from assay.engine.native_ensemble import EnsembleMember, Outcome
from assay.engine.vmap_ensemble import check_alike, train_members
from assay.errors import ConfigError, DivergedError
from assay.runs.run import Run
from assay.runs.session import RunReport, Stop
from assay.train.loop import StepReport

RunOutcome = RunReport | DivergedError | None


def train_ensemble(
    runs: Sequence[Run],
    *,
    stop: Stop = lambda: False,
    anyway: bool = False,
    cache: Path | None = None,
) -> Iterator[list[RunOutcome]]:
    """Train runs from where each stands to its last step; yield a list of reports after each step.

    Place i of a list is that of run i: its report, the error with which it diverged, or None where
    it has nothing to say. Looks at untrained models come first, in a list of their own.

    Args:
        runs: Of one architecture and one batch size; at least two.
        stop: Asked after each step; if true, all runs are saved and the iteration ends.
        anyway: Go on even where machine or torch differ from those a run began with.
        cache: Folder of prepared texts.

    Raises:
        ConfigError: If the runs do not fit together.
        AssayError: As `Run.train` does, apart from divergence.
    """
    if len(runs) < 2:
        raise ConfigError(
            f"ensemble: {len(runs)} runs found; expected at least 2. Train a single run by itself."
        )
    asked = _StopRequest()
    run_members = [_RunMember(run, asked) for run in runs]
    with ExitStack() as stack:
        for run_member in run_members:
            stack.callback(run_member.leave)
            run_member.open(anyway, cache, replicas=len(runs))
        members = [run_member.member() for run_member in run_members]
        check_alike(members)
        looks: list[RunOutcome] = [run_member.look() for run_member in run_members]
        if any(looks):
            yield looks
        with closing(train_members(members)) as rounds:
            for outcomes in rounds:
                asked.now = stop()
                yield [
                    run_member.after(outcome)
                    for run_member, outcome in zip(run_members, outcomes, strict=True)
                ]
                if asked.now:
                    break
        for run_member in run_members:
            run_member.finish()


@dataclass(slots=True)
class _StopRequest:
    """Whether to stop: asked once a step, answered to all runs."""

    now: bool = False

    def __call__(self) -> bool:
        return self.now


class _RunMember:
    """One run, and the steps that were taken for it."""

    def __init__(self, run: Run, stop: Stop) -> None:
        self._run = run
        self._stop = stop
        self._taken: deque[StepReport | DivergedError] = deque()
        self._over = False

    def open(self, anyway: bool, cache: Path | None, *, replicas: int) -> None:
        """Lock the run and go to where it stands."""
        self._reports = self._go(anyway, cache, replicas)
        next(self._reports)

    def member(self) -> EnsembleMember:
        """Return what the run's steps are taken with."""
        session, parts = self._session, self._session.parts
        return EnsembleMember(
            parts.model, session.batch, parts.optimizers, parts.plan, session.step
        )

    def look(self) -> RunReport | None:
        """Return the report on the untrained model, or None if it has been trained."""
        return next(self._reports) if self._session.step == 0 else None

    def after(self, outcome: Outcome) -> RunOutcome:
        """Judge, log and save what is due after a step; close the run after its last one."""
        if outcome is None or self._over:
            return None
        self._taken.append(outcome)
        try:
            report = next(self._reports)
        except DivergedError as error:  # of this step, or of too many skipped ones
            self._over = True
            return error
        if report is not None and report.step == self._run.config.train.steps:
            self.finish()
        return report

    def finish(self) -> None:
        """Let the run write down that no step follows."""
        for _ in self._reports:
            pass

    def leave(self) -> None:
        """Close the run wherever it is."""
        if hasattr(self, "_reports"):
            self._reports.close()

    def _go(
        self, anyway: bool, cache: Path | None, replicas: int
    ) -> Generator[RunReport | None, None, None]:
        with self._run.at_work(anyway=anyway, cache=cache, replicas=replicas) as self._session:
            yield None
            yield from self._session.run(self._stop, self._steps())

    def _steps(self) -> Iterator[StepReport]:
        while self._taken:
            outcome = self._taken.popleft()
            if isinstance(outcome, DivergedError):
                raise outcome
            yield outcome
