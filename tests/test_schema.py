import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from assay import presets
from assay.config import RunConfig
from assay.errors import ConfigError
from assay.nn.block import BLOCKS
from assay.nn.init import INITS
from assay.nn.mixer import AttentionConfig
from assay.nn.mlp import MLPS
from assay.nn.model import ModelConfig
from assay.nn.norm import NORMS, RMSNormConfig
from assay.nn.position import POSITIONS
from assay.schema import Config, config_hash, decode, field_paths, merge, override

GOLDEN = Path(__file__).parent / "golden" / "config_hashes.json"


def kinds(family):
    return st.sampled_from([cls.model_fields["kind"].default for cls in family])


sizes = st.integers(1, 2**31 - 1)
numbers = st.floats(min_value=1e-300, max_value=1e300)
variants = st.fixed_dictionaries(
    {},
    optional={
        "model.vocab_size": st.none() | sizes,
        "model.max_seq_len": sizes,
        "model.n_layers": sizes,
        "model.position": kinds(POSITIONS),
        "model.norm": kinds(NORMS),
        "model.block": kinds(BLOCKS),
        "model.mixer.n_heads": st.sampled_from([1, 2, 4, 8]),
        "model.mixer.n_kv_heads": st.sampled_from([None, 1]),
        "model.mixer.window": st.none() | sizes,
        "model.mlp": kinds(MLPS),
        "model.mlp.d_ff": st.none() | sizes,
        "model.tie_embeddings": st.booleans(),
        "model.logit_scale": st.sampled_from(["none", "inv_sqrt_d"]) | numbers,
        "model.soft_cap": st.none() | numbers,
        "model.init": kinds(INITS),
        "model.dropout": st.floats(0, 1, exclude_max=True),
        "train.seed": st.integers(0, 2**63 - 1),
        "train.seq_len": st.just(1),
    },
)


def as_toml(tree, path=()):
    """Write nested dicts as dotted TOML lines; null has no TOML and is left out."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from as_toml(value, (*path, name))
        elif value is not None:
            yield f"{'.'.join((*path, name))} = {json.dumps(value)}"


@settings(deadline=None)
@given(variants)
def test_a_config_survives_the_trip_through_json_and_toml(changes):
    config = override(RunConfig(), changes)
    text = config.model_dump_json()
    assert RunConfig.model_validate_json(text) == config
    assert decode(RunConfig, json.loads(text)) == config
    toml = tomllib.loads("\n".join(as_toml(json.loads(text))))
    assert decode(RunConfig, toml) == config  # no field here is null where its default is not


MISTAKES = [
    ({"model.n_layer": 2}, r"^model\.n_layer: unknown field\. Did you mean 'n_layers'\?$"),
    ({"modle.d_model": 2}, r"^modle: unknown field\. Did you mean 'model'\?$"),
    ({"model.n_heads": 2}, r"^model\.n_heads: unknown .* Did you mean 'model\.mixer\.n_heads'\?$"),
    ({"eps": 1.0}, r"^eps: unknown field\. Did you mean 'model\.norm\.eps'\?$"),
    (
        {"zzzzzz": 1},
        r"^zzzzzz: unknown field; expected one of: model, data, train, eval, sampling\.$",
    ),
    ({"": 1}, r"unknown field"),
    ({"model.": 1}, r"^model\.: unknown field"),
    ({"model.norm": "rmsnorm"}, r"^model\.norm: unknown kind 'rmsnorm'; .* Did you mean 'rms'\?$"),
    ({"model.norm": ""}, r"^model\.norm: unknown kind ''; expected one of: dyt, layer, none, rm"),
    ({"model.norm": 3}, r"^model\.norm: 3 found; expected a kind"),
    ({"model.norm": {"eps": 0.1}}, r"^model\.norm: \{'eps': 0\.1\} found; expected a kind"),
    ({"model.norm.kind": ["rms"]}, r"^model\.norm: unknown kind"),
    ({"model.norm": "none", "model.norm.eps": 1.0}, r"\.eps: unknown field with model\.norm=none"),
    ({"model.norm.eps": 0.0}, r"^model\.norm\.eps: 0\.0 found; input should be greater than 0\.$"),
    ({"model.norm.eps": float("nan")}, r"^model\.norm\.eps: nan found; .* finite number\.$"),
    ({"model.soft_cap": float("inf")}, r"^model\.soft_cap: inf found; .* finite number\.$"),
    ({"model.logit_scale": -1}, r"^model\.logit_scale: -1 found; .*'inv_sqrt_d', or .* than 0\.$"),
    ({"model.logit_scale": "d"}, r"^model\.logit_scale: 'd' found; .*, or .* a valid number\.$"),
    ({"model.n_layers": "12"}, r"^model\.n_layers: '12' found; .* valid integer\.$"),
    ({"model.n_layers": True}, r"^model\.n_layers: True found; .* valid integer\.$"),
    ({"model.n_layers": 0}, r"^model\.n_layers: 0 found; .* greater than 0\.$"),
    ({"model.n_layers": 1.5}, r"^model\.n_layers: 1\.5 found; .* valid integer\.$"),
    ({"model.d_model": 10**400}, r"^model\.d_model: 10+ found; .* at most 9223372036854775807\.$"),
    ({"model.d_model": 2**31}, r"^model\.d_model: 2147483648 found; .* less than 2147483648\.$"),
    ({"model.norm.eps": 10**400}, r"^model\.norm\.eps: 10+ found; "),
    ({"model.bias": 1}, r"^model\.bias: 1 found; .* valid boolean\.$"),
    ({"model.dropout": 1.0}, r"^model\.dropout: 1\.0 found; .* less than 1\.$"),
    ({"model": None}, r"^model: None found; "),
    (
        {"model.n_layers.x": 1},
        r"^model\.n_layers\.x: 'n_layers' holds 4, which has no fields; expected a value",
    ),
    (
        {"model.mixer.n_heads": 7},
        r"^model\.mixer\.n_heads: 7 .* divisor of d_model = 128\.$",
    ),
    ({"model.mixer.n_kv_heads": 3}, r"^model\.mixer\.n_kv_heads: 3 .* divisor of .* = 4\.$"),
    ({"model.d_model": 4}, r"^model\.position: rope .* even number; found 1 \(.*mixer\.n_heads"),
    ({"model.mixer": "none"}, r"^model\.position: rope .* none with mixer=none\. Choose none"),
    (
        {"model.position": "alibi", "model.mixer": "none"},
        r"^model\.position: alibi biases .* mixer=none\. Choose none, learned or sinusoidal\.$",
    ),
    (
        {"model.position": "none", "model.mixer": "none", "model.block": "parallel"},
        r"^model\.block: parallel joins .* Choose pre",
    ),
]


@pytest.mark.parametrize(("changes", "message"), MISTAKES, ids=lambda v: str(v)[:60])
def test_a_mistake_is_named_with_its_place(changes, message):
    with pytest.raises(ConfigError, match=message):
        override(RunConfig(), changes)


def test_changes_are_laid_on_in_their_order():
    one = override(RunConfig(), {"model.norm": "sigma", "model.norm.eps": 0.5}).model.norm
    assert (one.kind, one.eps) == ("sigma", 0.5)
    other = override(RunConfig(), {"model.norm.eps": 0.5, "model.norm": "sigma"}).model.norm
    assert other.eps != 0.5


def test_another_kind_leaves_the_fields_of_the_old_one_behind():
    config = override(RunConfig(), {"model.norm.affine": "none", "model.norm.kind": "layer"})
    assert config.model.norm.affine == "scale_shift"


def test_naming_the_kind_that_is_there_changes_nothing():
    config = override(RunConfig(), {"model.norm.eps": 0.5})
    assert override(config, {"model.norm.kind": "rms"}) == config


def test_an_override_leaves_the_config_it_came_from_alone():
    config = RunConfig()
    override(config, {"model.mixer.n_heads": 8, "model.norm": "layer"})
    assert config == RunConfig()


def test_a_kind_alone_is_the_variant_with_its_defaults():
    assert override(RunConfig(), {"model.norm": "rms"}).model.norm == RMSNormConfig()


def test_merge_lays_the_second_upon_the_first():
    base = {"a": {"x": 1, "y": 2}, "norm": {"kind": "rms", "eps": 1.0}}
    over = {"a": {"y": 3}, "norm": {"eps": 2.0}, "b": 4}
    expected = {"a": {"x": 1, "y": 3}, "norm": {"kind": "rms", "eps": 2.0}, "b": 4}
    assert merge(base, over) == expected
    assert base["a"] == {"x": 1, "y": 2}


def test_merge_with_another_kind_replaces_the_whole():
    base = {"norm": {"kind": "rms", "eps": 1.0}}
    assert merge(base, {"norm": {"kind": "layer"}}) == {"norm": {"kind": "layer"}}
    assert merge(base, {"norm": "layer"}) == {"norm": "layer"}
    assert merge(base, {"norm": {"kind": "rms"}}) == base


trees = st.recursive(
    st.integers(), lambda inner: st.dictionaries(st.sampled_from("abc"), inner), max_leaves=8
).filter(lambda tree: isinstance(tree, dict))


@settings(deadline=None)
@given(trees, trees)
def test_merge_has_a_neutral_element_and_the_second_word(base, over):
    assert merge(base, {}) == base
    assert merge({}, over) == over
    assert merge(merge(base, over), over) == merge(base, over)


@settings(deadline=None)
@given(variants)
def test_overriding_one_by_one_or_all_at_once_is_the_same(changes):
    changes = {"train.seq_len": 1, **changes}
    at_once, one_by_one = override(RunConfig(), changes), RunConfig()
    for field, value in changes.items():
        one_by_one = override(one_by_one, {field: value})
    assert one_by_one == at_once


def test_hashes_are_those_of_the_golden_file():
    found = {name: config_hash(preset()) for name, preset in presets.PRESETS.items()}
    assert found == json.loads(GOLDEN.read_text())


@settings(deadline=None)
@given(variants, variants)
def test_hashes_are_equal_exactly_when_configs_are(one, other):
    a, b = override(RunConfig(), one), override(RunConfig(), other)
    assert (config_hash(a) == config_hash(b)) == (a == b)


OTHER_VALUE = {
    "vocab_size": 7,
    "max_seq_len": 7,
    "d_model": 64,
    "n_layers": 7,
    "position": "none",
    "position.kind": "none",
    "position.theta": 7.0,
    "position.fraction": 0.5,
    "norm": "none",
    "norm.kind": "none",
    "norm.eps": 7.0,
    "norm.affine": "none",
    "block": "post",
    "block.kind": "post",
    "mixer": {"kind": "attention", "n_heads": 1},
    "mixer.kind": "none",
    "mixer.n_heads": 1,
    "mixer.n_kv_heads": 1,
    "mixer.window": 7,
    "mixer.qk_norm": False,
    "mixer.dropout": 0.7,
    "mlp": "relu",
    "mlp.kind": "relu",
    "mlp.d_ff": 7,
    "mlp.approximate": "tanh",
    "tie_embeddings": False,
    "logit_scale": 7.0,
    "soft_cap": 7.0,
    "bias": True,
    "dropout": 0.7,
    "init": "xavier",
    "init.kind": "xavier",
    "init.std": 0.7,
    "norm.alpha": 0.7,
    "position.buckets": 8,
    "position.max_distance": 70,
}
NEEDED_FIRST = {
    "mlp.approximate": {"mlp": "gelu"},
    "mixer.kind": {"position": "none"},
    "norm.alpha": {"norm": "dyt"},
    "position.buckets": {"position": "t5"},
    "position.max_distance": {"position": "t5"},
}


@pytest.mark.parametrize("path", field_paths(ModelConfig))
def test_every_field_of_a_model_changes_the_hash(path):
    base = override(ModelConfig(), NEEDED_FIRST.get(path, {}))
    assert config_hash(override(base, {path: OTHER_VALUE[path]})) != config_hash(base)


def test_every_field_is_explained():
    unexplained = [p for p, meaning in field_paths(ModelConfig).items() if not meaning]
    assert all(path.rpartition(".")[2] == "kind" for path in unexplained)


def test_a_config_is_frozen_and_hashable():
    config = AttentionConfig()
    with pytest.raises(ValueError, match="frozen"):
        config.n_heads = 2
    assert hash(config) == hash(AttentionConfig())


garbage = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["none", "rms", "rope", "attention", "kind", 10**400, -(10**30), 2**63]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=4,
)
paths = st.sampled_from([*field_paths(RunConfig), *(f"{p}.kind" for p in field_paths(RunConfig))])
words = st.text(st.sampled_from(".kindmodelxé\n "), max_size=12)


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(st.dictionaries(paths | words, garbage, max_size=4))
@example({"model.d_model": 10**400})
@example({"model.norm.kind": {}, "model.norm.kind.x": 1})
@example({"train.seed": 10**400, "train.steps": 10**400})
def test_garbage_is_a_config_error_and_nothing_else(changes):
    try:
        config = override(RunConfig(), changes)
    except ConfigError:
        return
    assert RunConfig.model_validate_json(config.model_dump_json()) == config


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(["model", "data", "train", "x"]), garbage))
def test_a_garbage_tree_is_a_config_error_and_nothing_else(tree):
    try:
        config = decode(RunConfig, tree)
    except ConfigError:
        return
    assert decode(RunConfig, config.model_dump()) == config


def test_a_value_given_is_not_changed_by_the_changes_after_it():
    norm = {"kind": "rms"}
    config = override(RunConfig(), {"model.norm": norm, "model.norm.eps": 1e-3})
    assert config.model.norm == RMSNormConfig(eps=1e-3)
    assert norm == {"kind": "rms"}


class Pair(Config):
    pair: tuple[int, float] = (0, 0.0)


def test_a_tuple_too_short_is_refused_at_the_place_it_ends():
    with pytest.raises(ConfigError, match=r"^pair\.1: nothing found; expected a value"):
        decode(Pair, {"pair": (1,)})


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (
            {"model": {"n_layers": 2**63}},
            r"^model\.n_layers: 9223372036854775808 found; .* at most",
        ),
        ({"train": {"steps": 16**5000}}, r"^train\.steps: int too large to show found"),
        ({"data": {"text": ["a"] * 40_000}}, r"^data\.text: over 32768 values found; .* a folder"),
        ({f"f{n}": 0 for n in range(40_000)}, r"^'': over 32768 values found"),
        ({"": {"": 1}}, r"^'': unknown field; expected one of: model, data"),
        ({"model": {"norm": "x" * 10_000}}, r"^model\.norm: unknown kind 'x{499}\.\.\.; expected"),
        ({"model": {"logit_scale": []}}, r"^model\.logit_scale: \[\] found; "),
        (
            {"model": {"norm": {"kind": "none", "eps": 1.0}}},
            r"norm=none; expected model\.norm to be",
        ),
    ],
)
def test_what_no_config_comes_near_is_refused_in_a_short_sentence(data, said):
    with pytest.raises(ConfigError, match=said) as caught:
        decode(RunConfig, data)
    assert len(str(caught.value)) < 1200
    assert "\n" not in str(caught.value)


def test_nesting_without_end_is_refused():
    tree = {}
    for _ in range(100_000):
        tree = {"model": tree}
    with pytest.raises(ConfigError, match="over 16 levels found"):
        decode(RunConfig, tree)
