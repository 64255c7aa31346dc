"""Initial weights: the `init` field of `ModelConfig`.

Every parameter is drawn from its own generator, seeded from (seed, name). So its value does not
depend on the order of drawing, on sharding, or on which other parameters the model has: two arms of
an ablation start from equal weights wherever they share a parameter's name and shape.
"""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import PositiveFloat
from torch import Tensor, nn

from assay.citation import Citation
from assay.family import Family, Variant

_ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj")
_PACKED = ("q_proj", "k_proj", "v_proj")
_INTO_RESIDUAL = ("out_proj", "down")


@dataclass(frozen=True, slots=True)
class Slot:
    """One matrix to fill.

    Attributes:
        layer: Name of the layer that holds it, such as `q_proj`, `down`, `embed` or `table`.
        shape: (rows, columns) as stored: out × in, or vocabulary × width.
        n_layers: Depth of the model.
        packed_rows: For a query, key or value matrix, the rows of all three together.
        is_table: Whether it is looked up by row rather than multiplied with.
    """

    layer: str
    shape: tuple[int, int]
    n_layers: int
    packed_rows: int
    is_table: bool


class InitVariant(Variant):
    """How matrices and tables start: the weights of `nn.Linear` and `nn.Embedding`."""

    def draw(self, slot: Slot, generator: torch.Generator) -> Tensor:
        """Return the values of one matrix, float32 on the CPU."""
        raise NotImplementedError

    def bias_bound(self, layer: str, fan_in: int) -> float:
        """Return the half-width of the uniform distribution of a linear layer's biases."""
        return 0.0


class GaussianConfig(InitVariant):
    """All matrices and tables from N(0, std²), biases 0."""

    kind: Literal["gaussian"] = "gaussian"
    std: PositiveFloat = 0.02
    """Standard deviation."""
    citation: ClassVar[Citation | None] = Citation("the article", "docs/article.md", "section 3.2")

    def draw(self, slot: Slot, generator: torch.Generator) -> Tensor:
        """Return the values of one matrix, float32 on the CPU."""
        return _normal(slot.shape, self.std, generator)


class GPT2InitConfig(InitVariant):
    """N(0, std²), and N(0, std²/2L) for the two matrices of a layer that write to the residual."""

    kind: Literal["gpt2"] = "gpt2"
    std: PositiveFloat = 0.02
    """Standard deviation of all but the matrices that write to the residual stream."""
    citation: ClassVar[Citation | None] = Citation(
        "Radford et al. 2019", "GPT-2 report", "sec. 2.3"
    )

    def draw(self, slot: Slot, generator: torch.Generator) -> Tensor:
        """Return the values of one matrix, float32 on the CPU."""
        damping = math.sqrt(2 * slot.n_layers) if slot.layer in _INTO_RESIDUAL else 1.0
        return _normal(slot.shape, self.std / damping, generator)


class XavierConfig(InitVariant):
    """Uniform on ±√(6 / (rows + columns)) for matrices and tables alike, biases 0."""

    kind: Literal["xavier"] = "xavier"
    citation: ClassVar[Citation | None] = Citation(
        "Glorot & Bengio 2010", "AISTATS 9:249-256", "eq. 16"
    )

    def draw(self, slot: Slot, generator: torch.Generator) -> Tensor:
        """Return the values of one matrix, float32 on the CPU."""
        return _uniform(slot.shape, math.sqrt(6 / sum(slot.shape)), generator)


class TorchConfig(InitVariant):
    """What PyTorch's constructors draw: the article's appendix as written.

    Tables N(0, 1); linear layers and their biases uniform on ±1/√columns; in attention, as in
    `nn.MultiheadAttention`, Xavier over the packed query, key and value matrix, and no biases.
    """

    kind: Literal["torch"] = "torch"
    citation: ClassVar[Citation | None] = Citation("the article", "docs/article.md", "appendix A.3")

    def draw(self, slot: Slot, generator: torch.Generator) -> Tensor:
        """Return the values of one matrix, float32 on the CPU."""
        if slot.is_table:
            return _normal(slot.shape, 1.0, generator)
        if slot.layer in _PACKED:
            return _uniform(
                slot.shape, math.sqrt(6 / (slot.packed_rows + slot.shape[1])), generator
            )
        return _uniform(slot.shape, 1 / math.sqrt(slot.shape[1]), generator)

    def bias_bound(self, layer: str, fan_in: int) -> float:
        """Return the half-width of the uniform distribution of biases."""
        return 0.0 if layer in _ATTENTION else 1 / math.sqrt(fan_in)


INITS = Family(InitVariant, (GaussianConfig, GPT2InitConfig, XavierConfig, TorchConfig))
InitConfig = Annotated[InitVariant, INITS]


@dataclass(frozen=True, slots=True)
class Piece:
    """The part of a model that a parameter or buffer belongs to.

    Attributes:
        variant: Whose module it is.
        build: Builds the module anew.
        name: Of the parameter or buffer within the module.
    """

    variant: Variant
    build: Callable[[], nn.Module | None]
    name: str

    def initial(self, seed: int) -> Tensor | float:
        """Return what its variant declares, or else what the constructor of its module gives it.

        The constructor draws from a stream of its own, so that no other parameter changes it.
        """
        if (declared := self.variant.initial(self.name)) is not None:
            return declared
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.default_generator.manual_seed(seed)
            module = self.build()
        assert module is not None, "a module that has a parameter is built"
        return {**dict(module.named_parameters()), **dict(module.named_buffers())}[self.name]


@torch.no_grad()
def initialise(
    model: nn.Module,
    init: InitVariant,
    piece_of: Callable[[str], Piece],
    *,
    n_layers: int,
    seed: int,
) -> None:
    """Fill every parameter and buffer of `model`.

    Args:
        model: With memory for all of them.
        init: Draws linear layers and tables.
        piece_of: Returns the piece that another parameter or buffer belongs to.
        n_layers: Depth of the model.
        seed: Of all streams.
    """
    for name, parameter in model.named_parameters():
        owner, _, leaf = name.rpartition(".")
        module = model.get_submodule(owner)
        if not isinstance(module, nn.Linear | nn.Embedding):
            start = piece_of(name).initial(stream_seed(seed, name))
            parameter.copy_(torch.as_tensor(start))
            continue
        generator, layer = _generator(seed, name), owner.rpartition(".")[2]
        if leaf == "bias":
            bound = init.bias_bound(layer, module.weight.shape[1])
            parameter.copy_(_uniform((module.weight.shape[0],), bound, generator))
        else:
            parameter.copy_(init.draw(_slot(model, owner, n_layers), generator))
    for name, buffer in model.named_buffers():
        buffer.copy_(torch.as_tensor(piece_of(name).initial(stream_seed(seed, name))))


def blank_table(rows: int, width: int) -> nn.Embedding:
    """Return a table whose numbers are not drawn yet, but 0.

    `nn.Embedding` would draw them, for which PyTorch on the meta device imports its compiler:
    seconds at the start of every command.
    """
    table: nn.Embedding = nn.Embedding.from_pretrained(  # type: ignore[no-untyped-call]
        torch.zeros(rows, width), freeze=False
    )
    return table


def stream_seed(seed: int, name: str) -> int:
    """Return the seed of the named stream of random numbers: 63 bits of SHA-256(seed/name)."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def _generator(seed: int, name: str) -> torch.Generator:
    return torch.Generator().manual_seed(stream_seed(seed, name))


def _slot(model: nn.Module, owner: str, n_layers: int) -> Slot:
    module, (parent, _, layer) = model.get_submodule(owner), owner.rpartition(".")
    packed = 0
    if layer in _PACKED:
        beside = dict(model.get_submodule(parent).named_children())
        linear = [beside[part] for part in _PACKED if part in beside]
        packed = sum(one.get_parameter("weight").shape[0] for one in linear)
    rows, columns = module.get_parameter("weight").shape
    return Slot(layer, (rows, columns), n_layers, packed, isinstance(module, nn.Embedding))


def _normal(shape: tuple[int, ...], std: float, generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator) * std


def _uniform(shape: tuple[int, ...], bound: float, generator: torch.Generator) -> Tensor:
    return (2 * torch.rand(shape, generator=generator) - 1) * bound
