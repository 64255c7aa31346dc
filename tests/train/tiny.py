"""Small models, plans and tokens for the tests of training."""

import torch

from assay.nn.model import GPT, ModelConfig
from assay.schema import decode
from assay.train.config import TrainConfig
from assay.train.plan import ExecutionPlan

VOCAB, LENGTH = 17, 8


def config_of(**fields):
    shape = {"vocab_size": VOCAB, "max_seq_len": LENGTH, "d_model": 16, "n_layers": 1}
    return decode(ModelConfig, {**shape, **fields})


def model_of(*, seed=0, **fields):
    return GPT.create(config_of(**fields), seed=seed)


def plan_of(*, autocast=False, native=False, **fields):
    return ExecutionPlan(decode(TrainConfig, fields), torch.device("cpu"), autocast, native=native)


def random_batch(step, rows=4):
    generator = torch.Generator().manual_seed(step)
    return torch.randint(VOCAB, (rows, LENGTH + 1), generator=generator)


def copied(tensors):
    """Detached copies, to compare with later values bit by bit."""
    return {name: value.detach().clone() for name, value in tensors.items()}


def same_bits(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
