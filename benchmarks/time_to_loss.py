"""How long to 1.88 nats a character on tinyshakespeare: nanoGPT's CPU recipe and assay's, in turns.

    ASSAY_DATA=... python benchmarks/time_to_loss.py --seeds 5

nanoGPT's recipe is 2,000 steps of 12 x 64 characters in float32, as its README and its
config/train_shakespeare_char.py say; assay's is recipes/char_fast.toml. Both train on the first
nine tenths and are judged on every window of the last. assay takes its steps as `assay train` does
with that recipe here. Seconds are those of the training steps alone, text and judging left out.
"""

import argparse
import math
import os
import statistics
import time
import tomllib
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import results
from assay.config import RunConfig
from assay.data.prepare import Dataset, prepare
from assay.data.windows import Windows, evaluation_windows
from assay.engine.autotune import tune
from assay.engine.device import resolve_plan
from assay.nn.model import GPT
from assay.schema import decode, override
from assay.train.loop import train
from peers.nanogpt import NanoGPT
from shapes import SHAPES
from turns import tell

RECIPES = Path(__file__).parents[1] / "recipes"
GOAL_NATS = 1.88


def config_of(recipe: str, seed: int) -> RunConfig:
    """Return a recipe on the text named by ASSAY_DATA."""
    text = Path(os.environ["ASSAY_DATA"]) / "tinyshakespeare" / "input.txt"
    fields = tomllib.loads((RECIPES / recipe).read_text())
    place = {"data.text": str(text), "train.seed": seed, "train.device": "cpu"}
    return override(decode(RunConfig, fields), place)


def nanogpt(dataset: Dataset, config: RunConfig) -> tuple[nn.Module, float]:
    """Train nanoGPT's model by its recipe; return it with the seconds of its steps."""
    torch.manual_seed(config.train.seed)
    model = NanoGPT(SHAPES["cpu"])
    weights = [p for p in model.parameters() if p.ndim >= 2]
    scales = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": weights, "weight_decay": 0.1}, {"params": scales, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99))
    batch_at = windows(dataset, config)
    began = time.perf_counter()
    for step in range(1, config.train.steps + 1):
        optimizer.param_groups[0]["lr"] = optimizer.param_groups[1]["lr"] = rate(step)
        batch = batch_at(step)
        F.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return model, time.perf_counter() - began


def rate(step: int, *, steps: int = 2000, warmup: int = 100) -> float:
    """Return 1e-3 after a linear warm-up, then by cosine to 1e-4."""
    if step <= warmup:
        return 1e-3 * step / warmup
    return 1e-4 + 4.5e-4 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


def assay(dataset: Dataset, config: RunConfig) -> tuple[nn.Module, float]:
    """Train assay's recipe; return the model with the seconds of its steps."""
    vocab = {"model.vocab_size": dataset.tokenizer.vocab_size}
    config = override(config, vocab)
    model = GPT.create(config.model, seed=config.train.seed)
    optimizers = config.train.optimizer.build(model)
    plan, _ = tune(config, resolve_plan(config.train))
    steps = train(model, windows(dataset, config), optimizers, plan)
    return model, sum(report.elapsed_s for report in steps)


def windows(dataset: Dataset, config: RunConfig):  # noqa: ANN201 (a bound method)
    """Return the batch of each step."""
    return Windows(
        dataset.train.ids,
        seq_len=config.seq_len,
        batch_size=config.train.batch_size,
        seed=config.train.seed,
    ).batch


def judged(model: nn.Module, dataset: Dataset) -> float:
    """Return the mean loss over every window of 64 of the validation split, in nats."""
    model.eval()
    losses = []
    with torch.inference_mode():
        for rows in evaluation_windows(dataset.val.ids, seq_len=64).split(256):
            losses.append(_losses(model, rows))
    return float(torch.cat(losses).mean())


def _losses(model: nn.Module, rows: Tensor) -> Tensor:
    logits = model(rows[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten(), reduction="none")


def main() -> None:
    """Train both for every seed, one after the other, and keep what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--from-seed", type=int, default=0, help="to go on where an earlier left")
    asked = parser.parse_args()
    entrants = {"nanogpt": (nanogpt, "nanogpt_cpu.toml"), "assay": (assay, "char_fast.toml")}
    rows = results.kept_here("time-to-loss").get("rows", []) if asked.from_seed else []
    dataset = prepare(config_of("char_fast.toml", 0).data)
    for seed in range(asked.from_seed, asked.seeds):
        for name, (trained, recipe) in entrants.items():
            model, seconds = trained(dataset, config_of(recipe, seed))
            rows.append({"name": name, "seed": seed, "s": seconds, "nats": judged(model, dataset)})
            tell(f"{name}, seed {seed}: {seconds:.1f} s, {rows[-1]['nats']:.4f} nats")
        results.keep("time-to-loss", {"goal_nats": GOAL_NATS, "rows": rows})
    of = {name: [row for row in rows if row["name"] == name] for name in entrants}
    median = {name: statistics.median(row["s"] for row in of[name]) for name in entrants}
    reached = sum(row["nats"] <= GOAL_NATS for row in of["assay"])
    tell(
        f"assay is at {GOAL_NATS} nats or under in {reached} of {len(of['assay'])} seeds, in "
        f"{median['assay'] / median['nanogpt']:.3f} of the time of nanoGPT's recipe"
    )


if __name__ == "__main__":
    main()
