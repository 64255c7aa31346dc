"""Where a model's loss lies: by frequency of the token, and on text it trained on or did not."""

from typing import Literal, final

import numpy as np
from pydantic import PositiveInt
from torch import Tensor

from assay.config import RunConfig
from assay.data.config import DataConfig
from assay.data.prepare import TokenFile, prepare
from assay.data.windows import Windows, evaluation_windows
from assay.engine.device import resolve_plan
from assay.experiments.tasks.position import Lengths
from assay.experiments.tasks.task import Task, Values
from assay.measure.frequency import loss_by_rank, token_counts
from assay.measure.positionwise import target_losses
from assay.nn.model import GPT
from assay.runs.run import Run
from assay.train.loop import train


@final
class LossParts(Task):
    """The validation loss by how frequent the predicted token is in the training text."""

    kind: Literal["loss-parts"] = "loss-parts"
    run: RunConfig
    """Whose model is judged."""
    ends: Lengths
    """Last rank of each bucket but the last; rank 1 is the most frequent token."""
    targets: PositiveInt
    """At most so many, spread evenly over the validation text."""

    @property
    def needs(self) -> tuple[RunConfig, ...]:
        """Its run."""
        return (self.run,)

    def take(self, runs: tuple[Run, ...]) -> Values:
        """Return loss and targets of each bucket, by its last rank."""
        (run,) = runs
        model, tokenizer = run.load()
        data = run.dataset()
        windows = _windows(data.val, run.config, self.targets)
        losses = _losses(model, windows)
        counts = token_counts(np.asarray(data.train.ids), tokenizer.vocab_size)
        buckets = loss_by_rank(losses, windows[:, 1:].flatten().numpy(), counts, self.ends)
        return {
            "loss_nats": {str(bucket.last): bucket.loss_nats for bucket in buckets},
            "targets": {str(bucket.last): bucket.targets for bucket in buckets},
        }


@final
class FewTokens(Task):
    """Training on so little text that it is soon known by heart: what overfitting looks like."""

    kind: Literal["few-tokens"] = "few-tokens"
    run: RunConfig
    """What is trained, its vocabulary known; only the text's beginning is used."""
    tokens: PositiveInt
    """Of the training text, from its beginning."""
    every: PositiveInt
    """Steps between two looks."""
    targets: PositiveInt
    """Of each look, on the training tokens and on the validation text."""

    @property
    def texts(self) -> tuple[DataConfig, ...]:
        """The text of its run."""
        return (self.run.data,)

    def take(self, runs: tuple[Run, ...]) -> Values:
        """Train, and return both losses at each look, the least and the last among them."""
        config, data = self.run, prepare(self.run.data)
        few = data.train.ids[: self.tokens]
        windows = Windows(
            few, seq_len=config.seq_len, batch_size=config.train.batch_size, seed=config.train.seed
        )
        plan = resolve_plan(config.train)
        model = GPT.create(config.model, seed=config.train.seed, device=plan.device)
        plan.prepare(model)
        seen = evaluation_windows(few, seq_len=config.seq_len, max_tokens=self.targets)
        unseen = _windows(data.val, config, self.targets)
        looks = [
            (report.step, float(_losses(model, seen).mean()), float(_losses(model, unseen).mean()))
            for report in train(model, windows.batch, config.train.optimizer.build(model), plan)
            if report.step % self.every == 0
        ]
        steps, known, new = zip(*looks, strict=True)
        return {
            "step": steps,
            "train_nats": known,
            "val_nats": new,
            "best_val_nats": min(new),
            "last_val_nats": new[-1],
            "rise_nats": new[-1] - min(new),
            "gap_nats": new[-1] - known[-1],
            "epochs": config.train.steps / windows.steps_per_epoch,
        }


def _windows(file: TokenFile, config: RunConfig, targets: int) -> Tensor:
    return evaluation_windows(file.ids, seq_len=config.seq_len, max_tokens=targets)


def _losses(model: GPT, windows: Tensor) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return the loss of every target, in a row; windows are as long as in training."""
    losses = target_losses(model, windows)
    assert losses is not None
    found: np.ndarray[tuple[int], np.dtype[np.float64]] = losses.flatten().numpy()
    return found
