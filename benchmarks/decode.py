"""Where the time of decoding goes: passes, draws and drafts, by shape and kind of weights.

    python benchmarks/decode.py passes     milliseconds of a pass, and the share of memory's rate
    python benchmarks/decode.py tokens     whole steps through `generate`, both readers, one shape
    python benchmarks/decode.py drafts     tokens a pass and tokens per second with --lookup
    python benchmarks/decode.py draws      microseconds of a draw

Peers stand beside assay in decoding.py. All variants take turns in one process; figures are
medians over rounds. `drafts` needs ASSAY_DATA, whose stories260K/ it lets write.
"""

import ctypes
import itertools
import os
import statistics
import sys
import time
from collections.abc import Callable, Hashable, Mapping
from functools import partial
from pathlib import Path
from typing import get_args

import torch

from assay import presets
from assay.decode.native_model import NativeModel, TokenBatch
from assay.decode.quantized import QuantizedModel
from assay.decode.weights import Weights
from assay.generate import GenerateOptions, generate
from assay.hf.llama2c import load_llama2c
from assay.native.build import kernels
from assay.nn.model import GPT, ModelConfig
from assay.sampling import SamplingConfig, sample

SHAPES = {"GPT-2 small": presets.gpt2(), "L4 d128 V2048": ModelConfig(vocab_size=2048)}
KINDS = get_args(Weights)
PASSES = ((1, 1), (1, 4), (1, 8), (16, 1), (1, 128))  # rows, tokens of each
ROUNDS = 9


def read_rate(n_bytes: int = 1 << 28, *, rounds: int = 7) -> float | None:
    """Measure the bytes per second that all threads together read from memory; None without."""
    library = kernels().library
    if library is None:
        return None
    buffer, best, total = torch.ones(n_bytes // 4), float("inf"), ctypes.c_double()
    for _ in range(rounds):
        began = time.perf_counter()
        library.assay_read(
            buffer.data_ptr(), buffer.numel(), torch.get_num_threads(), ctypes.byref(total)
        )
        best = min(best, time.perf_counter() - began)
    return buffer.nbytes / best


def medians(variants: Mapping[Hashable, Callable[[], object]]) -> dict[Hashable, float]:
    """Return seconds of each variant; the first round warms up."""
    spent: dict[Hashable, list[float]] = {name: [] for name in variants}
    for _ in range(ROUNDS + 1):
        for name, act in variants.items():
            began = time.perf_counter()
            act()
            spent[name].append(time.perf_counter() - began)
    return {name: statistics.median(seconds[1:]) for name, seconds in spent.items()}


def feed_of(rows: int, n_tokens: int) -> TokenBatch:
    """Return a pass; of a prompt, the last token alone gives logits, of a draft every one."""
    feed = TokenBatch()
    for row in range(rows):
        wanted = 1 if n_tokens > 16 else n_tokens
        feed.add(row, 0, list(range(n_tokens)), n_wanted=wanted)
    return feed


def passes() -> None:
    """Print a table of passes."""
    print(kernels().note)
    for shape, config in SHAPES.items():
        model = GPT.create(config)
        programs = {
            kind: NativeModel(kernels(), QuantizedModel(model, kind), n_rows=16, room=128)
            for kind in KINDS
        }
        found = medians(
            {
                (kind, *size): partial(program.logits, feed_of(*size))
                for kind, program in programs.items()
                for size in PASSES
            }
        )
        rate = read_rate(rounds=20)
        assert rate is not None, kernels().note
        print(f"memory is read at {rate / 1e9:.1f} GB/s")
        for (kind, rows, n), seconds in found.items():
            share = programs[kind].weight_bytes / seconds / rate
            print(
                f"| {shape} | {kind} | {rows} x {n} | {seconds * 1e3:.2f} ms | "
                f"{rows * n / seconds:,.0f} tokens/s | {share:.0%} of the rate |"
            )


def tokens() -> None:
    """Print steps of whole generations."""
    sampling = SamplingConfig(top_k=40)
    for shape, config in SHAPES.items():
        model = GPT.create(config)
        for rows in (1, 16):
            runs = {
                (reader, kind): generate(
                    model,
                    [[1, 2, 3]] * rows,
                    sampling,
                    options=GenerateOptions(max_new_tokens=99, reader=reader, weights=kind),
                )
                for reader, kind in [("torch", "fp32"), *(("native", kind) for kind in KINDS)]
            }
            steps = {name: partial(next, run) for name, run in runs.items()}
            for (reader, kind), seconds in medians(steps).items():
                print(
                    f"| {shape} | {rows} rows | {reader} {kind} | {seconds * 1e3:.2f} ms | "
                    f"{rows / seconds:,.0f} tokens/s |"
                )


def drafts() -> None:
    """Print what drafts bring to a pretrained model that tells stories."""
    stories = Path(os.environ["ASSAY_DATA"]) / "stories260K"
    model, _ = load_llama2c(stories / "stories260K.bin", stories / "tok512.bin")
    for temperature, lookup in itertools.product((0.0, 0.5, 1.0), (0, 2, 4, 8)):
        options = GenerateOptions(max_new_tokens=400, lookup=lookup)
        sampling = SamplingConfig(temperature=temperature)
        began = time.perf_counter()
        steps = len(list(run := generate(model, [[1]], sampling, options=options)))
        rate = steps / (time.perf_counter() - began)
        print(
            f"| temperature {temperature} | lookup {lookup} | {steps / run.n_passes:.2f} steps a "
            f"pass | {rate:,.0f} tokens/s |"
        )


def draws() -> None:
    """Print what a draw costs."""
    kinds = {
        "greedy": SamplingConfig(temperature=0.0),
        "plain": SamplingConfig(),
        "top-k 40": SamplingConfig(top_k=40),
        "top-k 40, top-p 0.9": SamplingConfig(top_k=40, top_p=0.9),
        "top-p 0.9": SamplingConfig(top_p=0.9),
    }
    for vocab_size, rows in itertools.product((65, 2048, 50257), (1, 16)):
        logits, uniform = torch.randn(rows, vocab_size) * 3, torch.rand(rows).double()
        found = medians(
            {name: partial(sample, logits, config, uniform) for name, config in kinds.items()}
        )
        for name, seconds in found.items():
            print(f"| V {vocab_size} | {rows} rows | {name} | {seconds * 1e6:.0f} us |")


def main() -> None:
    """Run the parts that are named."""
    parts = {"passes": passes, "tokens": tokens, "drafts": drafts, "draws": draws}
    for name in sys.argv[1:] or parts:
        with torch.inference_mode():
            parts[name]()


if __name__ == "__main__":
    main()
