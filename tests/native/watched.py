"""Runs kernels in a process that is watched: by sanitizers, or by pages that nobody may touch.

python watched.py LIBRARY check      the self-check, and operands that end where memory does
python watched.py LIBRARY trespass   reads a number beyond a tensor, to be ended for it

Prints what the kernels are, and what is wrong; ends with a status then.
"""

import ctypes
import itertools
import sys
from pathlib import Path

import torch

from assay.decode import native_model
from assay.engine.kernel_parts import CHECKS, _models
from assay.native import abi, build
from assay.nn.loss import next_token_loss
from assay.train import model_view
from assay.train.native_backend import token_losses

SIZES = ((1, 1, 1), (5, 1, 33), (37, 33, 70), (48, 70, 1), (17, 129, 31), (33, 15, 600))
"""m, n, k."""


class Caches(list):
    """Keys and values of each layer, each a tensor of its own."""

    nbytes = 0


def keep_operands_apart():
    """Give each gradient and each layer's keys and values memory of their own, against a page."""
    model_view._room_for = lambda parameters: {
        p.data_ptr(): torch.zeros_like(p, requires_grad=False) for p in parameters
    }
    whole_cache = native_model._cache

    def cache(model, n_rows, room):
        whole = whole_cache(model, n_rows, room)
        if whole is None:
            return None
        return Caches([half.clone() for half in layer] for layer in whole)

    native_model._cache = cache


def check_products(library):
    """Products of whole numbers, whose operands and results end where their memory does."""
    generator = torch.Generator().manual_seed(0)
    kinds = range(1 + bool(library.assay_bf16_products()))
    for m, n, k in SIZES:
        a, b = (torch.randint(-3, 4, (rows, k), generator=generator).float() for rows in (m, n))
        for bf16, turned, rows, add in itertools.product(kinds, *[(0, 1)] * 3):
            left, right = ((x.T if flag else x).clone() for x, flag in ((a, turned), (b, rows)))
            left, right, found = left.contiguous(), right.contiguous(), torch.ones(m, n)
            pointers = (tensor.data_ptr() for tensor in (left, right, found))
            job = abi.ProductJob(*pointers, m, n, k, bf16, turned, rows, add)
            library.assay_product(ctypes.byref(job))
            assert torch.equal(found, a @ b.T + add), (m, n, k, bf16, turned, rows, add)


def check_losses():
    """What each token costs, which the self-check does not ask for."""
    tokens = torch.randint(65, (2, 37), generator=torch.Generator().manual_seed(0))
    for model in _models():
        with torch.no_grad():
            mean = next_token_loss(model, tokens)
            assert abs(token_losses(model, tokens, bf16=False, rows=2).mean() - mean) < 1e-4


def check(kernels):
    keep_operands_apart()
    for part, of_part in CHECKS.items():
        if (found := of_part(kernels)) is not None and found.fault:
            sys.exit(f"{part}: {found.fault}")
    check_products(kernels.library)
    check_losses()


def trespass(kernels):
    """Let a product have one number less of B than it is told of."""
    a, b, c = torch.ones(5, 7), torch.ones(5 * 7 - 1), torch.ones(5, 5)
    job = abi.ProductJob(a.data_ptr(), b.data_ptr(), c.data_ptr(), 5, 5, 7, 0, 0, 0, 0)
    kernels.library.assay_product(ctypes.byref(job))


def main(path, what):
    torch.set_num_threads(1)
    kernels = build.loaded(Path(path))
    build.take(kernels)
    print(kernels.note, flush=True)
    {"check": check, "trespass": trespass}[what](kernels)


if __name__ == "__main__":
    main(*sys.argv[1:])
