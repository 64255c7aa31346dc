"""Normalisations by themselves: what comes out of them, and what they cost."""

from collections.abc import Callable
from typing import Annotated, ClassVar, Literal, final

import torch
from pydantic import Field, PositiveFloat, PositiveInt

from assay.experiments.tasks.task import Task, Values
from assay.measure.cost import interleaved_seconds
from assay.measure.norms import gradient_at_zero_variance, output_scale
from assay.nn.loss import next_token_loss
from assay.nn.model import GPT, ModelConfig
from assay.nn.norm import LayerNormConfig, NormConfig, SigmaNormConfig
from assay.runs.run import Run
from assay.schema import override

_NORMS = (SigmaNormConfig, LayerNormConfig)


@final
class NormScales(Task):
    """What comes out of LayerNorm as the article writes it and as PyTorch computes it."""

    kind: Literal["norm-scales"] = "norm-scales"
    sigmas: Annotated[tuple[PositiveFloat, ...], Field(strict=False)]
    """Deviations of what goes in."""
    eps: PositiveFloat
    """Of both."""
    d_model: PositiveInt = 64
    """Channels; even."""

    def take(self, runs: tuple[Run, ...]) -> Values:
        """Return the `scales` at each σ, and how many of the gradients at σ = 0 are numbers."""
        return {
            config.model_fields["kind"].default: {
                "scales": [
                    output_scale(config(eps=self.eps), sigma, d_model=self.d_model)
                    for sigma in self.sigmas
                ],
                "finite_share": float(
                    gradient_at_zero_variance(config(eps=self.eps), d_model=self.d_model)
                    .isfinite()
                    .double()
                    .mean()
                ),
            }
            for config in _NORMS
        }


@final
class NormSeconds(Task):
    """Seconds of a norm alone, and of a training step with it, forward and backward, by turns."""

    kind: Literal["norm-seconds"] = "norm-seconds"
    timed: ClassVar[bool] = True
    model: ModelConfig
    """Its vocabulary known."""
    norms: Annotated[tuple[NormConfig, ...], Field(strict=False, min_length=2)]
    """What is compared; the first is what others are held to."""
    sequences: PositiveInt
    """Rows of random tokens."""
    rounds: PositiveInt
    """Times each is timed, after one that does not count."""

    def take(self, runs: tuple[Run, ...]) -> Values:
        """Return seconds by norm, a list over rounds: `alone` and in a whole `step`."""
        alone = [self._alone(norm) for norm in self.norms]
        steps = [self._step(norm) for norm in self.norms]
        seconds = interleaved_seconds([*alone, *steps], rounds=self.rounds)
        n = len(self.norms)
        return {
            norm.kind: {"alone": seconds[:, i].tolist(), "step": seconds[:, n + i].tolist()}
            for i, norm in enumerate(self.norms)
        }

    def _alone(self, norm: NormConfig) -> Callable[[], Callable[[], object]]:
        rows = self.sequences * self.model.max_seq_len
        x = torch.randn(rows, self.model.d_model, generator=torch.Generator().manual_seed(0))
        layer = norm.build(self.model.d_model)
        learned = [x.requires_grad_(), *layer.parameters()]
        return lambda: lambda: torch.autograd.grad(layer(x).sum(), learned)

    def _step(self, norm: NormConfig) -> Callable[[], Callable[[], object]]:
        model = GPT.create(override(self.model, {"norm": norm.model_dump()}))
        size = (self.sequences, self.model.max_seq_len + 1)
        tokens = torch.randint(self.model.vocab, size, generator=torch.Generator().manual_seed(0))
        learned = list(model.parameters())
        return lambda: lambda: torch.autograd.grad(next_token_loss(model, tokens), learned)
