"""Loss and gradients of a batch by the C++ kernels, in place of PyTorch's passes.

The kernels (`native/training.cpp`) compute what `nn/reference.py` says, in float32 or with products
of bfloat16. Parameters and gradients stay tensors of PyTorch; the kernels are given where they are.
Bits depend neither on the number of threads nor on what other models are trained beside.

Shapes: B sequences, T1 = T + 1 tokens.
"""

import ctypes
import weakref
from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from assay.native import abi
from assay.native.build import Part, kernels
from assay.native.kinds import unknown, unsupported
from assay.nn.model import GPT, ModelConfig
from assay.train.config import TrainConfig
from assay.train.model_view import TrainModelView


def unsupported_reason(model: ModelConfig, config: TrainConfig, device: torch.device) -> str | None:
    """Return why the kernels cannot train a model, in a few words, or None."""
    if device.type != "cpu":
        return f"train.device={device}"
    if (choice := unknown(model)) is not None:
        return choice
    if config.recompute:
        return "train.recompute=true"
    part: Part = "train_bf16" if config.precision == "bf16" else "train_fp32"
    if (lack := kernels().lacks(part)) is not None:
        return lack
    if config.precision == "bf16" and not multiplies_bf16():
        return "train.precision=bf16 on a processor without products of bfloat16"
    return None


def multiplies_bf16() -> bool:
    """Return whether the kernels can train with products in bfloat16 here."""
    found = kernels()
    if found.library is None or found.lacks("train_bf16") is not None:
        return False
    return found.library.assay_bf16_products() > 0


@final
class NativeWorkspace:
    """The kernels' memory for batches of one shape and models of one architecture."""

    def __init__(self, *, bf16: bool) -> None:
        library = kernels().library
        assert library is not None, kernels().note
        self._library, self._bf16 = library, bf16
        self._shared: dict[int, int] = {}  # by threads: a pass that all of them take together
        self._single: list[int] = []  # passes of one thread each

    def together(self, job: abi.TrainingJob) -> None:
        """Let all threads do one job."""
        threads = torch.get_num_threads()
        if threads not in self._shared:
            self._shared[threads] = self._new(job, threads)
        self._library.assay_train(self._shared[threads], ctypes.byref(job), threads)

    def apart(self, jobs: Sequence[abi.TrainingJob]) -> list[float]:
        """Let each thread do one job after another; return the losses, in nats."""
        threads = min(torch.get_num_threads(), len(jobs))
        while len(self._single) < threads:
            self._single.append(self._new(jobs[0], 1))
        passes = (ctypes.c_void_p * threads)(*self._single[:threads])
        asked = (abi.TrainingJob * len(jobs))(*jobs)
        self._library.assay_train_apart(passes, threads, asked, len(jobs))
        return [job.loss for job in asked]

    def _new(self, job: abi.TrainingJob, threads: int) -> int:
        made = ctypes.c_void_p()
        self._library.assay_pass_new(job.model, self._bf16, threads, ctypes.byref(made))
        assert made.value is not None
        weakref.finalize(self, self._library.assay_pass_free, made.value)
        return made.value


@final
class NativeBackend:
    """A model with its place in memory and the passes over its batches, by their shape."""

    def __init__(self, *, bf16: bool) -> None:
        self._bf16 = bf16
        self._passes: dict[tuple[int, ...], NativeWorkspace] = {}
        self._described: dict[tuple[int, ...], TrainModelView] = {}

    def gradients(
        self, model: GPT, tokens: Int[Tensor, "B T1"], *, seed: int, pieces: int, apart: bool
    ) -> Float[Tensor, ""]:
        """Add the gradients of the mean loss of a batch over `pieces`; return that loss.

        Args:
            model: Always the same one.
            tokens: A batch.
            seed: Of dropout.
            pieces: What the loss is divided by.
            apart: Whether the gradients are to have memory that no later call writes to.
        """
        described, passes = self._ready(model, tokens, anew=apart)
        job = described.job(model, tokens, seed=seed, pieces=pieces)
        passes.together(job)
        return torch.tensor(job.loss / pieces)

    def losses(self, model: GPT, tokens: Int[Tensor, "B T1"]) -> Float[Tensor, "B T"]:
        """Return what every next token of a batch costs, in nats."""
        described, passes = self._ready(model, tokens)
        losses = torch.empty(tokens.shape[0], tokens.shape[1] - 1)
        passes.together(described.judging(tokens, losses))
        return losses

    def _ready(
        self, model: GPT, tokens: Tensor, *, anew: bool = False
    ) -> tuple[TrainModelView, NativeWorkspace]:
        shape = tuple(tokens.shape)
        described = self._described.get(shape)
        if described is None or anew or described.moved(model):
            assert unsupported(model) is None, unsupported(model)
            with torch.inference_mode(mode=False):  # its gradients outlive an evaluation
                described = self._described[shape] = TrainModelView(model, shape)
        if shape not in self._passes:
            self._passes[shape] = NativeWorkspace(bf16=self._bf16)
        return described, self._passes[shape]


_TRAINED: weakref.WeakKeyDictionary[GPT, dict[bool, NativeBackend]] = weakref.WeakKeyDictionary()


def gradients(
    model: GPT, tokens: Int[Tensor, "B T1"], *, bf16: bool, seed: int, pieces: int, apart: bool
) -> Float[Tensor, ""]:
    """Add a model's gradients; see `NativeBackend.gradients`. Memory lasts as long as the model."""
    trained = _trained(model, bf16=bf16)
    return trained.gradients(model, tokens, seed=seed, pieces=pieces, apart=apart)


def token_losses(
    model: GPT, windows: Int[Tensor, "N T1"], *, bf16: bool, rows: int
) -> Float[Tensor, "N T"]:
    """Return what every next token costs, in nats, without dropout.

    Args:
        model: Whose memory for batches of `rows` sequences is used, the last one filled up.
        windows: Token ids; each but the first of a row is a target.
        bf16: Whether products are of bfloat16.
        rows: Of a batch, best those of training.
    """
    trained, found = _trained(model, bf16=bf16), []
    for batch in torch.split(windows, rows):
        filled = batch.repeat(-(-rows // len(batch)), 1)[:rows]
        found.append(trained.losses(model, filled)[: len(batch)])
    return torch.cat(found)


def _trained(model: GPT, *, bf16: bool) -> NativeBackend:
    of_model = _TRAINED.setdefault(model, {})
    if bf16 not in of_model:
        of_model[bf16] = NativeBackend(bf16=bf16)
    return of_model[bf16]
