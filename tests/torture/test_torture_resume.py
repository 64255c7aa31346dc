"""A run stopped after every one of its steps, over many configs, ends in the bits of one unbroken.

And the same run ten times, elsewhere, beside a busy process, under other hash seeds.
"""

import hashlib
import itertools
import os
import random
import subprocess
import sys

import pytest
from allpairspy import AllPairs
from torture_run import TEXT, arguments_of, config_of, finish, hash_of, text

from assay.nn.block import BLOCKS
from assay.nn.mlp import MLPS
from assay.nn.norm import NORMS
from assay.nn.position import POSITIONS
from assay.runs.run import Run
from assay.schema import override
from assay.train.optim import OPTIMIZERS
from assay.train.schedule import SCHEDULES

__all__ = ["text"]  # the fixture
DIMENSIONS = {
    "model__position": [cls().kind for cls in POSITIONS],
    "train__schedule": [cls().kind for cls in SCHEDULES],
    "model__norm": [cls().kind for cls in NORMS],
    "model__mlp": [cls().kind for cls in MLPS],
    "model__block": [cls().kind for cls in BLOCKS],
    "train__optimizer": [cls().kind for cls in OPTIMIZERS],
    "model__tie_embeddings": [True, False],
    "model__dropout": [0.0, 0.2],
    "train__micro_batches": [1, 2],
    "train__exact_rows": [None, 1],
    "train__batch_size": [4, 16],  # of the text's 80-odd windows: epochs of 21 steps, and of 6
    "train__precision": ["fp32", "bf16"],
    "train__attention": ["auto", "fused", "blocks"],  # auto: the kernels, where they can
    "train__recompute": [False, True],
    "train__on_nonfinite": ["stop", "skip"],
    "train__clip_norm": [1.0, None],
}
MOST = 120


def configs(text):
    """Every two values of two settings together, then more mixtures of all."""
    values = list(DIMENSIONS.values())
    draw = random.Random(0)
    mixtures = ([draw.choice(each) for each in values] for _ in range(MOST))
    for row in itertools.chain(AllPairs(values), mixtures):
        changes = dict(zip(DIMENSIONS, row, strict=True))
        yield config_of(text, train__checkpoint_every=10, **changes)


def broken_after_every_step(config, path):
    """Return how often it was resumed. No curve, most of the time of one step, is drawn."""
    Run.create(config, path)
    resumed = 0
    for step in range(1, config.train.steps):
        run = Run.open(path)
        run.draws_curve = False
        for report in run.train(stop=lambda: True):
            assert report.step in (0, step)
        resumed += step > 1
    finish(Run.open(path))
    return resumed + 1


def test_a_run_resumed_at_every_step_ends_in_the_same_bits(text, load, record):
    steps = load(15, 51)
    same = resumes = tried = 0
    seen = set()
    for number, config in enumerate(configs(text)):
        if number == load(1, MOST):
            break
        config = override(config, {"train.steps": steps})
        whole = Run.create(config, text.parent / f"whole-{number}")
        finish(whole)
        broken = text.parent / f"broken-{number}"
        resumes += broken_after_every_step(config, broken)
        tried += 1
        same += hash_of(broken) == hash_of(whole.folder.path)
        seen.add(hash_of(broken))
    assert same == tried == len(seen)
    assert resumes == tried * (steps - 1)
    record(
        "resume-every-step",
        f"{tried} configs, with every pair of values of {len(DIMENSIONS)} settings, each resumed "
        f"at all steps from 1 to {steps - 1}",
        f"{same} of {tried} end in the SHA-256 of the unbroken run, after {resumes} resumes",
    )


@pytest.mark.slow
def test_the_same_run_again_has_the_same_hash_whatever_goes_on_around_it(
    tmp_path, text, load, record
):
    """Every other time beside two busy processes; a process for each run."""
    hashes, times, threads = [], load(2, 10), load(1, 2)
    for number in range(times):
        folder = tmp_path / f"elsewhere-{number}"
        folder.mkdir()
        (folder / "copy.txt").write_text(TEXT, encoding="utf-8")
        busy = [_spinning() for _ in range(2 * (number % 2))]
        try:
            _train(folder, hash_seed=number, steps=load(6, 30), threads=threads)
        finally:
            for process in busy:
                process.kill()
                process.wait()
        hashes.append(hash_of(folder / "runs" / "run"))
    assert len(set(hashes)) == 1
    record(
        "same-run",
        f"{times} processes of {threads} threads, each with a folder and a hash seed of its own, "
        "every other one beside two busy processes",
        f"{len(set(hashes))} hash of weights, optimizer and metrics",
    )


def test_the_hash_tells_runs_apart(text):
    """Or the tests above would prove nothing."""
    runs = [
        Run.create(config_of(text, train__steps=4, train__seed=seed), text.parent / f"seed-{seed}")
        for seed in (0, 1)
    ]
    for run in runs:
        finish(run)
    assert hash_of(runs[0].folder.path) != hash_of(runs[1].folder.path)
    path = runs[0].folder.path
    before, metrics = hash_of(path), path / "metrics.jsonl"
    metrics.write_text(metrics.read_text().replace("1", "2", 1))
    assert hash_of(path) != before
    assert len(before) == len(hashlib.sha256().hexdigest())


def _spinning():
    return subprocess.Popen([sys.executable, "-c", "while True: pass"])


def _train(folder, *, hash_seed, steps, threads):
    changes = {"model__dropout": 0.1, "train__steps": steps}
    command = [sys.executable, "-m", "assay", "train", *arguments_of("copy.txt", **changes)]
    variables = {"PYTHONHASHSEED": str(hash_seed), "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(
        [*command, "--name", "run"],
        cwd=folder,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
