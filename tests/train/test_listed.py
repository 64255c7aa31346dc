"""The list of a model's parameters, after everything that changes it."""

import gc
import weakref

import pytest
import torch
from tiny import model_of
from torch import nn

from assay.train.cached_parameters import cached_parameters


def put_anew(model):
    model.embed.weight = nn.Parameter(model.embed.weight.detach().clone())


def put_a_module_anew(model):
    model.blocks[0].mlp = model_of().blocks[0].mlp


def add(model):
    model.blocks[0].mlp.down.bias = nn.Parameter(torch.zeros(16))


def add_a_module(model):
    model.blocks.append(model_of().blocks[0])


def add_at_the_very_end(model):
    list(model.modules())[-1].more = nn.Linear(2, 2)


def take_out(model):
    del model.blocks[0]


def tie_what_was_apart(model):
    model.blocks[0].mixer.q_proj.weight = model.blocks[0].mixer.k_proj.weight


CHANGES = [
    put_anew,
    put_a_module_anew,
    add,
    add_a_module,
    add_at_the_very_end,
    take_out,
    tie_what_was_apart,
]


def same(model):
    found, expected = cached_parameters(model), list(model.parameters())
    return len(found) == len(expected) and all(a is b for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_of_a_model_is_seen(change):
    model = model_of()
    assert same(model)
    before = cached_parameters(model)
    change(model)
    assert same(model)
    assert cached_parameters(model) is not before


def test_a_model_is_listed_once():
    model = model_of()
    before = cached_parameters(model)
    for parameter in model.parameters():
        parameter.data = parameter.data * 2  # moved, and still the same parameter
    assert cached_parameters(model) is before


def test_a_list_does_not_keep_its_model():
    model = model_of()
    cached_parameters(model)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None
