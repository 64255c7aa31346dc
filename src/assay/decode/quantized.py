"""A model whose matrices are rounded once and read by many generations.

packed = PackedModel(model, "bf16")
for prompts in batches:
    for step in generate(packed, prompts, sampling, options=options): ...

Weights stand as they were when the first generation read them.
"""

import ctypes
import functools
from typing import final

import torch

from assay.decode.model_view import DecodeModelView, describe
from assay.decode.weights import Weights, rounded
from assay.nn.model import GPT


@final
class QuantizedModel:
    """A model and its weights as generations read them.

    They are rounded when the first generation reads them, and stand as they were then: a model that
    is trained further must be packed anew.

    Attributes:
        weights: What matrices are rounded to. None: they stay as they are.
    """

    def __init__(self, model: GPT, weights: Weights | None = None) -> None:
        self._model, self.weights = model, weights
        self._described: DecodeModelView | None = None

    @functools.cached_property
    def model(self) -> GPT:
        """The model before its matrices are rounded; in float32, where they are to be."""
        if self.weights is None or self._model.embed.weight.dtype == torch.float32:
            return self._model
        return rounded(self._model, "fp32")

    @functools.cached_property
    def twin(self) -> GPT:
        """The model as PyTorch reads it."""
        if self.weights is None or self.weights == "fp32":
            return self.model
        return rounded(self.model, self.weights)

    def described(self, library: ctypes.CDLL) -> DecodeModelView:
        """Return the model as the kernels read it."""
        if self._described is None:
            self._described = describe(self.model, self.weights or "fp32", library)
        return self._described
