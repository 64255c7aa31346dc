"""Looks inside a model: its predictions, its layers, its weights, and what it can lose."""

from dataclasses import asdict
from typing import Any, Literal, final

import torch
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor

from assay.config import RunConfig
from assay.data.windows import evaluation_windows
from assay.experiments.tasks.task import Task, Values
from assay.generate import GenerateOptions
from assay.measure.depth import through_depth
from assay.measure.distribution import shape
from assay.measure.noise import PARTS, Part, batch_loss_nats, with_noise
from assay.measure.weights import by_component, describe
from assay.nn.head import at_least_float32
from assay.nn.model import GPT, ModelConfig
from assay.runs.run import Run
from assay.runs.text import write_text


class _AtStart(Task):
    """What the looks at an untrained model share: the model and random tokens."""

    model: ModelConfig
    """Its vocabulary known."""
    seed: NonNegativeInt
    """Of weights and tokens."""
    sequences: PositiveInt
    """Rows of random tokens."""
    seq_len: PositiveInt
    """Tokens each."""

    def drawn(self) -> tuple[GPT, Tensor]:
        """Return the model, and tokens (sequences, seq_len + 1)."""
        generator = torch.Generator().manual_seed(self.seed)
        size = (self.sequences, self.seq_len + 1)
        tokens = torch.randint(self.model.vocab, size, generator=generator)
        return GPT.create(self.model, seed=self.seed).eval(), tokens


@final
class UntrainedSoftmax(_AtStart):
    """The shape of what an untrained model predicts."""

    kind: Literal["untrained-softmax"] = "untrained-softmax"

    def take(self, runs: tuple[Run, ...]) -> Values:
        """Look at the predictions of all tokens."""
        model, tokens = self.drawn()
        with torch.inference_mode():
            return asdict(shape(at_least_float32(model(tokens[:, :-1]))))


@final
class DepthAtStart(_AtStart):
    """Scales and gradients along the layers before the first step."""

    kind: Literal["depth-at-start"] = "depth-at-start"

    def take(self, runs: tuple[Run, ...]) -> Values:
        """Pass through the layers and back."""
        return asdict(through_depth(*self.drawn()))


class _OfRun(Task):
    """What the looks at a trained model share: the run, and how much of its validation text."""

    run: RunConfig
    """What is looked at."""
    tokens: PositiveInt = 4096
    """At most so many of the validation split, in windows spread evenly."""

    @property
    def needs(self) -> tuple[RunConfig, ...]:
        """The run."""
        return (self.run,)

    def windows(self, run: Run) -> Tensor:
        """Return validation tokens, (N, seq_len + 1)."""
        ids = run.dataset().val.ids
        return evaluation_windows(ids, seq_len=run.config.seq_len, max_tokens=self.tokens)


@final
class TrainedSoftmax(_OfRun):
    """The shape of what a trained model predicts on validation text."""

    kind: Literal["trained-softmax"] = "trained-softmax"

    def take(self, runs: tuple[Run, ...]) -> Values:
        """Look at the predictions of all tokens."""
        model, _ = runs[0].load()
        tokens = self.windows(runs[0]).to(model.embed.weight.device)
        with torch.inference_mode():
            found = shape(at_least_float32(model(tokens[:, :-1])))
        return {"vocab": model.config.vocab, **asdict(found)}


@final
class WeightShapes(_OfRun):
    """How the weights of each component and layer are distributed, before training and after."""

    kind: Literal["weight-shapes"] = "weight-shapes"

    def take(self, runs: tuple[Run, ...]) -> Values:
        """Describe the weights of both models: `untrained.q` is a list over layers."""
        trained, _ = runs[0].load()
        config = runs[0].config
        untrained = GPT.create(config.model, seed=config.train.seed)
        return {"untrained": _described(untrained), "trained": _described(trained)}


@final
class LoseQKV(_OfRun):
    """Losses of a trained model whose Q, K or V is noise, in one layer or in all."""

    kind: Literal["lose-qkv"] = "lose-qkv"
    noise_seed: NonNegativeInt = 0
    """Of the noise, and of the text that is written with it."""
    text_tokens: PositiveInt = 120
    """Written by each model that lost a part in all layers."""

    def take(self, runs: tuple[Run, ...]) -> Values:
        """Return `intact`, then under each part its losses by layer, in `all` layers, and text."""
        model, _ = runs[0].load()
        tokens = self.windows(runs[0]).to(model.embed.weight.device)
        values: dict[str, Any] = {
            "intact": batch_loss_nats(model, tokens),
            "text": self._text(runs[0], model),
        }
        return values | {part: self._without(runs[0], model, tokens, part) for part in PARTS}

    def _without(self, run: Run, model: GPT, tokens: Tensor, part: Part) -> dict[str, Any]:
        layers = range(len(model.blocks))
        lost = with_noise(model, [part], layers, seed=self.noise_seed)
        return {
            "layers": [
                batch_loss_nats(with_noise(model, [part], [i], seed=self.noise_seed), tokens)
                for i in layers
            ],
            "all": batch_loss_nats(lost, tokens),
            "text": self._text(run, lost),
        }

    def _text(self, run: Run, model: GPT) -> str:
        options = GenerateOptions(max_new_tokens=self.text_tokens, seed=self.noise_seed)
        pieces = write_text(model, run.tokenizer(), [""], run.config.sampling, options)
        return "".join(text for _, text in pieces)


def _described(model: GPT) -> dict[str, list[dict[str, Any]]]:
    return {
        name: [asdict(describe(weights)) for weights in tensors]
        for name, tensors in by_component(model).items()
    }
