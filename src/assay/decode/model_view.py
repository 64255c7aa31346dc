"""A `GPT` in the structs of the kernels that decode: where its weights are, rounded.

Shapes: N outputs (or tokens), K inputs (or channels).
"""

import ctypes
from dataclasses import dataclass, field
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from assay.decode.weights import Packed, Weights, pack
from assay.native import abi
from assay.native.kinds import RMS, number_of, numbers_of, slopes_of
from assay.nn.model import GPT, ModelConfig

_KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.int8: 2}


def pack_int8(library: ctypes.CDLL, weight: Float[Tensor, "N K"]) -> Packed:
    """Round a float32 matrix on the CPU to the bits of `weights.pack`, in an eighth of the time."""
    weight = weight.detach().contiguous()
    data, scale = torch.empty(weight.shape, dtype=torch.int8), torch.empty(len(weight))
    library.assay_pack(
        weight.data_ptr(), *weight.shape, data.data_ptr(), scale.data_ptr(), torch.get_num_threads()
    )
    return Packed(data, scale)


@final
@dataclass(slots=True)
class DecodeModelView:
    """A model as the kernels read it, and what its pointers point to.

    Attributes:
        program: Without a cache and without angles: whoever has those copies it and `layers`.
        layers: What `program.layers` points to.
        embed: The token embedding.
        weight_bytes: What a step reads of the weights.
    """

    program: abi.Program
    layers: ctypes.Array[abi.Layer]
    embed: Packed
    weight_bytes: int
    _kept: list[Tensor | None] = field(default_factory=list)


def describe(model: GPT, weights: Weights, library: ctypes.CDLL) -> DecodeModelView:
    """Round the weights of a supported model and note where they are."""
    writer = _Writer(weights, library)
    layers = [writer.layer(block, model.config) for block in model.blocks]
    array = (abi.Layer * len(layers))(*layers)
    embed = writer.pack(model.embed.weight)
    head = embed if model.unembed is None else writer.pack(model.unembed.weight)
    slopes = slopes_of(model.position)
    program = abi.Program(
        layers=array,
        slopes=writer.keep(slopes),
        embed_norm=writer.norm(model.embed_norm, model.config),
        final_norm=writer.norm(model.final_norm, model.config),
        head=writer.matrix(head),
        head_factor=model.logit_factor,
        soft_cap=model.config.soft_cap or 0.0,
        **numbers_of(model.config),
    )
    return DecodeModelView(program, array, embed, writer.weight_bytes, writer.kept)


@final
class _Writer:
    """Writes structs and keeps alive what they point to."""

    def __init__(self, weights: Weights, library: ctypes.CDLL) -> None:
        self.weights: Weights = weights
        self.library = library
        self.kept: list[Tensor | None] = []
        self.weight_bytes = 0

    def keep(self, tensor: Tensor | None) -> int | None:
        self.kept.append(tensor)
        return None if tensor is None else tensor.data_ptr()

    def pack(self, weight: Tensor) -> Packed:
        if self.weights == "int8":
            return pack_int8(self.library, weight)
        return pack(weight, self.weights)

    def matrix(self, packed: Packed, bias: Tensor | None = None) -> abi.Matrix:
        self.weight_bytes += packed.nbytes
        n_out, n_in = packed.data.shape
        return abi.Matrix(
            weight=self.keep(packed.data),
            scale=self.keep(packed.scale),
            bias=self.keep(bias),
            n_out=n_out,
            n_in=n_in,
            kind=_KINDS[packed.data.dtype],
        )

    def linear(self, owner: Tensor | nn.Module, name: str) -> abi.Matrix:
        """Write a linear layer; nothing where there is none of that name, such as a gate."""
        layer = getattr(owner, name, None)
        if layer is None:
            return abi.Matrix()
        return self.matrix(self.pack(layer.weight), layer.bias)

    def norm(self, module: nn.Module | None, config: ModelConfig) -> abi.Norm:
        if module is None:
            return abi.Norm()
        return self._norm(module, number_of(config.norm))

    def _norm(self, module: nn.Module, kind: int) -> abi.Norm:
        weight, bias = (getattr(module, name, None) for name in ("weight", "bias"))
        return abi.Norm(self.keep(weight), self.keep(bias), getattr(module, "eps", 0.0), kind)

    def layer(self, block: nn.Module, config: ModelConfig) -> abi.Layer:
        mlp = {name: self.linear(block.mlp, name) for name in ("gate", "up", "down")}
        norms = {n: self.norm(getattr(block, n), config) for n in ("mixer_norm", "mlp_norm")}
        mixer = block.mixer
        if mixer is None:
            return abi.Layer(**norms, **mlp)
        for name in ("q_norm", "k_norm"):
            module = getattr(mixer, name)
            norms[name] = abi.Norm() if module is None else self._norm(module, RMS)
        projections = {n: self.linear(mixer, f"{n}_proj") for n in ("q", "k", "v", "out")}
        return abi.Layer(**norms, **projections, **mlp)
