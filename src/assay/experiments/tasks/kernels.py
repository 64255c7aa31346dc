"""Attention by hand beside the kernels of the models: numbers, bytes, seconds."""

from collections.abc import Callable
from typing import Annotated, ClassVar, Literal, final

import torch
from jaxtyping import Float
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from assay.experiments.tasks.task import Task, Values
from assay.measure.attention import ArticleAttention, Heads, by_hand, by_kernel, random_heads
from assay.measure.cost import Prepared, Work, interleaved_seconds
from assay.measure.memory import Memory, training_memory
from assay.nn.model import GPT, ModelConfig
from assay.nn.reference import reference_logits
from assay.runs.run import Run

Way = Literal["by-hand", "fused", "blocks"]
WAYS: tuple[Way, ...] = ("by-hand", "fused", "blocks")
Lengths = Annotated[tuple[PositiveInt, ...], Field(strict=False)]
Attention = Callable[[Heads, Heads, Heads], Heads]

_ATTENTIONS: dict[Way, Attention] = {
    "by-hand": by_hand,
    "fused": lambda q, k, v: by_kernel(q, k, v, "fused"),
    "blocks": lambda q, k, v: by_kernel(q, k, v, "blocks"),
}


@final
class ModelEquality(Task):
    """How far a model's logits are from those of its readable twin, `nn/reference.py`."""

    kind: Literal["model-equality"] = "model-equality"
    model: ModelConfig
    """Its vocabulary known."""
    seq_len: PositiveInt
    seed: int
    """Of weights and tokens."""

    def take(self, runs: tuple[Run, ...]) -> Values:
        """Compare in float64, with each kernel, and in float32."""
        draw = torch.Generator().manual_seed(self.seed)
        tokens = torch.randint(self.model.vocab, (1, self.seq_len), generator=draw)
        model = GPT.create(self.model, seed=self.seed).eval()
        truth = reference_logits(model, tokens)  # of the float32 weights, in float64
        found = {"scale": float(truth.abs().max())}
        with torch.no_grad():
            found["float32"] = _farthest(model(tokens), truth)
            model.double()
            for kernel in ("fused", "blocks"):
                model.kernel = kernel
                found[kernel] = _farthest(model(tokens), truth)
        return found


@final
class KernelErrors(Task):
    """How far each way is in float32 from attention by hand in float64."""

    kind: Literal["kernel-errors"] = "kernel-errors"
    heads: PositiveInt
    seq_len: PositiveInt
    d_head: PositiveInt
    seed: int
    """Of queries, keys and values: standard normal."""

    def take(self, runs: tuple[Run, ...]) -> Values:
        """Compare output and gradients together, by root mean square."""
        shape = (1, self.heads, self.seq_len, self.d_head)
        exact = _with_gradients(by_hand, random_heads(shape, torch.float64, seed=self.seed))
        found: dict[str, float] = {}
        for way in WAYS:
            rounded = random_heads(shape, torch.float32, seed=self.seed)
            numbers = _with_gradients(_ATTENTIONS[way], rounded)
            found[way] = float((numbers.double() - exact).square().mean().sqrt())
        return found


@final
class AttentionMemory(Task):
    """Bytes of a forward and backward pass through attention alone, at several lengths."""

    kind: Literal["attention-memory"] = "attention-memory"
    heads: PositiveInt
    d_head: PositiveInt
    seq_lens: Lengths

    def take(self, runs: tuple[Run, ...]) -> Values:
        """Count every tensor, of each way and of `nn.MultiheadAttention` called in two ways."""
        found: dict[str, list[Memory]] = {}
        for way in WAYS:
            found[way] = [self._of_way(way, n) for n in self.seq_lens]
        for name, need in (("as-called", True), ("without-weights", False)):
            found[name] = [self._of_module(n, need_weights=need) for n in self.seq_lens]
        return {
            name: {"saved": [m.saved for m in memories], "peak": [m.peak for m in memories]}
            for name, memories in found.items()
        }

    def _of_way(self, way: Way, n_tokens: int) -> Memory:
        heads = random_heads((1, self.heads, n_tokens, self.d_head), torch.float32, seed=0)
        return training_memory(nn.Identity(), lambda: _ATTENTIONS[way](*heads).sum())

    def _of_module(self, n_tokens: int, *, need_weights: bool) -> Memory:
        module = ArticleAttention(self.heads * self.d_head, self.heads, need_weights=need_weights)
        x = torch.zeros(1, n_tokens, self.heads * self.d_head)
        return training_memory(module, lambda: module(x).sum())


@final
class AttentionSeconds(Task):
    """Seconds of a forward and backward pass through attention alone, ways taking turns."""

    kind: Literal["attention-seconds"] = "attention-seconds"
    timed: ClassVar[bool] = True
    heads: PositiveInt
    d_head: PositiveInt
    seq_lens: Lengths
    rounds: PositiveInt

    def take(self, runs: tuple[Run, ...]) -> Values:
        """Time every way at every length once a round."""
        points = [self._prepared(way, n) for way in WAYS for n in self.seq_lens]
        seconds = interleaved_seconds(points, rounds=self.rounds)
        n = len(self.seq_lens)
        return {
            way: seconds[:, place * n : (place + 1) * n].tolist() for place, way in enumerate(WAYS)
        }

    def _prepared(self, way: Way, n_tokens: int) -> Prepared:
        heads = random_heads((1, self.heads, n_tokens, self.d_head), torch.float32, seed=0)

        def prepare() -> Work:
            return lambda: _with_gradients(_ATTENTIONS[way], heads)

        return prepare


def _with_gradients(attention: Attention, heads: list[Heads]) -> Float[Tensor, "4 B H T K"]:
    """Return the output, and the gradients of the sum of its squares."""
    out = attention(*heads)
    gradients = torch.autograd.grad(out.square().sum(), heads)
    return torch.stack((out.detach(), *gradients))


def _farthest(found: Tensor, truth: Tensor) -> float:
    return float((found.double() - truth).abs().max())
