import pytest
import torch

from assay.config import RunConfig
from assay.engine import ensemble_size
from assay.engine.device import free_bytes, resolve_plan
from assay.engine.ensemble_size import choose_replicas, replica_bytes
from assay.schema import override

SMALL = override(
    RunConfig(),
    {
        "model.vocab_size": 17,
        "model.max_seq_len": 8,
        "model.d_model": 16,
        "model.n_layers": 1,
        "train.batch_size": 2,
        "train.device": "cpu",
        "train.steps": 100_000,
    },
)


def test_the_fewest_replicas_within_a_margin_of_the_fastest_are_chosen():
    chosen, speeds = choose_replicas(SMALL, resolve_plan(SMALL.train), most=4)
    timed = {speed.replicas: speed.tokens_per_s for speed in speeds}
    assert list(timed) == [1, 2, 4][: len(timed)]
    best = max(timed.values())
    assert timed[chosen] >= 0.95 * best
    assert all(timed[fewer] < 0.95 * best for fewer in timed if fewer < chosen)


@pytest.mark.parametrize(("replicas", "expected"), [(1.5, [1]), (2.5, [1, 2]), (0.1, [1])])
def test_no_more_are_tried_than_half_of_the_free_memory_holds(monkeypatch, replicas, expected):
    free = int(2 * replicas * replica_bytes(SMALL))
    monkeypatch.setattr(ensemble_size, "free_bytes", lambda device: free)
    speeds = choose_replicas(SMALL, resolve_plan(SMALL.train), most=64)[1]
    assert [speed.replicas for speed in speeds] == expected


def test_a_replica_takes_more_memory_the_larger_its_batch_and_model():
    assert replica_bytes(override(SMALL, {"train.batch_size": 4})) > replica_bytes(SMALL)
    assert replica_bytes(override(SMALL, {"model.n_layers": 2})) > replica_bytes(SMALL)
    halves = override(SMALL, {"train.micro_batches": 2})
    assert replica_bytes(halves) < replica_bytes(SMALL)


def test_some_memory_is_free():
    assert free_bytes(torch.device("cpu")) > replica_bytes(SMALL)
