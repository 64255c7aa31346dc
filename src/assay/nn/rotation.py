"""By which angles queries and keys are turned: what rotary embeddings share.

Shapes: P either 1 or B, B batch, H heads, T tokens, K width of one head, R turned channels of it.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Rotation:
    """The angles of one forward pass, computed once and shared by all layers.

    Channels i and i + R/2 of the R turned ones are a pair (x, y), which becomes
    (x cos - y sin, y cos + x sin): what every channel keeps of itself and what it takes of its
    partner.

    Attributes:
        own: Cosine of each channel's pair.
        partner: Its sine, negated in the first half of the channels.
    """

    own: Float[Tensor, "P 1 T R"]
    partner: Float[Tensor, "P 1 T R"]

    @classmethod
    def by(cls, angles: Float[Tensor, "P T R2"], dtype: torch.dtype) -> "Rotation":
        """Return the rotation by one angle a pair."""
        cos, sin = angles[:, None].cos().to(dtype), angles[:, None].sin().to(dtype)
        return cls(torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1))

    @property
    def cos(self) -> Float[Tensor, "P 1 T R2"]:
        """Cosine of each pair."""
        return self.own.chunk(2, dim=-1)[0].contiguous()

    @property
    def sin(self) -> Float[Tensor, "P 1 T R2"]:
        """Sine of each pair."""
        return self.partner.chunk(2, dim=-1)[1].contiguous()

    def __call__(self, q_or_k: Float[Tensor, "B H T K"]) -> Float[Tensor, "B H T K"]:
        """Turn the first R channels of each head in the dtype of the angles; keep the rest."""
        width = self.own.shape[-1]
        wide = q_or_k[..., :width].to(self.own.dtype)
        x, y = wide.chunk(2, dim=-1)
        turned = torch.addcmul(wide * self.own, torch.cat((y, x), -1), self.partner)
        turned = turned.to(q_or_k.dtype)
        return turned if width == q_or_k.shape[-1] else torch.cat((turned, q_or_k[..., width:]), -1)


def angles_of(positions: Int[Tensor, "P T"], *, width: int, base: float) -> Float[Tensor, "P T R"]:
    """Return `position * base**(-2i/width)` in radians for i = 0 ... ceil(width/2) - 1."""
    wide = torch.float32 if positions.device.type == "mps" else torch.float64
    exponent = torch.arange(0, width, 2, device=positions.device, dtype=wide) / width
    return positions[..., None].to(wide) * base**-exponent
