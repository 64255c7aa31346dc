"""Runs of a few steps of a small model on a text of one or two kilobytes."""

import os
import signal
import sys
import warnings

from safetensors.torch import load_file

from assay.config import RunConfig
from assay.runs.run import Run
from assay.schema import override
from assay.train.checkpoint import checkpoints

TEXT = "\n".join(f"{n} và {n + 1} là {2 * n + 1}, été 😀." for n in range(40)) + "\n"


def config_of(text, **changes):
    """A run of eight steps; `changes` has `__` where a dotted field has a dot."""
    fields = {
        "model.max_seq_len": 16,
        "model.d_model": 16,
        "model.n_layers": 1,
        "data.text": str(text),
        "data.tokenizer": "char",
        "train.steps": 8,
        "train.batch_size": 4,
        "train.log_every": 2,
        "train.checkpoint_every": 3,
        "train.device": "cpu",
        "train.backend": "torch",
        "eval.every": 3,
    }
    return override(
        RunConfig(), fields | {name.replace("__", "."): value for name, value in changes.items()}
    )


def finish(run, **options):
    """Train to the end, or to the stop; return the reports. No curve is drawn: half of the time."""
    run.draws_curve = False
    return list(run.train(**options))


def stopping_at(step):
    """A `stop` that is true after `step` steps of a session."""
    asked = iter(range(1, step + 1))
    return lambda: next(asked) == step


def bits_of(run):
    """Everything of a run that must come out the same whenever it is repeated."""
    newest = checkpoints(run.folder.path / "checkpoints")[0]
    files = ("metrics.jsonl", "config.json", "samples/step-000008.txt")
    result = {k: v for k, v in run.folder.read_manifest()["result"].items() if k != "train_s"}
    return {
        "newest": newest.name,
        "weights": _bytes(load_file(newest / "model.safetensors")),
        "optimizer": _bytes(load_file(newest / "optim.safetensors")),
        "result": result,
        **{name: (run.folder.path / name).read_bytes() for name in files},
    }


def _bytes(tensors):
    return {name: value.numpy().tobytes() for name, value in tensors.items()}


def in_child(work):
    """Run `work` in a forked child and return how it ended: minus a signal, or a status."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork beside the threads of a library
        child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def train_and_die_at(path, point=None):
    """Train the run at `path`, killed before operation `point` on its files; else count them."""
    count = 0

    def hook(event, arguments):
        nonlocal count
        if event.startswith(("open", "os.", "shutil.")) and str(arguments[0]).startswith(str(path)):
            count += 1
            if count == point:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    finish(Run.open(path))
    (path / "operations").write_text(str(count))


def train_and_die(path, step):
    """Train the run at `path` and be killed after the report of `step`."""
    for report in Run.open(path).train():
        if report.step == step:
            os.kill(os.getpid(), signal.SIGKILL)
