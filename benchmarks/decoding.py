"""Decoding speed of assay beside its peers: GPT-2 small, in turns in one process.

    python benchmarks/decoding.py              one row and sixteen
    python benchmarks/decoding.py --rows 1     one row
    python benchmarks/decoding.py --only "assay fp32" "llama.cpp F32"

A visit reads a prompt of 128 tokens and writes some more: the time to the first token and the
tokens per second after it are kept apart. What is found goes to benchmarks/results/decoding-N.json.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import results
from asked import UNAVAILABLE, answered, device_of, of_device, reason
from assay.count import count
from assay.engine.bench import read_rate
from assay.presets import gpt2
from decoders import DECODERS, PROMPT_TOKENS, REFERENCE, SHAPE, Decoder, Source
from turns import spread, take_turns, tell, wait

_STEPS = {1: 32, 16: 12}
_ROUNDS = {1: 9, 16: 3}
_CHECKED = 8  # tokens that must be Hugging Face's


class Visitor:
    """Visits one decoder; keeps the seconds to the first token of every visit."""

    def __init__(self, decoder: Decoder, prompts: Tensor, n_steps: int) -> None:
        self.decoder, self.prompts, self.n_steps = decoder, prompts, n_steps
        self.first_s: list[float] = []
        self.tokens: list[Tensor] = []

    def __call__(self) -> float:
        """Return tokens per second after the first, over all rows."""
        began = time.perf_counter()
        tokens = [self.decoder.start(self.prompts)]
        wait()
        first = time.perf_counter()
        for _ in range(self.n_steps):
            tokens.append(self.decoder.step(tokens[-1]))
        wait()
        ended = time.perf_counter()
        self.first_s.append(first - began)
        self.tokens = tokens
        return self.n_steps * len(self.prompts) / (ended - first)


def measure(rows: int, names: Sequence[str], rounds: int, device: torch.device) -> None:
    """Let the decoders take turns and keep every round."""
    with tempfile.TemporaryDirectory() as folder:
        visitors, absent = _visitors(Source(device), rows, names, Path(folder))
        figures = take_turns(visitors | {"read": lambda: read_rate(device)}, rounds=rounds)
    found = {
        "rows": rows,
        "prompt_tokens": PROMPT_TOKENS,
        "read_bytes_per_s": figures.pop("read"),
        "weights": _weights_read(),
        "entrants": {
            name: {
                "tokens_per_s": speeds,
                "first_token_s": visitors[name].first_s[1:],
                "agrees": _agrees(name, visitors),
            }
            for name, speeds in figures.items()
        },
        "absent": absent,
    }
    results.keep(of_device(f"decoding-{rows}", device), found, device=str(device))
    _tell_all(found)


def _visitors(
    source: Source, rows: int, names: Sequence[str], folder: Path
) -> tuple[dict[str, Visitor], dict[str, str]]:
    """Build the decoders; return their visitors and why others are absent."""
    visitors, absent = {}, {}
    for name in names:
        entrant = DECODERS[name]
        try:
            decoder = entrant.make(source, rows, folder)
        except UNAVAILABLE as error:
            absent[name] = reason(error)
            tell(f"{name}: {absent[name]}")
            continue
        n_steps = max(1, round(entrant.n_steps * _STEPS.get(rows, 16)))
        visitors[name] = Visitor(decoder, source.prompts(rows), n_steps)
    return visitors, absent


def _weights_read() -> int:
    """Return how many weights a step multiplies with: all but the table of positions."""
    model = gpt2()
    assert model.d_model == SHAPE.d_model
    return count(model).parameters - model.max_seq_len * model.d_model


def _agrees(name: str, visitors: dict[str, Visitor]) -> float | None:
    """Return the share of the first tokens that are Hugging Face's; None for another model."""
    if not DECODERS[name].same_model or REFERENCE not in visitors:
        return None
    found, expected = (
        torch.cat(visitors[key].tokens[:_CHECKED], 1).cpu() for key in (name, REFERENCE)
    )
    return float((found == expected).float().mean())


def _tell_all(found: dict[str, Any]) -> None:
    tell(f"read {spread(found['read_bytes_per_s']).median / 1e9:.1f} GB/s")
    for name, row in found["entrants"].items():
        speed, first = spread(row["tokens_per_s"]).median, spread(row["first_token_s"]).median
        tell(f"{name:16} {speed:8.1f}/s  first {first * 1000:7.1f} ms  agrees {row['agrees']}")


def main() -> None:
    """Measure what the command line asks for."""
    ask = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    ask.add_argument("--rows", nargs="+", type=int, default=[1, 16])
    ask.add_argument("--only", nargs="+", choices=DECODERS, default=list(DECODERS))
    ask.add_argument("--rounds", type=int)
    ask.add_argument("--device", default="cpu")
    asked = ask.parse_args()
    for rows in asked.rows:
        rounds = asked.rounds or _ROUNDS.get(rows, 5)
        measure(rows, asked.only, rounds, device_of(asked.device))


if __name__ == "__main__":
    answered(main)
