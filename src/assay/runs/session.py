"""One training session in a run folder, from a start or a resume to an end or an interrupt."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from assay.config import RunConfig
from assay.count import count_or_none
from assay.data.prepare import Dataset
from assay.data.windows import Windows, evaluation_windows
from assay.engine.device import known_matmul_rate
from assay.errors import DivergedError
from assay.evaluate.loss import Evaluation, evaluate
from assay.measure.panel import Panel, initial_panel
from assay.nn.model import GPT
from assay.runs.folder import RunFolder
from assay.runs.metrics import Metrics
from assay.runs.monitor import StepMonitor
from assay.runs.state import RunState
from assay.runs.tensorboard import open_board
from assay.train.checkpoint_manager import CheckpointManager
from assay.train.loop import StepReport, train
from assay.train.native_backend import token_losses
from assay.train.nonfinite import first_bad
from assay.train.optim import Optimizers
from assay.train.plan import ExecutionPlan
from assay.train.spikes import Spike

Stop = Callable[[], bool]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunReport:
    """What happened in one step of a run; step 0 is the look at the untrained model.

    Attributes:
        step: Steps taken.
        loss_nats: Training loss of the step.
        grad_norm: Before clipping; 0 at step 0.
        lr: Learning rate; 0 at step 0.
        tokens_per_s: Targets over the time of the step alone.
        utilisation: Counted FLOPs of the step over those of a large matrix product in that time;
            None where a variant does not say what it costs.
        val: The evaluation, where one was due.
        checkpoint: The checkpoint, where one was written.
        panel: The panel, at step 0.
        trouble: Why the loss or the gradient was not finite, where the run goes on all the same.
        spikes: What lies far above its values in the steps before.
    """

    step: int
    loss_nats: float
    grad_norm: float = 0.0
    lr: float = 0.0
    tokens_per_s: float = 0.0
    utilisation: float | None = 0.0
    val: Evaluation | None = None
    checkpoint: Path | None = None
    panel: Panel | None = None
    trouble: str | None = None
    spikes: tuple[Spike, ...] = ()


@dataclass(frozen=True, slots=True)
class SessionContext:
    """What a session works with."""

    folder: RunFolder
    config: RunConfig
    dataset: Dataset
    model: GPT
    optimizers: Optimizers
    plan: ExecutionPlan
    machine: Mapping[str, Any]


class TrainingSession:
    """Trains, judges, logs and saves, from the step it is given to the last.

    Attributes:
        step: Steps taken so far.
        best: Step and validation loss of the best evaluation that has a checkpoint, or None.
        train_s: Seconds spent in steps, over all stretches of the run.
        save_s: Seconds spent in writing checkpoints, in this session.
    """

    def __init__(self, parts: SessionContext, state: RunState) -> None:
        self.parts = parts
        self.step, self.best, self.train_s = state.step, state.best, state.train_s
        self.save_s, self._train_s_before = 0.0, state.train_s
        self._monitor = StepMonitor(state.lookout)
        self._checkpoints = CheckpointManager(
            parts.folder.checkpoints, keep=parts.config.train.keep_checkpoints
        )
        config, dataset = parts.config, parts.dataset
        self._windows = Windows(
            dataset.train.ids,
            seq_len=config.seq_len,
            batch_size=config.train.batch_size,
            seed=config.train.seed,
        )
        self._val = evaluation_windows(
            dataset.val.ids, seq_len=config.seq_len, max_tokens=config.eval.max_tokens
        )
        self._byte_lengths = _byte_lengths(dataset)
        counted = count_or_none(config.model, seq_len=config.seq_len)
        self._step_flops = (
            None if counted is None else counted.training_flops * config.train.batch_size
        )
        self._rate = known_matmul_rate(parts.plan.device, autocast=parts.plan.autocast)
        self._saved_step = self.step if self.step else -1
        self._judged: tuple[int, float] | None = None

    @property
    def saving_share(self) -> float:
        """Time spent in writing checkpoints over that spent in steps, in this session."""
        return self.save_s / max(1e-9, self.train_s - self._train_s_before)

    def batch(self, step: int) -> Int[Tensor, "B T1"]:
        """Return the training tokens of a step, counted from 1."""
        return self._windows.batch(step)

    def run(self, stop: Stop, steps: Iterator[StepReport] | None = None) -> Iterator[RunReport]:
        """Yield a report for each step; end after the last one, or at the first where `stop()`.

        Args:
            stop: Asked after each step.
            steps: The steps, where something else takes them; by default they are taken here.

        Raises:
            DivergedError: After the last good state was saved.
            RunError: If the disk does not take what must be written.
        """
        parts = self.parts
        self._metrics = metrics = Metrics(parts.folder.path, after_step=self.step or -1)
        wanted, folder = parts.config.train.tensorboard, parts.folder.path
        board = open_board(wanted, folder, after_step=self.step)
        try:
            if self.step == 0:
                yield self._initial_report()
            reports = steps or train(
                parts.model, self.batch, parts.optimizers, parts.plan, start=self.step
            )
            for report in reports:
                self.step, self.train_s = report.step, self.train_s + report.elapsed_s
                stopping = stop()
                done = self._after(report, saving=stopping)
                board(done)
                yield done
                if stopping:
                    return
        except DivergedError:
            self.save()
            raise
        finally:
            metrics.close()

    def evaluate(self, max_tokens: int | None) -> Evaluation:
        """Judge the model on up to `max_tokens` targets of the validation split."""
        windows = evaluation_windows(
            self.parts.dataset.val.ids, seq_len=self.parts.config.seq_len, max_tokens=max_tokens
        )
        return self._evaluate(windows)

    def save(self) -> Path | None:
        """Write a checkpoint of the present step, unless there is one or a weight is not finite.

        Raises:
            DivergedError: If the optimizer's state is not finite: it would learn no more, silently.
            RunError: If the disk does not take it.
        """
        parts = self.parts
        if self._saved_step == self.step or first_bad(parts.model.state_dict()):
            return None
        optim = parts.optimizers.state()
        if name := first_bad(optim):
            raise DivergedError(
                f"step {self.step}: the optimizer's {name} is not finite; expected numbers. Go on "
                "from the checkpoint before, with a lower train.optimizer.lr or train.clip_norm."
            )
        began = time.perf_counter()
        judged = self._judged
        if judged is not None and judged[0] == self.step:
            self.best = min(self.best or judged, judged, key=lambda best: best[1])
        self._metrics.sync()
        state = RunState(
            step=self.step,
            best=self.best,
            train_s=round(self.train_s, 3),
            config=parts.config.model_dump(mode="json"),
            data_sha256=parts.dataset.sha256,
            machine=dict(parts.machine),
            ties={"unembed.weight": "embed.weight"} if parts.config.model.tied else {},
            metrics_sha256=self._metrics.sha256,
            lookout=self._monitor.state,
        )
        path = self._checkpoints.save(
            parts.model,
            optim,
            state.model_dump(mode="json"),
            best_step=self.best[0] if self.best else None,
        )
        self._saved_step = self.step
        self.save_s += time.perf_counter() - began
        return path

    def _initial_report(self) -> RunReport:
        plan = self.parts.plan
        with plan.uncompiled(), plan.precision():
            batch = self._windows.batch(1).to(plan.device)
            panel = initial_panel(self.parts.model, batch)
        self._metrics.write({"kind": "panel", "step": 0, **asdict(panel)})
        return RunReport(step=0, loss_nats=panel.loss_nats, panel=panel)

    def _after(self, report: StepReport, *, saving: bool) -> RunReport:
        """Judge, log and save what is due after a step."""
        config, step = self.parts.config, report.step
        last = step == config.train.steps
        tokens_per_s = report.tokens / report.elapsed_s
        utilisation = None
        if self._step_flops is not None:
            utilisation = self._step_flops / report.elapsed_s / self._rate
        for row in self._monitor.observe(report):
            self._metrics.write(row)
        logged = last or step % config.train.log_every == 0 or step == 1
        if logged and not report.skipped:
            names = ("step", "loss_nats", "grad_norm", "lr")
            values = {name: getattr(report, name) for name in names}
            speed = {"step": step, "tokens_per_s": tokens_per_s, "utilisation": utilisation}
            self._metrics.write({"kind": "train", **values}, speed | {"train_s": self.train_s})
        val = self._validate() if last or step % config.eval.every == 0 else None
        every = config.train.checkpoint_every
        due = last or saving or (every and step % every == 0)
        return RunReport(
            step=step,
            loss_nats=report.loss_nats,
            grad_norm=report.grad_norm,
            lr=report.lr,
            tokens_per_s=tokens_per_s,
            utilisation=utilisation,
            val=val,
            checkpoint=self.save() if due else None,
            trouble=report.trouble.message if report.trouble else None,
            spikes=tuple(self._monitor.spikes),
        )

    def _evaluate(self, windows: Tensor) -> Evaluation:
        plan = self.parts.plan
        rows = plan.config.batch_size // plan.config.micro_batches
        kernels = partial(token_losses, bf16=plan.autocast, rows=rows) if plan.native else None
        with plan.uncompiled():
            return evaluate(self.parts.model, windows, self._byte_lengths, plan.precision, kernels)

    def _validate(self) -> Evaluation:
        val = self._evaluate(self._val)
        if math.isfinite(val.loss_nats):
            self._judged = (self.step, val.loss_nats)
        self._metrics.write({"kind": "eval", "step": self.step, **as_row(val)})
        return val


def as_row(val: Evaluation) -> dict[str, float]:
    """Return an evaluation as named numbers."""
    return {
        "val_loss_nats": val.loss_nats,
        "val_perplexity": val.perplexity,
        "val_bits_per_byte": val.bits_per_byte,
        "val_tokens": val.tokens,
    }


def _byte_lengths(dataset: Dataset) -> NDArray[np.float64]:
    """Return the bytes of text of each token, so that those of all validation tokens are right.

    A tokenizer that drops or rewrites text has tokens of other lengths than the text they stand
    for; there the lengths are scaled to the bytes of the true text.
    """
    lengths = dataset.tokenizer.token_byte_lengths().astype(np.float64)
    if dataset.tokenizer.lossless:
        return lengths
    return lengths * (dataset.val.n_bytes / max(1.0, lengths[dataset.val.ids].sum()))
