"""Tokens per second of training: float32 against bfloat16, the fused kernel against products.

    python benchmarks/step_speed.py

Every variant takes turns in one process, so that a machine that slows down slows all of them; the
figure is the median over rounds. Repeat it under OMP_NUM_THREADS=1, OMP_WAIT_POLICY=PASSIVE or
GOMP_SPINCOUNT=1000 to see what those change.
"""

import itertools
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from assay import presets
from assay.nn import mixer
from assay.nn.mixer import Context
from assay.nn.model import GPT, ModelConfig
from assay.schema import override
from assay.train.config import TrainConfig
from assay.train.loop import Plan, train
from assay.train.optim import AdamWConfig

MID = {"d_model": 256, "n_layers": 6, "mixer.n_heads": 8, "vocab_size": 4096}
SHAPES = {  # model, sequences, tokens
    "L4 d128 T64 V65": (override(presets.nanogpt_char(), {"vocab_size": 65}), 12, 64),
    "L4 d128 T256 V2048": (ModelConfig(vocab_size=2048), 16, 256),
    "L6 d256 T256 V4096": (override(ModelConfig(), MID), 16, 256),
}
ROUNDS, STEPS = 5, 4
FUSED = mixer.attend


def products(q: Tensor, k: Tensor, v: Tensor, context: Context, *, dropout: float = 0.0) -> Tensor:
    """Attention as two matrix products and a softmax, for the causal mask alone."""
    future = torch.full((q.shape[2], k.shape[2]), -torch.inf, dtype=q.dtype).triu(1)
    return ((q * q.shape[-1] ** -0.5) @ k.mT + future).softmax(-1) @ v


def stepper(config: ModelConfig, batch: Tensor, *, autocast: bool) -> Callable[[], None]:
    """Return a function that takes a few steps of a model of its own."""
    model = GPT.create(config)
    settings = TrainConfig(steps=10**6, batch_size=batch.shape[0])
    plan = Plan(settings, torch.device("cpu"), autocast)
    steps = train(model, lambda step: batch, AdamWConfig().build(model), plan)
    return lambda: list(itertools.islice(steps, STEPS)) and None


def main() -> None:
    """Print a table."""
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    for name, (config, rows, seq_len) in SHAPES.items():
        batch = torch.randint(config.vocab, (rows, seq_len + 1))
        variants = {
            (precision, kernel): stepper(config, batch, autocast=precision == "bf16")
            for precision in ("fp32", "bf16")
            for kernel in ("fused", "products")
        }
        speeds: dict[tuple[str, str], list[float]] = {variant: [] for variant in variants}
        for _ in range(ROUNDS + 1):
            for variant, take_steps in variants.items():
                mixer.attend = products if variant[1] == "products" else FUSED
                began = time.perf_counter()
                take_steps()
                elapsed = time.perf_counter() - began
                speeds[variant].append(STEPS * rows * seq_len / elapsed)
        cells = [f"{p} {k} {statistics.median(s[1:]):,.0f}" for (p, k), s in speeds.items()]
        print(f"{name}: {'; '.join(cells)} tokens/s", flush=True)


if __name__ == "__main__":
    main()
