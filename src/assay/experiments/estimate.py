"""How long a study will take: a few steps of each arm, timed."""

from dataclasses import replace

import torch

from assay.config import RunConfig
from assay.data.prepare import prepare
from assay.engine.autotune import default_plan
from assay.engine.device import resolve_plan
from assay.errors import DivergedError
from assay.experiments.design import Design
from assay.experiments.settled import settled
from assay.nn.model import GPT
from assay.train.loop import train

_STEPS = 4  # of which the first, which pays for all that is made once, does not count
_BACKWARD = 3  # a step costs three times a forward pass
_AROUND_S = 1.0  # to read the text, to write a checkpoint and a sample


def mean_run_seconds(design: Design) -> float:
    """Return about how long a run of a design takes on one thread, the mean over its arms."""
    threads, total = torch.get_num_threads(), 0.0
    timed: dict[tuple[object, ...], float] = {}  # arms may differ in what costs no time
    torch.set_num_threads(1)
    try:
        for arm in design.arms:
            config = settled(design.config(arm, design.seeds[0]))
            train = config.train
            rows = (train.batch_size, train.micro_batches)
            shape = (config.model, config.seq_len, rows, train.optimizer.kind)
            if shape not in timed:
                timed[shape] = _step_seconds(config)
            val_tokens = len(prepare(config.data).val.ids)
            total += run_seconds(config, val_tokens=val_tokens, step_s=timed[shape])
    finally:
        torch.set_num_threads(threads)
    return total / len(design.arms)


def run_seconds(config: RunConfig, *, val_tokens: int, step_s: float | None = None) -> float:
    """Return about how long a run takes on the threads at hand: its steps and evaluations.

    Args:
        config: Its vocabulary settled.
        val_tokens: In the whole validation split.
        step_s: Seconds of a step, where they are known; else a few steps are timed.
    """
    rows = config.train.batch_size
    step_s = _step_seconds(config) if step_s is None else step_s
    every, most = config.eval.every, config.eval.max_tokens or val_tokens
    looked_at = config.train.steps // every * min(most, val_tokens)
    looked_at += min(config.eval.final_max_tokens or val_tokens, val_tokens)
    passes = looked_at / (rows * config.seq_len) / _BACKWARD
    return _AROUND_S + step_s * (config.train.steps + passes)


def _step_seconds(config: RunConfig) -> float:
    plan = default_plan(config, resolve_plan(config.train))
    plan = replace(plan, config=plan.config.model_copy(update={"steps": _STEPS}))
    width = config.seq_len + 1
    batch = torch.randint(config.model.vocab, (config.train.batch_size, width))
    model = GPT.create(config.model, seed=0, device=plan.device)
    plan.prepare(model)
    optimizers = config.train.optimizer.build(model)
    elapsed = []
    try:
        for report in train(model, lambda step: batch, optimizers, plan):
            elapsed.append(report.elapsed_s)
    except DivergedError:  # such an arm may well be what the study is about
        pass
    return min(elapsed[1:] or elapsed or [0.0])
