"""How a model is executed while it trains."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch

from assay.nn.attention import Kernel
from assay.nn.init import stream_seed
from assay.nn.model import GPT
from assay.train.config import TrainConfig


@dataclass(frozen=True, slots=True)
class ExecutionPlan:
    """A `TrainConfig` with all that it leaves open settled.

    Attributes:
        config: What was asked for.
        device: Where the model is.
        autocast: Whether products are taken in bfloat16.
        attention: Which kernel computes attention.
        compiled: Whether layers go through torch.compile in training.
        native: Whether the C++ kernels compute loss and gradients of a step, in place of PyTorch.
    """

    config: TrainConfig
    device: torch.device
    autocast: bool
    attention: Kernel = "fused"
    compiled: bool = False
    native: bool = False

    def precision(self) -> torch.autocast:
        """Return the context in which a forward pass runs."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.autocast)

    @property
    def graphs(self) -> bool:
        """Whether passes are recorded as a CUDA graph."""
        return self.config.backend == "graphs"

    @property
    def backend(self) -> str:
        """What computes loss and gradients."""
        return "native" if self.native else "graphs" if self.graphs else "torch"

    def dropout_seed(self, step: int, micro_batch: int) -> int:
        """Return the seed of what dropout draws at a place of the run, whose own seed is in it."""
        return stream_seed(self.config.seed, f"dropout/{step}/{micro_batch}")

    def prepare(self, model: GPT) -> None:
        """Set how `model` is executed; what it computes stays the same, to rounding."""
        model.kernel, model.recompute = self.attention, self.config.recompute
        if self.compiled:
            for block in model.blocks:  # one compilation serves all: they share their code
                block.compile(dynamic=False)

    @contextmanager
    def uncompiled(self) -> Iterator[None]:
        """Run a compiled model as written: for shapes that come once, such as an evaluation's."""
        with torch.compiler.set_stance("force_eager") if self.compiled else nullcontext():
            yield
