"""Looks inside a model, taken of a real run of a few steps."""

import json
import math
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from assay.evaluate.loss import evaluate
from assay.experiments.claims.bases import base
from assay.experiments.records import finite
from assay.experiments.tasks import read_task
from assay.experiments.tasks.inside import (
    DepthAtStart,
    LoseQKV,
    TrainedSoftmax,
    UntrainedSoftmax,
    WeightShapes,
)
from assay.experiments.tasks.norms import NormScales, NormSeconds
from assay.nn.model import GPT, ModelConfig
from assay.nn.norm import LayerNormConfig, RMSNormConfig
from assay.runs.run import Run
from assay.schema import override

CONFIG = base("quick", changes={"train.steps": 3, "eval.every": 3, "eval.final_max_tokens": 1024})
MODEL = override(ModelConfig(), {"vocab_size": 85, "d_model": 32, "n_layers": 2, "init": "gpt2"})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The quick base, trained for three steps."""
    made = Run.create(CONFIG, tmp_path_factory.mktemp("run") / "run")
    for _ in made.train():
        pass
    return made


def tasks():
    return [
        TrainedSoftmax(run=CONFIG, tokens=512),
        WeightShapes(run=CONFIG),
        LoseQKV(run=CONFIG, tokens=512, text_tokens=8),
        UntrainedSoftmax(model=MODEL, seed=1, sequences=2, seq_len=16),
        DepthAtStart(model=MODEL, seed=1, sequences=2, seq_len=16),
        NormScales(sigmas=(1e-3, 1.0), eps=1e-5),
    ]


@pytest.mark.parametrize("task", tasks(), ids=lambda task: task.kind)
def test_a_look_repeats_to_the_bit_and_can_be_written_down(run, task):
    values = finite(task.take((run,)))
    assert json.loads(json.dumps(values)) == finite(task.take((run,)))
    assert read_task(task.model_dump_json()) == task


def test_what_a_run_is_needed_for_is_named():
    assert [len(task.needs) for task in tasks()] == [1, 1, 1, 0, 0, 0]


def test_the_intact_loss_is_that_of_the_evaluation(run):
    """Float32 means over 512 targets, summed in another order: under 1e-5 of their size."""
    task = LoseQKV(run=CONFIG, tokens=512, text_tokens=8)
    values = task.take((run,))
    model, _ = run.load()
    expected = evaluate(model, task.windows(run), np.ones(85), nullcontext)
    assert values["intact"] == pytest.approx(expected.loss_nats, rel=1e-5)
    assert {part: len(values[part]["layers"]) for part in "qkv"} == {"q": 2, "k": 2, "v": 2}
    assert values["v"]["all"] != values["intact"] != values["v"]["layers"][0]
    assert len(values["text"]) == 8


def test_weights_are_those_at_the_start_and_those_at_the_end(run):
    values = WeightShapes(run=CONFIG).take((run,))
    model, _ = run.load()
    started = GPT.create(run.config.model, seed=CONFIG.train.seed)
    for state, gpt in (("untrained", started), ("trained", model)):
        found = values[state]["q"][1]["std"]
        assert found == pytest.approx(
            float(gpt.blocks[1].mixer.q_proj.weight.detach().double().std(correction=0))
        )
    assert values["untrained"]["q"][1]["std"] == pytest.approx(0.02, rel=5 / math.sqrt(2 * 32**2))
    assert values["untrained"]["q"] != values["trained"]["q"]


def test_another_seed_draws_other_weights_and_tokens():
    looks = [UntrainedSoftmax(model=MODEL, seed=s, sequences=2, seq_len=16) for s in (0, 1)]
    (one, first_tokens), (other, second_tokens) = (look.drawn() for look in looks)
    assert not torch.equal(first_tokens, second_tokens)
    assert not torch.equal(one.embed.weight, other.embed.weight)
    first, second = (look.take(()) for look in looks)
    assert first != second
    # logits of deviation 0.02 √32 reach neither end, but that of the token just read may
    assert all(found["near_uniform_share"] > 1 - 2 / 85 for found in (first, second))


def test_seconds_come_by_round_for_each_norm():
    task = NormSeconds(
        model=override(MODEL, {"max_seq_len": 16}),
        norms=(LayerNormConfig(affine="scale"), RMSNormConfig()),
        sequences=2,
        rounds=3,
    )
    assert task.timed
    values = task.take(())
    assert set(values) == {"layer", "rms"}
    for seconds in values.values():
        assert [len(seconds[place]) for place in ("alone", "step")] == [3, 3]
        assert all(each > 0 for place in seconds.values() for each in place)
