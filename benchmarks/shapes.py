"""The sizes of model and batch at which training is compared."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

_N_BATCHES = 8  # they come round


@dataclass(frozen=True, slots=True)
class Shape:
    """A GPT with an inner width of 4D, and the batch it trains on.

    Attributes:
        name: As the command line takes it.
        n_layers: L.
        d_model: D.
        n_heads: H.
        seq_len: T, in tokens.
        vocab_size: V, in tokens.
        batch_size: Sequences in a step.
    """

    name: str
    n_layers: int
    d_model: int
    n_heads: int
    seq_len: int
    vocab_size: int
    batch_size: int

    @property
    def step_tokens(self) -> int:
        """Targets in a step."""
        return self.batch_size * self.seq_len

    def batches(self, device: torch.device) -> Callable[[int], Tensor]:
        """Return the tokens of a step, (batch_size, T + 1): random, the same for every entrant."""
        draw = torch.Generator().manual_seed(0)
        size = (_N_BATCHES, self.batch_size, self.seq_len + 1)
        drawn = torch.randint(self.vocab_size, size, generator=draw).to(device)
        return lambda step: drawn[step % _N_BATCHES]

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON."""
        return asdict(self)


TINY = Shape("tiny", 6, 384, 6, 256, 65, 12)
CPU = Shape("cpu", 4, 128, 4, 64, 65, 12)
SMALL = Shape("small", 12, 768, 12, 512, 50_257, 2)  # GPT-2 small
MEDIUM_BATCH = Shape("gpu", 12, 768, 12, 1024, 50_257, 16)  # GPT-2 small as a GPU takes it
SHAPES = {shape.name: shape for shape in (TINY, CPU, SMALL, MEDIUM_BATCH)}
CPU_SHAPES, GPU_SHAPES = ("tiny", "cpu", "small"), ("gpu",)
