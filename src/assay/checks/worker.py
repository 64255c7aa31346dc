"""Train a scratch run in this process: `python -m assay.checks.worker RUN UNTIL THREADS HOLD`.

A process of its own, started fresh, is what a resumed run is. It ends when its parent does.
"""

import os
import sys
import time
from pathlib import Path

import torch

from assay.errors import AssayError
from assay.plugin import take_over
from assay.runs.run import Run

_POLL_S = 0.02


def train_until(path: Path, until: int, *, hold: int | None = None) -> None:
    """Train the run at `path` to step `until`, saving there.

    At step `hold`, before anything of that step is written, wait for ever: to be killed.
    """
    parent = os.getppid()
    run = Run.open(path.absolute())
    run.draws_curve = False
    with run.at_work() as session:

        def stop() -> bool:
            while hold is not None and session.step >= hold and os.getppid() == parent:
                time.sleep(_POLL_S)
            return session.step >= until or os.getppid() != parent

        for _ in session.run(stop):
            pass


def main(arguments: list[str]) -> int:
    """Return an exit status; an error is one line on stderr."""
    path, until, threads, hold = arguments
    torch.set_num_threads(int(threads))
    try:
        take_over()
        train_until(Path(path), int(until), hold=int(hold) or None)
    except AssayError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
