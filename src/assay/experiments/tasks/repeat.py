"""One training, done again with one thing changed: does it give the same bits?"""

import hashlib
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal, cast, final

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from assay.config import RunConfig
from assay.data.config import DataConfig
from assay.data.prepare import prepare
from assay.data.windows import Windows
from assay.engine.device import resolve_plan
from assay.errors import RunError
from assay.experiments.tasks.task import Task, Values
from assay.nn.loss import next_token_loss
from assay.nn.model import GPT
from assay.plugin import handed_on, take_over
from assay.runs.run import Run
from assay.schema import override
from assay.train.loop import train
from assay.train.plan import ExecutionPlan

Change = Literal[
    "nothing",
    "process",
    "torch-seed",
    "looks",
    "threads",
    "compile",
    "micro-batches",
    "blocks",
    "bf16",
    "seed",
    "resumed",
    "resumed-weights-only",
]
_FIELDS: dict[Change, dict[str, object]] = {
    "compile": {"train.compile": "on"},
    "micro-batches": {"train.micro_batches": 2},
    "blocks": {"train.attention": "blocks"},
    "bf16": {"train.precision": "bf16"},
}
_OTHER_SEED, _OTHER_HASH_SEED = 4242, "4242"


@final
class Repeat(Task):
    """A training of some steps, done once as it is and once with one thing changed."""

    kind: Literal["repeat"] = "repeat"
    run: RunConfig
    """What is trained; nothing is evaluated or written."""
    change: Change

    @property
    def texts(self) -> tuple[DataConfig, ...]:
        """The text of the run."""
        return (self.run.data,)

    def take(self, runs: tuple[Run, ...]) -> Values:
        """Train twice and compare hashes of all weights, and losses step by step."""
        first, second = _train(self.run), self._again()
        return {
            "sha256": [first[0], second[0]],
            "same": first == second,
            "first_step_apart": _first_apart(first[1], second[1]),
            "loss_apart": abs(first[1][-1] - second[1][-1]),
        }

    def _again(self) -> tuple[str, list[float]]:
        if self.change == "process":
            return _in_another_process(self.run)
        if self.change == "threads":
            with _threads(2 if torch.get_num_threads() == 1 else 1):
                return _train(self.run)
        if self.change == "seed":
            return _train(override(self.run, {"train.seed": self.run.train.seed + 1}))
        if self.change in ("resumed", "resumed-weights-only"):
            return _train_resumed(self.run, whole=self.change == "resumed")
        if self.change == "torch-seed":
            with torch.random.fork_rng([]):
                torch.manual_seed(_OTHER_SEED)
                return _train(self.run)
        if self.change == "looks":
            return _train(self.run, look=_look)
        return _train(override(self.run, _FIELDS.get(self.change, {})))


@final
class RepeatPlain(Task):
    """A plain PyTorch loop whose only seed is `torch.manual_seed`, done twice.

    Weights, batches and dropout all draw from PyTorch's global generator, one after another, as in
    the article's appendix. The second time `draws_between` numbers are drawn at half time, as a
    sample or an evaluation would.
    """

    kind: Literal["repeat-plain"] = "repeat-plain"
    draws_between: int
    """Numbers."""
    steps: PositiveInt
    width: PositiveInt

    def take(self, runs: tuple[Run, ...]) -> Values:
        """Train twice and compare."""
        first, second = self._train(0), self._train(self.draws_between)
        return {"sha256": [first, second], "same": first == second}

    def _train(self, draws: int) -> str:
        with torch.random.fork_rng([]):
            torch.manual_seed(42)
            model = nn.Sequential(
                nn.Embedding(64, self.width),
                nn.Linear(self.width, 4 * self.width),
                nn.GELU(),
                nn.Dropout(0.1),
                nn.Linear(4 * self.width, 64),
            )
            optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
            for step in range(self.steps):
                if step == self.steps // 2:
                    torch.rand(draws)
                tokens = torch.randint(64, (32, 17))
                logits = model(tokens[:, :-1]).flatten(0, 1)
                loss = nn.functional.cross_entropy(logits, tokens[:, 1:].flatten())
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
            return _sha256(model)


# Training ----------------------------------------------------------------------------------------


def _train(run: RunConfig, look: Callable[[GPT], None] | None = None) -> tuple[str, list[float]]:
    """Return the hash of all weights after the last step, and the loss of every step."""
    run, plan, windows = _settled(run)
    model = GPT.create(run.model, seed=run.train.seed)
    plan.prepare(model)
    losses = []
    for report in train(model, windows.batch, run.train.optimizer.build(model), plan):
        losses.append(report.loss_nats)
        if look is not None:
            look(model)
    return _sha256(model), losses


def _train_resumed(run: RunConfig, *, whole: bool) -> tuple[str, list[float]]:
    """Train half, go on in a new model from what was kept: weights alone, or optimizer too."""
    run, plan, windows = _settled(run)
    half = run.train.steps // 2
    model = GPT.create(run.model, seed=run.train.seed)
    optimizers = run.train.optimizer.build(model)
    reports = train(model, windows.batch, optimizers, plan)
    losses = [report.loss_nats for report in itertools.islice(reports, half)]
    resumed = GPT.create(run.model, seed=_OTHER_SEED)
    resumed.load_state_dict(model.state_dict())
    others = run.train.optimizer.build(resumed)
    if whole:
        others.load(optimizers.state())
    reports = train(resumed, windows.batch, others, plan, start=half)
    losses += [report.loss_nats for report in reports]
    return _sha256(resumed), losses


def _settled(run: RunConfig) -> tuple[RunConfig, ExecutionPlan, Windows]:
    dataset = prepare(run.data)
    run = override(run, {"model.vocab_size": dataset.tokenizer.vocab_size})
    plan = resolve_plan(run.train)
    windows = Windows(
        dataset.train.ids,
        seq_len=run.seq_len,
        batch_size=run.train.batch_size,
        seed=run.train.seed,
    )
    return run, replace(plan, config=run.train), windows


def _look(model: GPT) -> None:
    """Look at a model between two steps as an evaluation and a sample would."""
    model.eval()
    with torch.inference_mode():
        next_token_loss(model, torch.randint(model.config.vocab, (2, 9)))
    torch.rand(7)


def _sha256(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(cast(Tensor, tensor).contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _first_apart(one: list[float], other: list[float]) -> int | None:
    """Return the first step, from 1, whose losses are not the same; None if all are."""
    apart = (step for step, (a, b) in enumerate(zip(one, other, strict=True), 1) if a != b)
    return next(apart, None)


# Elsewhere ---------------------------------------------------------------------------------------


@contextmanager
def _threads(n: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _in_another_process(run: RunConfig) -> tuple[str, list[float]]:
    """Train in a fresh interpreter with another hash seed, on as many threads."""
    command = [sys.executable, "-c", f"from {__name__} import main; main()"]
    command += [str(torch.get_num_threads())]
    environment = os.environ | handed_on() | {"PYTHONHASHSEED": _OTHER_HASH_SEED}
    ended = subprocess.run(
        command, input=run.model_dump_json(), env=environment, capture_output=True, text=True
    )
    if ended.returncode:
        raise RunError(f"another process: it ended with {ended.returncode}: {ended.stderr[-300:]}")
    sha256, *losses = ended.stdout.split()
    return sha256, [float(loss) for loss in losses]


def main() -> None:
    """Train what standard input says, on so many threads; print the hash and each loss."""
    torch.set_num_threads(int(sys.argv[1]))
    take_over()
    sha256, losses = _train(RunConfig.model_validate_json(sys.stdin.read()))
    sys.stdout.write("\n".join([sha256, *map(repr, losses)]))
