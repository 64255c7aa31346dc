"""A model that is packed once, and read by several generations."""

from itertools import zip_longest

import pytest
import torch
from shaken import small

from assay.errors import ConfigError
from assay.generate import GenerateOptions, QuantizedModel, generate
from assay.sampling import SamplingConfig

DRAWN = SamplingConfig(temperature=1.2)
PROMPTS, OTHERS = [[3, 1, 4], [1]], [[5, 9, 2, 6, 5], [8], [2, 2]]
KINDS = ["fp32", "bf16", "int8"]
READERS = ["native", "torch", "graphs"]


def asked(reader, **fields):
    return GenerateOptions(reader=reader, max_new_tokens=12, **fields)


def texts_of(model, prompts, options):
    list(run := generate(model, prompts, DRAWN, options=options))
    return run.generated


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("weights", [None, *KINDS])
@pytest.mark.shapes_checked_by_others
def test_generations_side_by_side_write_what_each_writes_alone(native, weights, reader):
    """The second begins while the first is under way; neither sees the other's keys."""
    model = small()
    packed = QuantizedModel(model, weights)
    first = generate(packed, PROMPTS, DRAWN, options=asked(reader))
    next(first)
    second = generate(packed, OTHERS, DRAWN, options=asked(reader, weights=weights))
    list(zip_longest(first, second))
    alone = asked(reader, weights=weights)
    assert first.generated == texts_of(model, PROMPTS, alone)
    assert second.generated == texts_of(model, OTHERS, alone)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("weights", ["bf16", "int8"])
def test_rounded_weights_stand_as_they_were(native, weights, reader):
    model = small()
    packed = QuantizedModel(model, weights)
    before = texts_of(packed, PROMPTS, asked(reader))
    with torch.no_grad():
        for block in model.blocks:
            block.mlp.up.weight.neg_()
    assert texts_of(packed, PROMPTS, asked(reader)) == before
    assert texts_of(QuantizedModel(model, weights), PROMPTS, asked(reader)) != before


def test_a_model_in_another_precision_is_widened_once(native):
    model = small().bfloat16()
    texts = texts_of(QuantizedModel(model, "int8"), PROMPTS, asked("native"))
    assert texts == texts_of(model.float(), PROMPTS, asked("native", weights="int8"))


@pytest.mark.parametrize(("packed", "asked_for"), [("bf16", "int8"), (None, "bf16")])
def test_other_weights_than_those_packed_are_refused(packed, asked_for):
    options = GenerateOptions(weights=asked_for)
    with pytest.raises(ConfigError, match=rf"^generate\.weights: {asked_for} found .* packed as "):
        generate(QuantizedModel(small(), packed), PROMPTS, DRAWN, options=options)
