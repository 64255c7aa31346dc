"""The program of the kernels' self-check: what each part computes, beside PyTorch in float64.

A child process runs it (`native/selfcheck.py`); nobody else imports it but tests.

Every size is a multiple of no vector's and no tile's, since a library errs at edges first.

Shapes: B sequences, T1 = T + 1 tokens, V vocabulary.
"""

import contextlib
import copy
import ctypes
import functools
import gc
import itertools
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from assay.decode.native_decoder import NativeDecoder
from assay.decode.options import Extent
from assay.decode.quantized import QuantizedModel
from assay.decode.weights import Weights
from assay.native import abi, build
from assay.native.build import Kernels, Part
from assay.native.selfcheck import Finding
from assay.nn.loss import next_token_loss
from assay.nn.model import GPT, ModelConfig
from assay.schema import decode
from assay.train.adamw import AdamW, norm_natively
from assay.train.model_view import TrainModelView
from assay.train.muon import Muon, orthogonalised
from assay.train.native_backend import NativeWorkspace

THREADS = 2
"""Of the kernels, where they are tried."""
Errors = Iterator[tuple[str, float, float]]
"""What was compared, the error, and its bound."""


def run(path: Path, parts: Sequence[Part], lines: int) -> None:
    """Try parts of a library, in this process, and write a line of JSON about each."""
    gc.disable()
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float32)
    kernels: Kernels | None = None
    for part in parts:
        began = time.monotonic()
        try:
            if kernels is None:
                kernels = build.loaded(path)
                build.take(kernels)
            found = CHECKS[part](kernels)
        except Exception as error:  # which the parent is to hear of, whatever it is
            found = Finding(fault=f"{type(error).__name__}: {error}"[:300])
        row = None
        if found is not None:
            found = replace(found, elapsed_s=time.monotonic() - began)
            row = asdict(found)
        os.write(lines, (json.dumps([part, row]) + "\n").encode())


def _judged(errors: Errors) -> Finding:
    """Return the largest of (what, error, bound) in proportion to its bound; NaN is a fault."""
    worst, error, bound, share = "", 0.0, 1.0, -1.0
    for what, found, allowed in errors:
        if not found <= allowed:
            words = f"{what}: error {found:.3g}, expected at most {allowed:.3g}"
            return Finding(_number(found), allowed, words)
        if found / allowed > share:
            worst, error, bound, share = what, found, allowed, found / allowed
    return Finding(error, bound) if worst else Finding(fault="nothing was tried")


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


@contextlib.contextmanager
def _on_threads() -> Iterator[None]:
    """Give the kernels several threads, and what they are compared with one, which wakes none."""
    torch.set_num_threads(THREADS)
    try:
        yield
    finally:
        torch.set_num_threads(1)


def _check_library(kernels: Kernels) -> Finding:
    """Threads are there, and numbers are read."""
    assert kernels.library is not None
    numbers, total = torch.ones(1 << 14), ctypes.c_double()
    kernels.library.assay_read(numbers.data_ptr(), len(numbers), THREADS, ctypes.byref(total))
    return _judged(iter([("a sum of ones", abs(total.value - len(numbers)), 0.5)]))


_SIZES = ((1, 16, 32), (5, 1, 33), (37, 33, 70), (48, 70, 1), (33, 17, 600), (13, 40, 1601))
"""m, n, k of products: below, at and beyond every size at which they are taken otherwise."""


def _product_errors(kernels: Kernels, *, bf16: bool) -> Errors:
    """Small whole numbers, whose sums are exact in any order, laid out in every way."""
    generator = torch.Generator().manual_seed(0)
    for m, n, k in _SIZES:
        a, b = (torch.randint(-3, 4, (rows, k), generator=generator).float() for rows in (m, n))
        for transposed, in_rows, accumulate in itertools.product((False, True), repeat=3):
            found = _product(kernels, (a, b), bf16, (transposed, in_rows, accumulate))
            expected = a.double() @ b.double().T + accumulate
            what = f"product {m} x {n} x {k}, layout {transposed:d}{in_rows:d}{accumulate:d}"
            yield what, float((found.double() - expected).abs().max()), 0.1


def _product(
    kernels: Kernels, operands: tuple[Tensor, Tensor], bf16: bool, layout: tuple[bool, bool, bool]
) -> Tensor:
    """Return A B^T, upon ones if it is to accumulate; NaN if it wrote beyond its place."""
    (a, b), (transposed, in_rows, accumulate) = operands, layout
    (m, k), n = a.shape, len(b)
    left = (a.T if transposed else a).contiguous()
    right = (b.T if in_rows else b).contiguous()
    room = torch.full((m * n + 64,), 7.0)
    room[: m * n] = 1.0
    pointers = (tensor.data_ptr() for tensor in (left, right, room))
    job = abi.ProductJob(*pointers, m, n, k, bf16, transposed, in_rows, accumulate)
    assert kernels.library is not None
    kernels.library.assay_product(ctypes.byref(job))
    return (
        room[: m * n].view(m, n)
        if bool((room[m * n :] == 7.0).all())
        else room.new_tensor(math.nan)
    )


_FAMILIES: tuple[dict[str, Any], ...] = (
    {},  # what a user gets
    {
        "position": "learned",
        "norm": "layer",
        "block": "post",
        "mlp": "gelu",
        "mixer": {"kind": "attention", "n_heads": 3, "qk_norm": False},
        "bias": True,
        "tie_embeddings": False,
    },
    {
        "position": "alibi",
        "norm": "sigma",
        "block": "parallel",
        "mlp": {"kind": "relu2", "d_ff": 37},
        "mixer": {"kind": "attention", "n_heads": 6, "n_kv_heads": 2, "window": 5},
        "soft_cap": 3.0,
    },
    {
        "position": "sinusoidal",
        "norm": {"kind": "rms", "affine": "none"},
        "block": "plain",
        "mlp": {"kind": "geglu", "d_ff": 129},
        "mixer": {"kind": "attention", "n_heads": 2, "n_kv_heads": 1, "qk_norm": True},
        "logit_scale": 0.3,
    },
    {
        "position": {"kind": "rope", "fraction": 0.5},
        "d_model": 36,
        "norm": "none",
        "mlp": {"kind": "gelu", "approximate": "tanh"},
        "mixer": {"kind": "attention", "n_heads": 3, "window": 70, "qk_norm": False},
        "bias": True,
    },
    {"position": "none", "mixer": "none", "mlp": "relu", "d_model": 35},
)
_VOCAB, _LENGTH = 65, 70  # no multiple of a vector's or a tile's width; two blocks of queries
_TOKENS = torch.randint(_VOCAB, (3, _LENGTH + 1), generator=torch.Generator().manual_seed(3))


@functools.cache
def _models() -> tuple[GPT, ...]:
    """Return a small model of each family, no weight of which stands at its start."""
    return tuple(_model_of(fields) for fields in _FAMILIES)


def _model_of(fields: dict[str, Any]) -> GPT:
    attention = {"kind": "attention", "n_heads": 3, "n_kv_heads": 3}
    shape = {"vocab_size": _VOCAB, "max_seq_len": _LENGTH, "d_model": 42, "n_layers": 2}
    config = decode(ModelConfig, shape | {"mixer": attention} | fields)
    model = GPT.create(config, seed=1, device=torch.device("cpu"))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return model


def _check_training(kernels: Kernels, *, bf16: bool) -> Finding | None:
    if bf16 and not _multiplies_bf16(kernels):
        return None
    return _judged(itertools.chain(_product_errors(kernels, bf16=bf16), _step_errors(bf16=bf16)))


def _step_errors(*, bf16: bool) -> Errors:
    """Gradients beside autograd's in float64, after a step of the same shape that is all NaN.

    Float32 rounds by 6e-8 some hundred times along two layers. In bfloat16 the kernels may err by
    half as much again as PyTorch does with products in it, and a little.
    """
    for index, model in enumerate(_models()):
        described, passes = TrainModelView(model, tuple(_TOKENS.shape)), NativeWorkspace(bf16=bf16)
        sound = model.embed.weight.detach().clone()
        for weight in (torch.full_like(sound, math.nan), sound):
            model.embed.weight.data.copy_(weight)
            model.zero_grad()
            job = described.job(model, _TOKENS, seed=0, pieces=1)
            with _on_threads():
                passes.together(job)
        ours = {name: parameter.grad for name, parameter in model.named_parameters()}
        loss, exact = _autograd(index, torch.float64)
        bound = 2e-5
        if bf16:
            bound = 1.5 * _distance(_autograd(index, torch.bfloat16)[1], exact) + 0.01
        what = f"a training step of model {index}"
        yield what, _distance(ours, exact), bound
        yield f"the loss of model {index}", abs(job.loss - loss) / loss, 0.1 * bound


@functools.cache
def _autograd(index: int, dtype: torch.dtype) -> tuple[float, dict[str, Tensor]]:
    """Return PyTorch's loss and gradients of a model, in float64 or with products in bfloat16."""
    twin = copy.deepcopy(_models()[index])
    twin.zero_grad()
    if dtype == torch.float64:
        twin = twin.double()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        loss = next_token_loss(twin, _TOKENS)
    loss.backward()  # type: ignore[no-untyped-call]
    learnt = twin.named_parameters()
    return loss.item(), {name: p.grad for name, p in learnt if p.grad is not None}


def _distance(ours: dict[str, Any], exact: dict[str, Any]) -> float:
    """Return the largest error of a gradient against its norm and a hundredth of that of all."""
    whole = torch.stack([gradient.norm() for gradient in exact.values()]).norm()
    errors = [
        (ours[name].double() - gradient).norm() / (gradient.norm() + 0.01 * whole)
        for name, gradient in exact.items()
    ]
    return float(torch.stack(errors).max())  # of a NaN among them a NaN


def _check_adamw(kernels: Kernels) -> Finding:
    return _judged(_adamw_errors())


def _adamw_errors() -> Errors:
    """Two steps beside the formula (Loshchilov & Hutter 2017, algorithm 2) in float64."""
    lr, beta1, beta2, eps, decay = 0.01, 0.9, 0.99, 1e-8, 0.1
    parameters = _parameters(((1,), (37, 65), (4100,)))
    exact = [parameter.detach().double() for parameter in parameters]
    means, squares = ([torch.zeros_like(one) for one in exact] for _ in range(2))
    ours = AdamW(parameters, lr=lr, betas=(beta1, beta2), eps=eps, weight_decay=decay, fused=True)
    for step in (1, 2):
        gradients = _give_gradients(parameters, seed=step)
        norm = torch.cat([gradient.flatten().double() for gradient in gradients]).norm()
        found = norm_natively(gradients).double()
        yield "the norm of gradients", float((found - norm).abs() / norm), 1e-5
        with _on_threads():
            ours.step_natively(scale=0.5, bf16=False)
        for weight, gradient, mean, square in zip(exact, gradients, means, squares, strict=True):
            scaled = 0.5 * gradient.double()
            mean.lerp_(scaled, 1 - beta1)
            square.lerp_(scaled**2, 1 - beta2)
            root = (square / (1 - beta2**step)).sqrt() + eps
            weight.mul_(1 - lr * decay).sub_(lr / (1 - beta1**step) * mean / root)
    for parameter, weight in zip(parameters, exact, strict=True):
        yield "AdamW", float((parameter.detach() - weight).abs().max()), 1e-5


def _parameters(shapes: Sequence[tuple[int, ...]]) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def _give_gradients(parameters: Sequence[torch.nn.Parameter], seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    gradients = [torch.randn(p.shape, generator=generator) for p in parameters]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    return gradients


def _check_muon(kernels: Kernels, *, bf16: bool) -> Finding | None:
    if bf16 and not _multiplies_bf16(kernels):
        return None
    return _judged(_muon_errors(bf16=bf16))


def _muon_errors(*, bf16: bool) -> Errors:
    """Directions of a step beside float64's, for wide, tall and square matrices.

    Five iterations from a random matrix carry a rounding of 2^-24 on to under 1e-3; in bfloat16 the
    smallest singular values are not resolved, and directions differ by some hundredths of all.
    """
    shapes = ((37, 70), (70, 37), (33, 33), (5, 1), (64, 200))
    parameters = _parameters(shapes)
    before = [parameter.detach().clone() for parameter in parameters]
    gradients = _give_gradients(parameters, 1)
    muon = Muon(parameters, lr=1.0, momentum=0.0, weight_decay=0.0)
    with _on_threads():
        muon.step_natively(scale=1.0, bf16=bf16)
    for parameter, was, gradient in zip(parameters, before, gradients, strict=True):
        expected = orthogonalised(gradient.double()[None])[0]
        rate = 0.2 * math.sqrt(max(gradient.shape))
        found = (was.double() - parameter.detach().double()) / rate
        error = float((found - expected).norm() / expected.norm())
        yield f"Muon of {tuple(gradient.shape)}", error, 0.1 if bf16 else 1e-3


def _check_decoding(kernels: Kernels, *, weights: Weights) -> Finding:
    return _judged(_decoding_errors(kernels, weights))


def _decoding_errors(kernels: Kernels, weights: Weights) -> Errors:
    """Logits of texts of unequal length, at once and then token by token, beside float64's.

    Entries that meet rounded weights are rounded too, in bfloat16 by 2^-9 of each.
    """
    generator = torch.Generator().manual_seed(5)
    texts = torch.randint(_VOCAB, (3, 32), generator=generator)
    rounding = {"fp32": 1e-4, "bf16": 24 * 2**-9, "int8": 24 * 2**-15 + 1e-4}[weights]
    for index, model in enumerate(_models()):
        packed = QuantizedModel(model, weights)
        extent = Extent(n_samples=1, longest=32, context=32)
        reader = NativeDecoder(kernels, packed, len(texts), extent)
        with torch.no_grad():
            all_logits = copy.deepcopy(packed.twin).double()(texts)
        for lengths in ((30, 1, 17), (31, 2, 18), (32, 3, 19)):
            parts = [text[:n].tolist() for text, n in zip(texts, lengths, strict=True)]
            with _on_threads():
                found = reader.logits(range(3), parts, [[]] * 3)
            expected = torch.stack([all_logits[row, n - 1] for row, n in enumerate(lengths)])
            error = float((found.double() - expected).abs().max() / expected.abs().max())
            yield f"logits of model {index}", error, rounding


def _multiplies_bf16(kernels: Kernels) -> bool:
    assert kernels.library is not None
    return bool(kernels.library.assay_bf16_products())


CHECKS: dict[Part, Callable[[Kernels], Finding | None]] = {
    "library": _check_library,
    "train_fp32": lambda kernels: _check_training(kernels, bf16=False),
    "train_bf16": lambda kernels: _check_training(kernels, bf16=True),
    "adamw": _check_adamw,
    "muon_fp32": lambda kernels: _check_muon(kernels, bf16=False),
    "muon_bf16": lambda kernels: _check_muon(kernels, bf16=True),
    "decode_fp32": lambda kernels: _check_decoding(kernels, weights="fp32"),
    "decode_bf16": lambda kernels: _check_decoding(kernels, weights="bf16"),
    "decode_int8": lambda kernels: _check_decoding(kernels, weights="int8"),
}
