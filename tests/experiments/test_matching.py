"""Arms brought to the parameters or the FLOPs of the first one."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_study import base_on
from torch.utils.flop_counter import FlopCounterMode

from assay.config import RunConfig
from assay.errors import ConfigError
from assay.experiments.design import Arm, Design, grid
from assay.experiments.made import Matching
from assay.experiments.matching import matched
from assay.nn.model import GPT
from assay.schema import override

BASE = override(RunConfig(), {"model.vocab_size": 100, "model.d_model": 64, "model.n_layers": 2})


def built(config):
    """Parameters counted one by one in the model itself."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in GPT(config.model).parameters())


def flops(config):
    """Forward of the whole training by PyTorch's own counter."""
    with torch.device("meta"):
        model, tokens = GPT(config.model), torch.zeros(1, config.seq_len, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        model(tokens)
    return counter.get_total_flops() * config.train.steps


def match(arms, what, by, base=BASE):
    return matched(Design(base, arms, [0, 1]), Matching(what=what, by=by))


def configs(design):
    return [design.config(arm, 0) for arm in design.arms]


@pytest.mark.parametrize("by", ["model.mlp.d_ff", "model.d_model"])
def test_an_arm_is_as_large_as_the_first_and_no_other_value_is_nearer(by):
    base = override(BASE, {"model.d_model": 256, "model.vocab_size": 1000})
    design = match(grid({"model.tie_embeddings": [True, False]}), "parameters", by, base)
    first, other = configs(design)
    assert built(other) == pytest.approx(built(first), rel=0.05)
    value = design.arms[1].besides[by]
    apart = abs(built(other) - built(first))
    for near in range(max(1, value - 40), value + 41):
        try:
            config = override(other, {by: near})
        except ConfigError:
            continue
        assert abs(built(config) - built(first)) >= apart


@settings(max_examples=25)
@given(st.integers(64, 400), st.sampled_from(["gelu", "swiglu"]), st.integers(1, 5))
def test_arms_of_any_two_shapes_are_matched_in_parameters(width, kind, layers):
    base = override(BASE, {"model.n_layers": layers, "model.mlp.d_ff": width})
    other = Arm("other", {"model.mlp": kind, "model.tie_embeddings": False})
    design = match([Arm("one", {}), other], "parameters", "model.mlp.d_ff", base)
    first, other = configs(design)
    assert abs(built(other) / built(first) - 1) <= 0.05


def test_an_arm_of_half_the_layers_trains_longer_for_the_same_flops():
    design = match(grid({"model.n_layers": [4, 2, 8]}), "flops", "train.steps")
    first, small, large = configs(design)
    assert small.train.steps > first.train.steps > large.train.steps
    assert flops(small) == pytest.approx(flops(first), rel=0.01)
    assert flops(large) == pytest.approx(flops(first), rel=0.01)


def test_an_arm_as_large_as_the_first_stays_as_it_is():
    design = match(grid({"train.optimizer.lr": [1e-3, 2e-3]}), "parameters", "model.d_model")
    assert [arm.besides for arm in design.arms] == [{}, {}]
    assert design.made.matching == Matching(what="parameters", by="model.d_model")


def test_arms_with_other_vocabularies_are_matched_by_their_own(base, tmp_path):
    """A byte tokenizer has 257 tokens, a character one those of the text."""
    arms = grid({"data.tokenizer": ["char", "byte"]})
    wide = override(base, {"model.d_model": 64, "model.n_layers": 4})
    design = match(arms, "parameters", "model.mlp.d_ff", wide)
    assert design.arms[1].besides["model.mlp.d_ff"] < wide.model.mlp.width(64)


@pytest.mark.parametrize(
    ("what", "by", "message"),
    [
        ("parameters", "model.tie_embeddings", "which is what arms are compared by"),
        ("parameters", "train.steps", "train.steps found, which changes no parameters"),
        ("flops", "model.norm.eps", "changes no training FLOPs"),
        ("parameters", "model.d_modle", "model.d_modle: unknown field. Did you mean"),
        ("parameters", "model.norm", "model.norm"),
        ("parameters", "model.n_layers", r"no model.n_layers brings it within 5% of the first"),
    ],
)
def test_a_field_that_does_not_match_arms_is_one_sentence(what, by, message):
    base = override(BASE, {"model.vocab_size": 3000})
    with pytest.raises(ConfigError, match=message) as error:
        match(grid({"model.tie_embeddings": [True, False]}), what, by, base)
    assert "\n" not in str(error.value)


def test_what_is_left_of_the_difference_is_said_even_where_no_value_is_nearer():
    """Widths must divide among heads: the nearest is the arm as it is, and it is too far."""
    base = base_on(model__vocab_size=17, model__mixer__n_heads=2)
    with pytest.raises(ConfigError, match=r"it has [\d,]+, and with model.d_model=\d+ .*%"):
        match(grid({"model.tie_embeddings": [True, False]}), "parameters", "model.d_model", base)
