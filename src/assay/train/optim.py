"""Optimizers: the `train.optimizer` field, and which parameter goes to which.

AdamW is PyTorch's own; where the C++ kernels train they take its steps too (`train/adamw.py`). Muon
is ours, since PyTorch's is slow on a CPU; see `train/muon.py`.

Weight decay acts on matrices and tables (two dimensions), never on biases or on the scales of
norms. `Optimizers` holds one or two torch optimizers and speaks of their state by parameter name,
which is what a checkpoint needs.
"""

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, final

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor, nn
from torch.optim import Optimizer

from assay.citation import Citation
from assay.errors import CheckpointError
from assay.family import Family, Variant
from assay.native.build import kernels
from assay.train.adamw import AdamW
from assay.train.muon import Muon
from assay.train.optimizer import KernelOptimizer, NoDynamo, states_like

Beta = Annotated[float, Field(ge=0, lt=1)]
Rate = Annotated[float, Field(gt=0, le=1e30)]  # beyond, products leave float32
Decay = Annotated[float, Field(ge=0, le=1e6)]


@dataclass(frozen=True, slots=True)
class Optimizers:
    """The optimizers of one model, stepped together.

    Attributes:
        parts: Each torch optimizer with its peak learning rate.
        names: The name of every parameter.
    """

    parts: tuple[tuple[Optimizer, float], ...]
    names: Mapping[nn.Parameter, str]
    _begun: list[dict[str, Any]] = field(init=False, repr=False, default_factory=list)

    def __post_init__(self) -> None:
        """Remember how the groups began, to tell what a step changes in them."""
        self._begun.extend(_numbers(group) for group in self._groups().values())

    @classmethod
    def over(cls, model: nn.Module, *parts: tuple[Optimizer, float]) -> "Optimizers":
        """Return torch optimizers, each with its peak rate, over the parameters of `model`."""
        return cls(parts, {parameter: name for name, parameter in model.named_parameters()})

    def step(self, factor: float) -> None:
        """Update all parameters at `factor` times the peak rates."""
        step_all([self], [factor])

    @torch.no_grad()
    def step_natively(self, factor: float, *, scale: float = 1.0, bf16: bool = False) -> None:
        """Do the same with the C++ kernels, or PyTorch for what they do not do right here.

        Args:
            factor: Of the peak rates.
            scale: Of the gradients.
            bf16: Whether products may be of bfloat16.
        """
        self.set_rates(factor)
        for optimizer, _ in self.parts:
            match optimizer:
                case KernelOptimizer() if kernels().lacks(optimizer.kernel_part(bf16=bf16)) is None:
                    optimizer.step_natively(scale=scale, bf16=bf16)
                case _:
                    _scale_gradients(optimizer, scale)
                    optimizer.step()

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
        """Return the state as `parameter/quantity` -> tensor.

        What an optimizer has changed in its groups of parameters (not the rate, which the schedule
        sets) is `group A.B/quantity`: of group B of optimizer A.

        Raises:
            CheckpointError: If an optimizer keeps what is neither a tensor nor a number.
        """
        return {
            f"{key}/{quantity}": _as_tensor(f"{key}/{quantity}", value)
            for key, held in (*self._by_parameter(), *self._changed_groups())
            for quantity, value in held.items()
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over a state that `state` returned, empty before the first update.

        Raises:
            CheckpointError: If it is of other parameters, or its tensors of other shapes.
        """
        if not state:
            return
        of_groups = {key for key in state if key.startswith(_GROUP)}
        places, kept = self._places(), state.keys() - of_groups
        if odd := kept ^ places.keys():
            where = "in the file alone" if min(odd) in kept else "missing in the file"
            kinds = " and ".join(type(optimizer).__name__ for optimizer, _ in self.parts)
            raise CheckpointError(
                f"optim.safetensors: {min(odd)!r} is {where}; expected what {kinds} of this config "
                "keeps. The checkpoint is of another config."
            )
        for key in kept:
            places[key].put(key, state[key])
        self._load_groups({key: state[key] for key in of_groups})

    def _load_groups(self, state: Mapping[str, Tensor]) -> None:
        groups = self._groups()
        for key, value in state.items():
            of, _, quantity = key.partition("/")
            if of not in groups:
                raise CheckpointError(
                    f"optim.safetensors: {key!r} found, expected one of {', '.join(groups)}. The "
                    "checkpoint is of another config."
                )
            like = groups[of].get(quantity, value if value.ndim else value.item())
            _Place(groups[of], quantity, like, value.device).put(key, value)

    def _changed_groups(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        for (key, group), before in zip(self._groups().items(), self._begun, strict=True):
            now = _numbers(group)
            yield key, {name: v for name, v in now.items() if not _same(v, before.get(name))}

    def _places(self) -> dict[str, "_Place"]:
        """Return where each entry of a parameter's state belongs."""
        return {
            f"{self.names[parameter]}/{quantity}": _Place(
                optimizer.state[parameter], quantity, value, parameter.device
            )
            for optimizer, _ in self.parts
            for parameter, like in states_like(optimizer).items()
            for quantity, value in like.items()
        }

    def _by_parameter(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        for optimizer, _ in self.parts:
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    yield self.names[parameter], optimizer.state.get(parameter, {})

    def _groups(self) -> dict[str, dict[str, Any]]:
        return {
            f"{_GROUP}{number}.{place}": group
            for number, (optimizer, _) in enumerate(self.parts)
            for place, group in enumerate(optimizer.param_groups)
        }


_GROUP = "group "


class _Place(NamedTuple):
    """Where an entry of a state belongs, and what stands there after a first step."""

    held: dict[str, Any]
    quantity: str
    like: object
    device: torch.device

    def put(self, key: str, value: Tensor) -> None:
        """Take in what a file has."""
        like = _as_tensor(key, self.like)
        if (value.shape, value.dtype) != (like.shape, like.dtype):
            raise CheckpointError(
                f"optim.safetensors: {key} of shape {tuple(value.shape)} and {value.dtype} "
                f"found; expected {tuple(like.shape)} and {like.dtype}."
            )
        number = not isinstance(self.like, Tensor)
        self.held[self.quantity] = value.item() if number else value.to(self.device)


def _numbers(group: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of what a group says in numbers, but for the rate, which the schedule sets."""
    return {
        name: copy.deepcopy(value)
        for name, value in group.items()
        if name not in ("params", "lr") and isinstance(value, int | float | Tensor)
    }


def _same(value: object, before: object) -> bool:
    if isinstance(value, Tensor) and isinstance(before, Tensor):
        return torch.equal(value, before)
    return type(value) is type(before) and value == before


def _as_tensor(key: str, value: object) -> Tensor:
    if isinstance(value, Tensor):
        return value
    if isinstance(value, int | float):
        return torch.tensor(value, dtype=torch.float64 if isinstance(value, float) else None)
    raise CheckpointError(
        f"optim.safetensors: {key} is a {type(value).__name__}; expected a tensor or a number, "
        "which is what a checkpoint can hold of an optimizer."
    )


def _scale_gradients(optimizer: Optimizer, scale: float) -> None:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                parameter.grad.mul_(scale)


def step_all(models: Sequence[Optimizers], factors: Sequence[float]) -> None:
    """Update the parameters of several models, each at its own factor of its own peak rates."""
    by_class: dict[type[KernelOptimizer], list[KernelOptimizer]] = {}
    for optimizers, factor in zip(models, factors, strict=True):
        optimizers.set_rates(factor)
        for optimizer, _ in optimizers.parts:
            if isinstance(optimizer, KernelOptimizer):
                by_class.setdefault(type(optimizer), []).append(optimizer)
            else:
                optimizer.step()
    for cls, alike in by_class.items():
        cls.step_many(alike)


class OptimizerVariant(Variant):
    """A choice of optimizer: what turns gradients into updates."""

    def build(self, model: nn.Module) -> Optimizers:
        """Return the optimizers over the parameters of `model`, at their peak rates."""
        raise NotImplementedError


def grouped(parameters: Iterable[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Return groups for a torch optimizer: matrices and tables, which decay, then all else."""
    listed = list(parameters)
    return [
        {"params": [p for p in listed if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in listed if p.ndim < 2], "weight_decay": 0.0},
    ]


class AdamWConfig(OptimizerVariant):
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
    citation: ClassVar[Citation | None] = Citation(
        "Loshchilov & Hutter 2017", "arXiv:1711.05101", "alg. 2"
    )

    def build(self, model: nn.Module) -> Optimizers:
        """Return the optimizer over the parameters of `model`."""
        return Optimizers.over(model, (_adamw(model.parameters(), self, self.lr), self.lr))


class MuonConfig(OptimizerVariant):
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
    citation: ClassVar[Citation | None] = Citation(
        "Jordan et al. 2024", "kellerjordan.github.io/posts/muon", ""
    )

    def build(self, model: nn.Module) -> Optimizers:
        """Return both optimizers over the parameters of `model`."""
        matrices = [
            parameter
            for name, parameter in model.named_parameters()
            if name.startswith("blocks.") and parameter.ndim == 2
        ]
        taken = set(matrices)
        muon = Muon(matrices, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay)
        rest = _adamw((p for p in model.parameters() if p not in taken), self, self.adamw_lr)
        return Optimizers.over(model, (muon, self.lr), (rest, self.adamw_lr))


def _adamw(
    parameters: Iterable[nn.Parameter], config: AdamWConfig | MuonConfig, lr: float
) -> AdamW:
    betas = (config.beta1, config.beta2)
    groups = grouped(parameters, config.weight_decay)
    return AdamW(groups, lr=lr, betas=betas, eps=config.eps, fused=True)


class AdafactorConfig(OptimizerVariant):
    """Adafactor for all parameters: squared gradients of a matrix kept as a row and a column.

    PyTorch's own, whose rate of an update is `lr` times the root mean square of the parameter.
    """

    kind: Literal["adafactor"] = "adafactor"
    lr: Rate = 1e-2
    """Peak learning rate, relative to the size of each parameter."""
    beta2_decay: Annotated[float, Field(ge=-1, lt=0)] = -0.8
    """The mean of squares at step t forgets at t to this power."""
    eps: PositiveFloat = 1e-3
    """The least size of a parameter that the rate is relative to."""
    clip: Annotated[float, Field(ge=1)] = 1.0
    """Bound on the root mean square of an update before the rate."""
    weight_decay: Decay = 0.0
    """Decoupled decay of matrices and tables, times the learning rate."""
    citation: ClassVar[Citation | None] = Citation(
        "Shazeer & Stern 2018", "arXiv:1804.04235", "alg. 6"
    )

    def build(self, model: nn.Module) -> Optimizers:
        """Return the optimizer over the parameters of `model`."""
        adafactor = Adafactor(
            grouped(model.parameters(), self.weight_decay),
            lr=self.lr,
            beta2_decay=self.beta2_decay,
            eps=(None, self.eps),
            d=self.clip,
        )
        return Optimizers.over(model, (adafactor, self.lr))


@final
class Adafactor(NoDynamo, torch.optim.Adafactor):
    """PyTorch's own."""


OPTIMIZERS = Family(OptimizerVariant, (AdamWConfig, MuonConfig, AdafactorConfig))
OptimizerConfig = Annotated[OptimizerVariant, OPTIMIZERS]
