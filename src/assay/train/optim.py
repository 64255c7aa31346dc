"""Optimizers: the `train.optimizer` field, and which parameter goes to which.

AdamW is PyTorch's own; where the C++ kernels train they take its steps too (`train/adamw.py`). Muon
is ours, since PyTorch's is slow on a CPU; see `train/muon.py`.

Weight decay acts on matrices and tables (two dimensions), never on biases or on the scales of
norms. `Optimizers` holds one or two torch optimizers and speaks of their state by parameter name,
which is what a checkpoint needs.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import BeforeValidator, Field, PositiveFloat
from torch import Tensor, nn
from torch.optim import Optimizer

from assay.errors import CheckpointError
from assay.native.build import Part, kernels
from assay.schema import Config, kind_alone
from assay.source import Source
from assay.train.adamw import AdamW
from assay.train.muon import Muon, step_together

Beta = Annotated[float, Field(ge=0, lt=1)]
Rate = Annotated[float, Field(gt=0, le=1e30)]  # beyond, products leave float32
Decay = Annotated[float, Field(ge=0, le=1e6)]
Named = list[tuple[str, nn.Parameter]]


@dataclass(frozen=True, slots=True)
class Optimizers:
    """The optimizers of one model, stepped together.

    Attributes:
        parts: Each torch optimizer with its peak learning rate.
        names: The name of every parameter.
    """

    parts: tuple[tuple[Optimizer, float], ...]
    names: Mapping[nn.Parameter, str]

    def step(self, factor: float) -> None:
        """Update all parameters at `factor` times the peak rates."""
        step_all([self], [factor])

    @torch.no_grad()
    def step_natively(self, factor: float, *, scale: float = 1.0, bf16: bool = False) -> None:
        """Do the same with the C++ kernels, or PyTorch for what they do not do right here.

        Args:
            factor: Of the peak rates.
            scale: Of the gradients.
            bf16: Whether Muon's products are of bfloat16.
        """
        self.set_rates(factor)
        muon: Part = "muon_bf16" if bf16 else "muon_fp32"
        for optimizer, _ in self.parts:
            if kernels().lacks(muon if isinstance(optimizer, Muon) else "adamw") is not None:
                _scale_gradients(optimizer, scale)
                optimizer.step()
            elif isinstance(optimizer, Muon):
                optimizer.step_natively(scale=scale, bf16=bf16)
            else:
                assert isinstance(optimizer, AdamW)
                optimizer.step_natively(scale=scale)

    def set_rates(self, factor: float) -> None:
        """Let each optimizer's rate be `factor` times its peak."""
        for optimizer, peak_lr in self.parts:
            for group in optimizer.param_groups:
                group["lr"] = factor * peak_lr

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for parameter in self.names:
            parameter.grad = None

    @property
    def peak_lr(self) -> float:
        """The peak rate of the first optimizer, the one that reports show."""
        return self.parts[0][1]

    def state(self) -> dict[str, Tensor]:
        """Return the state as `parameter/quantity` -> tensor."""
        return {
            f"{self.names[parameter]}/{quantity}": value
            for optimizer, parameter in self._owners()
            for quantity, value in optimizer.state[parameter].items()
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over a state that `state` returned, empty before the first update.

        Raises:
            CheckpointError: If it is of other parameters, or its tensors of other shapes.
        """
        owners = {
            f"{self.names[parameter]}/{quantity}": (optimizer, parameter, like)
            for optimizer, parameter in self._owners()
            for quantity, like in _state_like(optimizer, parameter).items()
        }
        if state and (odd := state.keys() ^ owners.keys()):
            raise CheckpointError(
                f"optim.safetensors: {min(odd)!r} is either in the file or in the optimizer of "
                "this config, not in both; the checkpoint is of another config."
            )
        for key, value in state.items():
            optimizer, parameter, like = owners[key]
            if (value.shape, value.dtype) != (like.shape, like.dtype):
                raise CheckpointError(
                    f"optim.safetensors: {key} of shape {tuple(value.shape)} and {value.dtype} "
                    f"found; expected {tuple(like.shape)} and {like.dtype}."
                )
            quantity = key.rpartition("/")[2]
            optimizer.state[parameter][quantity] = value.to(parameter.device)

    def _owners(self) -> Iterator[tuple[Optimizer, nn.Parameter]]:
        for optimizer, _ in self.parts:
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    yield optimizer, parameter


def _scale_gradients(optimizer: Optimizer, scale: float) -> None:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                parameter.grad.mul_(scale)


def _state_like(optimizer: Optimizer, parameter: nn.Parameter) -> dict[str, Tensor]:
    """Return tensors like those an optimizer keeps of a parameter once it has updated it."""
    if isinstance(optimizer, Muon):
        return {"momentum_buffer": parameter}
    return {"step": torch.empty(()), "exp_avg": parameter, "exp_avg_sq": parameter}


def step_all(models: Sequence[Optimizers], factors: Sequence[float]) -> None:
    """Update the parameters of several models, each at its own factor of its own peak rates."""
    muons: list[Muon] = []
    for optimizers, factor in zip(models, factors, strict=True):
        optimizers.set_rates(factor)
        for optimizer, _ in optimizers.parts:
            if isinstance(optimizer, Muon):
                muons.append(optimizer)
            else:
                optimizer.step()
    step_together(muons)


class AdamWConfig(Config):
    """AdamW for all parameters, fused."""

    kind: Literal["adamw"] = "adamw"
    lr: Rate = 2e-3
    """Peak learning rate."""
    beta1: Beta = 0.9
    """Decay of the mean of gradients."""
    beta2: Beta = 0.99
    """Decay of the mean of squared gradients."""
    eps: PositiveFloat = 1e-8
    """Added to the root of the mean of squares."""
    weight_decay: Decay = 0.1
    """Decoupled decay of matrices and tables, times the learning rate."""
    source: ClassVar[Source] = Source("Loshchilov & Hutter 2017", "arXiv:1711.05101", "alg. 2")

    def build(self, model: nn.Module) -> Optimizers:
        """Return the optimizer over the parameters of `model`."""
        named = list(model.named_parameters())
        return Optimizers(((_adamw(named, self, self.lr), self.lr),), {p: n for n, p in named})


class MuonConfig(Config):
    """Muon for the matrices of the blocks, AdamW for tables, the output matrix, norms and biases.

    Updates of Muon are scaled to the root mean square of AdamW's, so that both take rates of the
    same size (Liu et al. 2025, arXiv:2502.16982, eq. 4).
    """

    kind: Literal["muon"] = "muon"
    lr: Rate = 4e-3
    """Peak learning rate of the matrices."""
    momentum: Beta = 0.9
    """Decay of the mean of gradients of the matrices (Nesterov)."""
    adamw_lr: Rate = 4e-3
    """Peak learning rate of everything else."""
    beta1: Beta = 0.9
    """As in adamw."""
    beta2: Beta = 0.99
    """As in adamw."""
    eps: PositiveFloat = 1e-8
    """As in adamw."""
    weight_decay: Decay = 0.1
    """As in adamw."""
    source: ClassVar[Source] = Source("Jordan et al. 2024", "kellerjordan.github.io/posts/muon", "")

    def build(self, model: nn.Module) -> Optimizers:
        """Return both optimizers over the parameters of `model`."""
        named = list(model.named_parameters())
        matrices = [(n, p) for n, p in named if n.startswith("blocks.") and p.ndim == 2]
        taken = {name for name, _ in matrices}
        muon = Muon(
            [parameter for _, parameter in matrices],
            lr=self.lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
        )
        rest = _adamw([(n, p) for n, p in named if n not in taken], self, self.adamw_lr)
        return Optimizers(((muon, self.lr), (rest, self.adamw_lr)), {p: n for n, p in named})


def _adamw(
    named: Iterable[tuple[str, nn.Parameter]], config: AdamWConfig | MuonConfig, lr: float
) -> AdamW:
    parameters = [parameter for _, parameter in named]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    betas = (config.beta1, config.beta2)
    return AdamW(groups, lr=lr, betas=betas, eps=config.eps, fused=True)


OPTIMIZERS = (AdamWConfig, MuonConfig)
OptimizerConfig = Annotated[
    AdamWConfig | MuonConfig, Field(discriminator="kind"), BeforeValidator(kind_alone)
]
