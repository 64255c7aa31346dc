"""A model in the structs of the kernels that train: where its weights and gradients are.

Shapes: B sequences, T1 = T + 1 tokens, D model width.
"""

import ctypes
from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from assay.native import abi
from assay.native.kinds import RMS, number_of, numbers_of, slopes_of
from assay.nn.model import GPT
from assay.train.cached_parameters import cached_parameters

_LINE = 16  # numbers in a line of the cache, at whose beginning each gradient begins


@final
class TrainModelView:
    """The structs of one model and one shape of batch, and the gradients they point to.

    All gradients lie in one tensor, so that no step allocates them anew.
    """

    def __init__(self, model: GPT, shape: Sequence[int]) -> None:
        self._places = _places(model)
        self._gradients = _room_for(cached_parameters(model))
        self._kept: list[Tensor] = []
        self._tokens: Tensor | None = None
        n_rows, seq_len = shape[0], shape[1] - 1
        layers = [self._layer(block, model) for block in model.blocks]
        self._layers = (abi.TrainedLayer * len(layers))(*layers)
        head, d_head = model.output_matrix, self._gradient(model.output_matrix)
        kind = number_of(model.config.norm)
        self._struct = abi.TrainedModel(
            layers=self._layers,
            embed_norm=self._norm(model.embed_norm, kind),
            final_norm=self._norm(model.final_norm, kind),
            embed=model.embed.weight.data_ptr(),
            d_embed=self._gradient(model.embed.weight),
            head=abi.TrainedLinear(head.data_ptr(), None, d_head, None, *head.shape),
            head_factor=model.logit_factor,
            soft_cap=model.config.soft_cap or 0.0,
            vocab=model.config.vocab,
            tied=model.config.tied,
            n_rows=n_rows,
            seq_len=seq_len,
            **self._positions(model, seq_len),
            **numbers_of(model.config),
        )

    def moved(self, model: GPT) -> bool:
        """Return whether a parameter is no longer where it was."""
        return self._places != _places(model)

    def job(
        self, model: GPT, tokens: Int[Tensor, "B T1"], *, seed: int, pieces: int
    ) -> abi.TrainingJob:
        """Return the job of a batch, whose gradients become those of the parameters.

        They are added to those that stand there, if all parameters have them from here.

        Args:
            model: The one described.
            tokens: A batch.
            seed: Of dropout, below 2^64.
            pieces: What the loss is divided by.
        """
        own = self._gradients.values()
        pairs = list(zip(cached_parameters(model), own, strict=True))
        add = all(parameter.grad is gradient for parameter, gradient in pairs)
        for parameter, gradient in pairs:
            parameter.grad = gradient
        job = self._asked(tokens, scale=1 / pieces, add=add)
        job.seed, job.dropout = seed, model.config.dropout
        job.mixer_dropout = model.config.attention_dropout
        return job

    def judging(self, tokens: Int[Tensor, "B T1"], losses: Float[Tensor, "B T"]) -> abi.TrainingJob:
        """Return the job of writing what every next token of a batch costs, in nats."""
        return self._asked(tokens, scale=1.0, losses=losses.data_ptr())

    def _asked(
        self, tokens: Tensor, *, scale: float, add: bool = False, losses: int | None = None
    ) -> abi.TrainingJob:
        low, high = (int(bound) for bound in tokens.aminmax())
        if low < 0 or high >= self._struct.vocab:  # the kernels would read beyond the embedding
            raise IndexError(
                f"tokens from {low} to {high} found; expected ids from 0 to "
                f"{self._struct.vocab - 1}, the vocabulary of the model."
            )
        self._tokens = tokens.to(torch.int32).contiguous()
        model, where = ctypes.pointer(self._struct), self._tokens.data_ptr()
        return abi.TrainingJob(model, where, scale, add, 0.0, losses)

    def _gradient(self, parameter: Tensor | None) -> int | None:
        return None if parameter is None else self._gradients[parameter.data_ptr()].data_ptr()

    def _keep(self, tensor: Tensor | None) -> int | None:
        if tensor is None:
            return None
        self._kept.append(tensor)
        return tensor.data_ptr()

    def _weights(self, module: nn.Module) -> tuple[int | None, ...]:
        """Return where weight, bias and the gradients of both are."""
        both = [getattr(module, name, None) for name in ("weight", "bias")]
        places = [None if p is None else p.data_ptr() for p in both]
        return (*places, *(self._gradient(p) for p in both))

    def _norm(self, module: nn.Module | None, kind: int) -> abi.TrainedNorm:
        if module is None:
            return abi.TrainedNorm()
        return abi.TrainedNorm(*self._weights(module), getattr(module, "eps", 0.0), kind)

    def _linear(self, owner: Tensor | nn.Module, name: str) -> abi.TrainedLinear:
        """Describe a linear layer; nothing where there is none of that name, such as a gate."""
        layer = getattr(owner, name, None)
        if layer is None:
            return abi.TrainedLinear()
        return abi.TrainedLinear(*self._weights(layer), *layer.weight.shape)

    def _layer(self, block: nn.Module, model: GPT) -> abi.TrainedLayer:
        kind = number_of(model.config.norm)
        mlp = {name: self._linear(block.mlp, name) for name in ("gate", "up", "down")}
        norms = {n: self._norm(getattr(block, n), kind) for n in ("mixer_norm", "mlp_norm")}
        mixer = block.mixer
        if mixer is None:
            return abi.TrainedLayer(**norms, **mlp)
        for name in ("q_norm", "k_norm"):
            norms[name] = self._norm(getattr(mixer, name), RMS)
        projections = {n: self._linear(mixer, f"{n}_proj") for n in ("q", "k", "v", "out")}
        return abi.TrainedLayer(**norms, **projections, **mlp)

    def _positions(self, model: GPT, seq_len: int) -> dict[str, int | None]:
        """Return what positions add to embeddings, by which angles they turn, and slopes."""
        position, columns = model.position, torch.arange(seq_len)[None]
        fields = {"slopes": self._keep(slopes_of(position))}
        zeros = torch.zeros(1, seq_len, model.config.d_model)
        if (table := position.learned_vectors()) is not None:
            fields |= {"added": table.data_ptr(), "d_added": self._gradient(table)}
        elif (vectors := position.embed(zeros, columns)) is not zeros:
            fields |= {"added": self._keep(vectors.contiguous())}
        if (rotation := position.rotation(columns, torch.float32)) is not None:
            cos, sin = rotation.cos, rotation.sin
            fields |= {"cos": self._keep(cos), "sin": self._keep(sin), "n_pairs": cos.shape[-1]}
        return fields


def _places(model: GPT) -> list[int]:
    return [parameter.data_ptr() for parameter in cached_parameters(model)]


def _room_for(parameters: Sequence[nn.Parameter]) -> dict[int, Tensor]:
    """Return a gradient of zeros for each parameter, by the parameter's place."""
    sizes = [-(-parameter.numel() // _LINE) * _LINE for parameter in parameters]
    room = torch.split(torch.zeros(sum(sizes)), sizes)
    return {
        p.data_ptr(): part[: p.numel()].view(p.shape)
        for p, part in zip(parameters, room, strict=True)
    }
