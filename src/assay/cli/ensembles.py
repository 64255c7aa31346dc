"""Several runs at once: what `assay train --seeds` and `assay resume A B` do with a terminal."""

import statistics
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import typer

from assay.cli.progress import training, words
from assay.cli.signals import Interrupts

if TYPE_CHECKING:
    from assay.runs.ensemble import RunOutcome
    from assay.runs.run import Run


def ensemble_size(run: "Run", n_runs: int) -> int:
    """Return how many of `n_runs` like this one are fastest trained at once, and say so."""
    from assay.engine.autotune import plan_from_manifest
    from assay.engine.device import resolve_plan
    from assay.engine.ensemble_size import choose_replicas

    plan = plan_from_manifest(resolve_plan(run.config.train), run.folder.read_manifest()["machine"])
    size, speeds = choose_replicas(run.config, plan, most=n_runs)
    timed = ", ".join(f"{speed.replicas}: {speed.tokens_per_s:,.0f}" for speed in speeds)
    words.print(f"runs at once and tokens/s in all: {timed}; taken: {size}")
    return size


def go_ensemble(runs: Sequence["Run"], *, size: int, anyway: bool = False) -> None:
    """Train runs in groups of `size`, tell how each ended, and print their folders on stdout."""
    with Interrupts() as interrupts:
        for first in range(0, len(runs), size):
            if not interrupts.noted():
                _train_group(runs[first : first + size], interrupts, anyway=anyway)
    states = [run.folder.read_manifest()["status"] for run in runs]
    left = [run for run, state in zip(runs, states, strict=True) if state in _UNFINISHED]
    if interrupts.noted() and left:
        names = " ".join(str(run.folder.path) for run in left)
        words.print(f"Saved. Go on with: assay resume {names}")
        sys.exit(interrupts.status)
    _conclude(runs)
    if "diverged" in states:
        sys.exit(1)


_UNFINISHED = ("started", "running", "interrupted")


def _train_group(runs: Sequence["Run"], interrupts: Interrupts, *, anyway: bool) -> None:
    from assay.errors import DivergedError

    with training(max(run.config.train.steps for run in runs), start=0) as show:
        try:
            for outcomes in _rounds(runs, interrupts, anyway=anyway):
                for run, outcome in zip(runs, outcomes, strict=True):
                    if isinstance(outcome, DivergedError):
                        words.print(f"{run.folder.path}: {outcome}")
                going = [o for o in outcomes if o and not isinstance(o, DivergedError)]
                if going:
                    show(going[0])
        except DivergedError as error:  # of a run by itself; the others go on
            words.print(f"{runs[0].folder.path}: {error}")


def _rounds(
    runs: Sequence["Run"], interrupts: Interrupts, *, anyway: bool
) -> "Iterator[list[RunOutcome]]":
    from assay.runs.ensemble import train_ensemble

    if len(runs) > 1:
        yield from train_ensemble(runs, stop=interrupts.noted, anyway=anyway)
    else:
        for report in runs[0].train(stop=interrupts.noted, anyway=anyway):
            yield [report]


def _conclude(runs: Sequence["Run"]) -> None:
    results = [run.folder.read_manifest().get("result") for run in runs]
    for run, result in zip(runs, results, strict=True):
        said = f"{result['val_loss_nats']:.4f} nats" if result else "no result: it diverged"
        words.print(f"{run.folder.path}: seed {run.config.train.seed}, validation loss {said}")
        typer.echo(str(run.folder.path))
    losses = [result["val_loss_nats"] for result in results if result]
    if len(losses) > 1:
        mean, spread = statistics.mean(losses), statistics.stdev(losses)
        words.print(f"mean {mean:.4f}, standard deviation {spread:.4f} over {len(losses)} seeds")
