"""What training loses beside another program that takes one core.

    python benchmarks/company.py --shape tiny

A process that never rests is bound to the last of the cores that this one may use (Linux). The C++
kernels on all threads and on one fewer, and PyTorch's passes, train alone and beside it, in turns.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch

from asked import answered
from assay.engine.device import settle
from assay.nn.model import GPT
from assay.schema import decode
from assay.train.config import TrainConfig
from assay.train.loop import train
from assay.train.optim import AdamWConfig
from entrants import default_config
from shapes import CPU_SHAPES, SHAPES, Shape
from turns import Visit, spread, take_turns, timed

_VISIT_S, _ROUNDS, _NO_END = 3.0, 5, 10**9


def measure(shape: Shape, rounds: int) -> dict[str, list[float]]:
    """Return the tokens per second of every way, alone and beside the other program."""
    threads = torch.get_num_threads()
    ways = {f"kernels, {n} threads": ("native", n) for n in {threads, max(1, threads - 1)}}
    ways[f"torch, {threads} threads"] = ("torch", threads)
    visits: dict[str, Visit] = {}
    for name, (backend, n) in ways.items():
        step = _stepper(shape, backend, n)
        visits[f"{name}, alone"] = _visit(shape, step, beside=False)
        visits[f"{name}, beside"] = _visit(shape, step, beside=True)
    return take_turns(visits, rounds=rounds)


def _stepper(shape: Shape, backend: str, threads: int) -> Callable[[], object]:
    fields = {"steps": _NO_END, "batch_size": shape.batch_size, "device": "cpu"}
    plan = settle(decode(TrainConfig, fields | {"backend": backend, "precision": "bf16"}))
    model = GPT.create(default_config(shape), seed=0)
    plan.prepare(model)
    reports = train(model, shape.batches(plan.device), AdamWConfig().build(model), plan)

    def step() -> None:
        torch.set_num_threads(threads)
        next(reports)

    return step


def _visit(shape: Shape, step: Callable[[], object], *, beside: bool) -> Visit:
    def visit() -> float:
        with _busy_core() if beside else nullcontext():
            repeats = max(1, round(_VISIT_S / timed(step, 1)))
            return shape.step_tokens * repeats / timed(step, repeats)

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
    ask.add_argument("--shape", choices=CPU_SHAPES, default="tiny")
    ask.add_argument("--rounds", type=int, default=_ROUNDS)
    asked = ask.parse_args()
    for name, found in measure(SHAPES[asked.shape], asked.rounds).items():
        print(f"{name:32}{spread(found).median:10,.0f} tokens/s")


if __name__ == "__main__":
    answered(main)
