"""Which settings the default recipe should have: arms that differ in named fields, paired by seed.

    ASSAY_DATA=... python benchmarks/default_recipe.py --shape char --seeds 5
    python benchmarks/default_recipe.py --shape demo --seeds 3

*char* is recipes/char_shakespeare.toml for 400 steps; *demo* is `assay train` as it is, on the
bundled Shakespeare. Every arm of a seed sees the same tokens in the same order. What is printed is
each arm's loss on the whole validation split, and its mean difference from the first arm with a
95 % interval by the paired t statistic. Rows are kept in benchmarks/results/default-recipe-*.json
as they come, and a row that is there is not trained again.
"""

import argparse
import os
import statistics
import tomllib
from pathlib import Path
from typing import Any

import torch

import results
from assay.config import RunConfig
from assay.data.prepare import Dataset, prepare
from assay.data.windows import Windows, evaluation_windows
from assay.engine.device import settle
from assay.nn.loss import next_token_loss
from assay.nn.model import GPT
from assay.schema import decode, override
from assay.train.loop import train
from turns import tell

RECIPES = Path(__file__).parents[1] / "recipes"
OLD = {"model.mixer.qk_norm": False, "train.optimizer.momentum": 0.95}
QK, M9 = {"model.mixer.qk_norm": True}, {"train.optimizer.momentum": 0.9}
ARMS: dict[str, dict[str, Any]] = {
    "old": OLD,
    "qk_norm": OLD | QK,
    "momentum 0.9": OLD | M9,
    "both": QK | M9,
    "both, momentum 0.85": QK | {"train.optimizer.momentum": 0.85},
    "both, untied": QK | M9 | {"model.tie_embeddings": False},
}
T_975 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
"""Quantiles of Student's t with n - 1 degrees of freedom (any table)."""


def config_of(shape: str) -> RunConfig:
    """Return the base of all arms."""
    if shape == "demo":
        return RunConfig()
    fields = tomllib.loads((RECIPES / "char_shakespeare.toml").read_text())
    text = Path(os.environ["ASSAY_DATA"]) / "tinyshakespeare" / "input.txt"
    return override(decode(RunConfig, fields), {"data.text": str(text), "train.steps": 400})


def loss_of(config: RunConfig, dataset: Dataset) -> float:
    """Train, and return the mean loss over the validation split, in nats a token."""
    config = override(config, {"model.vocab_size": dataset.tokenizer.vocab_size})
    seed, seq_len, rows = config.train.seed, config.seq_len, config.train.batch_size
    model = GPT.create(config.model, seed=seed)
    windows = Windows(dataset.train.ids, seq_len=seq_len, batch_size=rows, seed=seed)
    optimizers = config.train.optimizer.build(model)
    for _ in train(model, windows.batch, optimizers, settle(config.train)):
        pass
    model.eval()
    total, tokens = 0.0, 0
    with torch.inference_mode():
        for batch in evaluation_windows(dataset.val.ids, seq_len=seq_len).split(64):
            total += float(next_token_loss(model, batch)) * batch[:, 1:].numel()
            tokens += batch[:, 1:].numel()
    return total / tokens


def difference(arm: list[float], base: list[float]) -> str:
    """Return the mean paired difference and its interval, in words."""
    found = [a - b for a, b in zip(arm, base, strict=True)]
    if len(found) < 2:
        return f"{found[0]:+.4f}"
    half = T_975[len(found)] * statistics.stdev(found) / len(found) ** 0.5
    return f"{statistics.mean(found):+.4f} ± {half:.4f}"


def main() -> None:
    """Train what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=("char", "demo"), default="char")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    asked = parser.parse_args()
    base, subject = config_of(asked.shape), f"default-recipe-{asked.shape}"
    dataset = prepare(base.data)
    kept: dict[str, float] = results.kept_here(subject).get("nats", {})
    for seed in range(asked.seeds):
        for arm in asked.arms:
            if (key := f"{arm} / {seed}") not in kept:
                kept[key] = loss_of(override(base, ARMS[arm] | {"train.seed": seed}), dataset)
                results.keep(subject, {"nats": kept})
                tell(f"{key}: {kept[key]:.4f}")
    for arm in asked.arms:
        losses = [kept[f"{arm} / {seed}"] for seed in range(asked.seeds)]
        first = [kept[f"{asked.arms[0]} / {seed}"] for seed in range(asked.seeds)]
        tell(f"{arm}: {statistics.mean(losses):.4f} nats, {difference(losses, first)}")


if __name__ == "__main__":
    main()
