"""What a step of a short run takes by PyTorch and by the C++ kernels, in float32, in turns.

    python benchmarks/short_runs.py
    python benchmarks/short_runs.py --threads 1

Such runs are not timed before they begin: which of the two they take is a rule
(`assay.engine.autotune.default_plan`), and this is what it stands on.
"""

import argparse
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch

from asked import answered
from assay.config import RunConfig
from assay.engine.device import resolve_plan
from assay.nn.model import GPT
from assay.schema import override
from assay.train.loop import train
from turns import ratios, spread, take_turns, visit_of

_VISIT_S, _ROUNDS, _NO_END = 0.5, 5, 10**9
_HEAD = 32  # channels of a head


class Shape(NamedTuple):
    """A model and what it is trained by."""

    d_model: int
    n_layers: int
    seq_len: int
    batch_size: int
    vocab: int
    optimizer: str


SHAPES = (
    Shape(16, 1, 16, 4, 17, "muon"),
    Shape(16, 2, 16, 4, 17, "adamw"),
    Shape(32, 2, 32, 8, 65, "muon"),
    Shape(64, 2, 64, 8, 65, "adamw"),
    Shape(64, 2, 1024, 1, 256, "adamw"),
    Shape(128, 2, 32, 128, 65, "muon"),
    Shape(128, 4, 64, 12, 65, "muon"),
    Shape(128, 4, 64, 12, 2048, "muon"),
    Shape(128, 4, 256, 1, 2048, "adamw"),
    Shape(256, 6, 128, 16, 2048, "muon"),
    Shape(384, 6, 256, 4, 2048, "muon"),
    Shape(512, 4, 128, 4, 50257, "adamw"),
    Shape(512, 8, 512, 1, 50257, "muon"),
)


def measure(shape: Shape, rounds: int) -> Mapping[str, list[float]]:
    """Return the steps per second of both, a figure a round."""
    visits = {
        backend: visit_of(_stepper(shape, backend), amount=1, seconds=_VISIT_S)
        for backend in ("torch", "native")
    }
    return take_turns(visits, rounds=rounds)


def _stepper(shape: Shape, backend: str) -> Callable[[], object]:
    fields = {
        "model.vocab_size": shape.vocab,
        "model.max_seq_len": shape.seq_len,
        "model.d_model": shape.d_model,
        "model.n_layers": shape.n_layers,
        "model.mixer.n_heads": max(1, shape.d_model // _HEAD),
        "train.batch_size": shape.batch_size,
        "train.optimizer.kind": shape.optimizer,
        "train.steps": _NO_END,
        "train.device": "cpu",
        "train.precision": "fp32",
        "train.backend": backend,
    }
    config = override(RunConfig(), fields)
    plan, model = resolve_plan(config.train), GPT.create(config.model)
    batch = torch.randint(shape.vocab, (shape.batch_size, shape.seq_len + 1))
    steps = train(model, lambda step: batch, config.train.optimizer.build(model), plan)
    return lambda: next(steps)


def main() -> None:
    """Measure and print."""
    ask = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    ask.add_argument("--threads", type=int, default=torch.get_num_threads())
    ask.add_argument("--rounds", type=int, default=_ROUNDS)
    asked = ask.parse_args()
    torch.set_num_threads(asked.threads)
    for shape in SHAPES:
        found = measure(shape, asked.rounds)
        torch_ms, native_ms = (1e3 / spread(found[name]).median for name in ("torch", "native"))
        gain = ratios(found["native"], found["torch"]).median
        words = " ".join(f"{name} {value}" for name, value in shape._asdict().items())
        print(f"{words}: torch {torch_ms:.2f} ms, kernels {native_ms:.2f} ms, {gain:.2f} times")


if __name__ == "__main__":
    answered(main)
