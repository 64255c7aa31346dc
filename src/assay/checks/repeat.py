"""Whether a run repeats to the bit: broken off and resumed, and from the beginning again.

Both train scratch runs beside the run and leave the run as it is. Each is a generator of findings
over stages that stand by themselves: a test steps in between, and so may a reader.
"""

from collections.abc import Iterator
from pathlib import Path

from assay.checks.bits import compare_recorded, compare_runs
from assay.checks.finding import Finding
from assay.checks.scratch import (
    busy_process,
    choose_steps,
    kill_scratch,
    machine_differences,
    new_scratch,
    step_seconds,
    train_scratch,
)
from assay.runs.metrics import read_rows
from assay.runs.run import Run

_OTHER_HASH_SEED = 4242
_KILL_WITHIN_S = 1.0  # where no step was timed


def check_resume(run: Run, scratch: Path, steps: int | None = None) -> Iterator[Finding]:
    """Compare 2N steps without a break with N steps, a kill -9 and a resume to 2N.

    Args:
        run: Whose config and text are taken. It is not touched.
        scratch: An empty folder for two scratch runs, `unbroken` and `broken`.
        steps: N. None: what takes about a minute, by the run's own step time.

    Raises:
        ConfigError: If the run has fewer than 2N steps.
        AssayError: If it cannot be trained here, such as on a text that changed.
    """
    n = choose_steps(run, steps, passes=5, reach=2)
    yield _machine(run)
    unbroken = new_scratch(run, scratch / "unbroken", every=n)
    train_scratch(unbroken, 2 * n)
    yield Finding("unbroken", f"{2 * n} steps in one process", facts={"steps": 2 * n})
    broken = new_scratch(run, scratch / "broken", every=n)
    within_s = n * (step_seconds(run) or _KILL_WITHIN_S / n)
    last = kill_scratch(broken, n, 2 * n, within_s)
    words = f"saved step {n}, killed after step {last} by SIGKILL"
    yield Finding("killed", words, facts={"saved_step": n, "last_step": last})
    train_scratch(broken, 2 * n)
    resumed_at = broken.folder.read_manifest()["stretches"][-1]["from_step"]
    words = f"went on from step {resumed_at} to {2 * n} in a new process"
    facts = {"from_step": resumed_at}
    yield Finding("resumed", words, fine=resumed_at == n, facts=facts)
    yield from compare_runs(unbroken.folder.path, broken.folder.path, 2 * n)


def check_determinism(run: Run, scratch: Path, steps: int | None = None) -> Iterator[Finding]:
    """Compare N steps taken twice, and both with what the run recorded.

    The second time is in another folder, with another PYTHONHASHSEED, beside a busy process.

    Args:
        run: As in `check_resume`.
        scratch: An empty folder for two scratch runs.
        steps: N. None: what takes about a minute.

    Raises:
        AssayError: As `check_resume` does.
    """
    n = choose_steps(run, steps, passes=2, reach=1)
    yield _machine(run)
    first = new_scratch(run, scratch / "first", every=n)
    train_scratch(first, n)
    yield Finding("first", f"{n} steps", facts={"steps": n})
    again = new_scratch(run, scratch / "elsewhere" / "again", every=n, hash_seed=_OTHER_HASH_SEED)
    with busy_process():
        train_scratch(again, n)
    words = f"{n} steps in another folder, with another hash seed, beside a busy process"
    yield Finding("again", words, facts={"steps": n})
    yield from compare_runs(first.folder.path, again.folder.path, n)
    recorded, found = (read_rows(r.folder.path / "metrics.jsonl") for r in (run, first))
    yield compare_recorded(recorded, found, n)


def _machine(run: Run) -> Finding:
    differences = machine_differences(run)
    if not differences:
        return Finding("machine", "nothing that the bits depend on differs from where it began")
    words = f"other than where the run began, so checked as it goes here: {'; '.join(differences)}"
    return Finding("machine", words, facts={"differences": differences})
