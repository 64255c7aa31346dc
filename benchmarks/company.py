"""What training and decoding lose beside another program that takes one core.

    python benchmarks/company.py tiny
    python benchmarks/company.py decoding

A process that never rests is bound to the last of the cores that this one may use (Linux). The C++
kernels on all threads and on one fewer, and PyTorch's passes, work alone and beside it, in turns.
`decoding` writes one row by GPT-2 small with random weights, rounded to bfloat16.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import torch

from asked import answered
from assay.decode.quantized import QuantizedModel
from assay.engine.device import resolve_plan
from assay.errors import ConfigError
from assay.generate import GenerateOptions, generate
from assay.nn.model import GPT
from assay.sampling import SamplingConfig
from assay.schema import decode
from assay.train.config import TrainConfig
from assay.train.loop import train
from assay.train.optim import AdamWConfig
from entrants import default_config, gpt2_config
from shapes import CPU_SHAPES, SHAPES, SMALL
from turns import Visit, spread, take_turns, timed

DECODING = "decoding"
_VISIT_S, _ROUNDS, _NO_END = 3.0, 5, 10**9

Work = Callable[[], int]
"""Does something and returns of how many tokens."""


def measure(subject: str, rounds: int) -> dict[str, list[float]]:
    """Return the tokens per second of every way, alone and beside the other program."""
    threads = torch.get_num_threads()
    visits: dict[str, Visit] = {}
    for name, n, work in _ways(subject, threads):
        for beside in (False, True):
            how = "beside" if beside else "alone"
            visits[f"{name}, {n} threads, {how}"] = _visit(work, n, beside=beside)
    return take_turns(visits, rounds=rounds)


def _ways(subject: str, threads: int) -> Iterator[tuple[str, int, Work]]:
    """Yield a name, a number of threads and the work of each way."""
    for n in sorted({threads, max(1, threads - 1)}):
        yield "kernels", n, _writer() if subject == DECODING else _stepper(subject, "native")
    if subject != DECODING:
        yield "torch", threads, _stepper(subject, "torch")


def _writer() -> Work:
    model = GPT.create(gpt2_config(replace(SMALL, seq_len=1024)), seed=0)
    packed, options = QuantizedModel(model, "bf16"), GenerateOptions(max_new_tokens=32)
    return lambda: sum(1 for _ in generate(packed, [[0]], SamplingConfig(), options=options))


def _stepper(subject: str, backend: str) -> Work:
    shape = SHAPES[subject]
    fields = {"steps": _NO_END, "batch_size": shape.batch_size, "device": "cpu"}
    plan = resolve_plan(decode(TrainConfig, fields | {"backend": backend, "precision": "bf16"}))
    model = GPT.create(default_config(shape), seed=0)
    plan.prepare(model)
    reports = train(model, shape.batches(plan.device), AdamWConfig().build(model), plan)
    return lambda: next(reports).tokens


def _visit(work: Work, threads: int, *, beside: bool) -> Visit:
    def visit() -> float:
        torch.set_num_threads(threads)
        with _busy_core() if beside else nullcontext():
            repeats = max(1, round(_VISIT_S / timed(work, 1)))
            began = time.perf_counter()
            tokens = sum(work() for _ in range(repeats))
            return tokens / (time.perf_counter() - began)

    return visit


@contextmanager
def _busy_core() -> Iterator[None]:
    core = max(os.sched_getaffinity(0))
    endless = f"import os; os.sched_setaffinity(0, [{core}])\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", endless]) as other:
        try:
            yield
        finally:
            other.kill()


def main() -> None:
    """Measure and print."""
    ask = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    ask.add_argument("subject", choices=(*CPU_SHAPES, DECODING))
    ask.add_argument("--rounds", type=int, default=_ROUNDS)
    asked = ask.parse_args()
    if not hasattr(os, "sched_setaffinity"):
        raise ConfigError(
            f"{sys.platform} found; expected Linux, where a program can be bound to a core."
        )
    for name, found in measure(asked.subject, asked.rounds).items():
        print(f"{name:32}{spread(found).median:10,.0f} tokens/s")


if __name__ == "__main__":
    answered(main)
