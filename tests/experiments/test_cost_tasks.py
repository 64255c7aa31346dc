"""Tasks on cost and repetition, really done, small."""

import json
import math

import pytest
import torch

from assay.count import count
from assay.experiments.records import finite
from assay.experiments.tasks.cost import (
    CountedFlops,
    CountedMemory,
    Crossover,
    Grid,
    PassSeconds,
    pass_flops,
)
from assay.experiments.tasks.kernels import (
    AttentionMemory,
    AttentionSeconds,
    KernelErrors,
    ModelEquality,
)
from assay.experiments.tasks.repeat import Repeat, RepeatPlain
from assay.experiments.tasks.text_size import TextSize
from assay.presets import nanogpt_char
from assay.schema import override

MODEL = override(
    nanogpt_char(), {"vocab_size": 11, "d_model": 16, "n_layers": 2, "mixer.n_heads": 2}
)
LENGTHS = Grid(model=MODEL, seq_len=8, along="seq_len", sizes=(4, 8, 16))


def taken(task):
    values = finite(task.take(()))
    assert json.loads(json.dumps(values)) == values
    return values


def test_counts_are_those_of_the_closed_form():
    found = taken(CountedFlops(grid=LENGTHS))
    total = [a + m for a, m in zip(found["attention"], found["matrices"], strict=True)]
    assert total == found["closed_forward"]
    assert found["step"] == found["closed_step"]


@pytest.mark.slow
def test_memory_is_the_same_number_every_time():
    task = CountedMemory(grid=Grid(model=MODEL, seq_len=8, along="n_layers", sizes=(1, 2, 3)))
    found = taken(task)
    assert found == taken(task)
    assert found["saved"][2] - found["saved"][1] == found["saved"][1] - found["saved"][0]
    assert found["cache"] == [2 * 4 * n * 8 * 16 for n in (1, 2, 3)]


def test_the_crossing_is_found_for_each_width():
    assert taken(Crossover(model=MODEL, d_models=(8, 16)))["at"] == [48, 96]


def test_every_pass_is_timed_at_every_point_in_every_round():
    passes = ("forward", "training", "cached", "uncached")
    found = taken(PassSeconds(grid=LENGTHS, passes=passes, rounds=3))
    assert tuple(found) == passes
    for seconds in found.values():
        assert [len(points) for points in seconds] == [3, 3, 3]
        assert min(map(min, seconds)) > 0


def test_without_a_cache_only_the_last_logits_are_counted():
    """A full forward pass under a causal mask, less T - 1 rows of the output matrix."""
    counted = count(MODEL, seq_len=16)
    saved = 15 * 2 * 16 * 11
    assert pass_flops("uncached", counted) == counted.causal_forward_flops - saved
    assert pass_flops("training", counted) == 3 * pass_flops("forward", counted)


@pytest.mark.slow
def test_ways_of_attention_agree_and_are_counted_and_timed():
    shape = {"heads": 2, "d_head": 4}
    errors = taken(KernelErrors(**shape, seq_len=16, seed=0))
    assert all(0 < error < 1e-6 for error in errors.values())
    memory = taken(AttentionMemory(**shape, seq_lens=(8, 16)))
    assert memory["as-called"]["saved"][1] > memory["fused"]["saved"][1]
    seconds = taken(AttentionSeconds(**shape, seq_lens=(8, 16), rounds=2))
    assert {len(rounds) for rounds in seconds.values()} == {2}
    equal = taken(ModelEquality(model=MODEL, seq_len=8, seed=0))
    assert equal["fused"] < 1e-12 < equal["float32"] < 1e-4 < equal["scale"]


def repeated(base, change, **fields):
    run = override(base, {"train.steps": 4, **{f"train.{k}": v for k, v in fields.items()}})
    return taken(Repeat(run=run, change=change))


@pytest.mark.parametrize("change", ["nothing", "torch-seed", "looks", "resumed"])
def test_what_must_not_change_the_bits_does_not(base, change):
    found = repeated(base, change)
    assert found["same"]
    assert found["sha256"][0] == found["sha256"][1]
    assert found["first_step_apart"] is None
    assert found["loss_apart"] == 0


@pytest.mark.parametrize(("change", "step"), [("seed", 1), ("resumed-weights-only", 4)])
def test_what_must_change_the_bits_does_from_the_step_it_can(base, change, step):
    """Weights alone still give the loss of the next step; the update after it is another."""
    found = repeated(base, change)
    assert not found["same"]
    assert found["first_step_apart"] == step
    assert found["loss_apart"] > 0


def test_in_exact_mode_a_cut_batch_gives_the_same_bits(base):
    assert repeated(base, "micro-batches", exact_rows=1, batch_size=4)["same"]


@pytest.mark.slow
def test_another_process_with_another_hash_seed_gives_the_same_bits(base):
    assert repeated(base, "process")["same"]


def test_threads_are_put_back(base):
    before = torch.get_num_threads()
    repeated(base, "threads")
    assert torch.get_num_threads() == before


def test_one_number_drawn_in_between_changes_a_plain_loop():
    sizes = {"steps": 4, "width": 8}
    state = torch.random.get_rng_state()
    assert taken(RepeatPlain(draws_between=0, **sizes))["same"]
    assert not taken(RepeatPlain(draws_between=1, **sizes))["same"]
    assert torch.equal(state, torch.random.get_rng_state())


def test_the_size_of_a_text_is_that_of_its_training_side(base):
    found = taken(TextSize(data=base.data))
    assert 0 < found["tokens"] <= found["bytes"]
    assert math.log2(found["vocab"]) < 16
