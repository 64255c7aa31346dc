"""What a trained model makes of order and of lengths it never saw."""

from typing import Annotated, Literal, Self, final

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor

from assay.config import RunConfig
from assay.data import synthetic
from assay.data.prepare import TokenFile
from assay.data.tokenizer import Tokenizer
from assay.experiments.tasks.task import Task, Values
from assay.measure.positionwise import exact_matches, order_loss, sliding_loss, target_losses
from assay.nn.model import GPT
from assay.runs.run import Run

Lengths = Annotated[tuple[PositiveInt, ...], Field(min_length=1)]


@final
class PositionLoss(Task):
    """Loss by position and length of window, every length judged on the same targets."""

    kind: Literal["position-loss"] = "position-loss"
    run: RunConfig
    """Whose model is judged, on its validation text."""
    lengths: Lengths
    """Inputs of a window."""
    stride: PositiveInt
    """How far sliding windows move, and how many positions a bucket of the curve holds."""
    targets: PositiveInt
    """So many tokens are predicted; every length divides it."""

    @model_validator(mode="after")
    def _lengths_divide(self) -> Self:
        if any(self.targets % length or length % self.stride for length in self.lengths):
            raise ValueError(
                f"targets {self.targets}, stride {self.stride} found; expected lengths that the "
                "stride divides, and that divide the targets."
            )
        return self

    @property
    def needs(self) -> tuple[RunConfig, ...]:
        """Its run."""
        return (self.run,)

    def take(self, runs: tuple[Run, ...]) -> Values:
        """Return both losses of every length, and the curves; None where a length is undefined."""
        model, _ = runs[0].load()
        first = max(self.lengths)
        ids = _head(runs[0].dataset().val, first + self.targets)
        found = {str(length): self._at(model, ids, length, first) for length in self.lengths}
        return {name: {at: each[name] for at, each in found.items()} for name in found[str(first)]}

    def _at(self, model: GPT, ids: Tensor, length: int, first: int) -> Values:
        sliding = sliding_loss(model, ids, length=length, stride=self.stride, first=first)
        starts = torch.arange(first - 1, len(ids) - length, length)
        losses = target_losses(model, ids[starts[:, None] + torch.arange(length + 1)])
        if losses is None:
            return {"sliding": sliding, "blocks": None, "curve": None}
        curve = losses.mean(0).view(-1, self.stride).mean(1)
        return {"sliding": sliding, "blocks": float(losses.mean()), "curve": curve.tolist()}


@final
class Order(Task):
    """The shuffle test, with and without the last token of the context in its place."""

    kind: Literal["order"] = "order"
    run: RunConfig
    """Whose model is judged, on its validation text, at the length it was trained at."""
    windows: PositiveInt
    """Contexts, end to end."""
    permutations: PositiveInt
    """Of each context."""

    @property
    def needs(self) -> tuple[RunConfig, ...]:
        """Its run."""
        return (self.run,)

    def take(self, runs: tuple[Run, ...]) -> Values:
        """Return what each shuffling adds to the loss of the last token."""
        model, _ = runs[0].load()
        width = runs[0].config.seq_len + 1
        ids = _head(runs[0].dataset().val, self.windows * width)
        windows = ids[: len(ids) // width * width].view(-1, width)
        found = [
            order_loss(model, windows, keep=keep, n_permutations=self.permutations, seed=0)
            for keep in (0, 1)
        ]
        values = [each.order_nats if each else None for each in found]
        return {"all_nats": values[0], "all_but_last_nats": values[1]}


@final
class Answers(Task):
    """How often a model trained on a task's text writes the whole right answer, greedily."""

    kind: Literal["answers"] = "answers"
    run: RunConfig
    """A model of characters, trained on the text of the task."""
    task: synthetic.Task
    """Which problems are asked."""
    lengths: Lengths
    """Of the problems."""
    n: PositiveInt
    """Problems of each length, none of them in the training text."""
    seed: int = 0
    """Of the problems: the same for all models."""

    @property
    def needs(self) -> tuple[RunConfig, ...]:
        """Its run."""
        return (self.run,)

    def take(self, runs: tuple[Run, ...]) -> Values:
        """Return how many answers are right, by length; None where a length is undefined."""
        model, tokenizer = runs[0].load()
        right = {str(length): self._right(model, tokenizer, length) for length in self.lengths}
        return {"right": right, "n": self.n}

    def _right(self, model: GPT, tokenizer: Tokenizer, length: int) -> int | None:
        asked = synthetic.problems(self.task, length, self.n, self.seed)
        prompts = _encoded(tokenizer, [f"\n{problem.prompt}" for problem in asked])
        answers = _encoded(tokenizer, [f"{problem.answer}\n" for problem in asked])
        matches = exact_matches(model, prompts, answers)
        return None if matches is None else int(matches.sum())


def _head(file: TokenFile, n_tokens: int) -> Tensor:
    return torch.from_numpy(file.ids[:n_tokens].astype("int64"))


def _encoded(tokenizer: Tokenizer, texts: list[str]) -> Tensor:
    """Return the tokens of texts of one length, (N, T)."""
    return torch.tensor([tokenizer.encode(text).tolist() for text in texts])
