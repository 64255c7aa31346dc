import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.config import RunConfig
from assay.errors import ConfigError
from assay.experiments.design import Arm, Design, grid, of_one_precision
from assay.runs.diff import fields_that_differ
from assay.schema import override

NORMS = grid({"model.norm": ["layer", "rms", "none"]})


def test_a_grid_has_an_arm_for_each_combination_named_as_it_is_typed():
    arms = grid({"model.norm": ["layer", "none"], "model.tie_embeddings": [True, False]})
    assert [arm.name for arm in arms] == [
        "model.norm=layer model.tie_embeddings=true",
        "model.norm=layer model.tie_embeddings=false",
        "model.norm=none model.tie_embeddings=true",
        "model.norm=none model.tie_embeddings=false",
    ]
    assert arms[1].changes == {"model.norm": "layer", "model.tie_embeddings": False}


def test_runs_of_an_arm_differ_in_the_seed_alone_and_arms_in_what_they_name():
    design = Design(RunConfig(), NORMS, [3, 4])
    one, other = (design.config(NORMS[0], seed) for seed in design.seeds)
    assert fields_that_differ(one, other) == {"train.seed": (3, 4)}
    for arm in NORMS:
        found = fields_that_differ(design.config(NORMS[0], 3), design.config(arm, 3))
        assert {field.split(".")[1] for field in found} <= {"norm"}


def test_a_field_of_one_variant_alone_is_a_difference():
    rms, none = (override(RunConfig(), {"model.norm": kind}) for kind in ("rms", "none"))
    assert fields_that_differ(rms, none)["model.norm.kind"] == ("rms", "none")
    assert fields_that_differ(rms, none)["model.norm.eps"][1] is None


def test_what_is_set_besides_is_in_the_config_and_not_in_the_name():
    arm = Arm("model.norm=layer", {"model.norm": "layer"}, {"train.steps": 9})
    design = Design(RunConfig(), [NORMS[1], arm], [0, 1])
    found = fields_that_differ(design.config(NORMS[1], 0), design.config(arm, 0))
    assert {"train.steps", "model.norm.kind"} <= found.keys()


@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_two_configs_differ_in_the_fields_whose_values_do(steps, other):
    one = override(RunConfig(), {"train.steps": steps})
    two = override(RunConfig(), {"train.steps": other})
    expected = {} if steps == other else {"train.steps": (steps, other)}
    assert fields_that_differ(one, two) == expected


@pytest.mark.parametrize(
    ("arms", "seeds", "message"),
    [
        (NORMS, [0], r"seeds: \[0\] found; expected at least 2"),
        (NORMS, [0, 0], "all different"),
        (NORMS[:1], [0, 1], "arms: 1 found; expected at least 2"),
        (grid({"model.norm": ["rms", "rms"]}), [0, 1], "are one config"),
        (grid({"model.nrom": ["rms", "none"]}), [0, 1], "model.nrom: unknown field.*norm"),
        (grid({"train.seed": [1, 2]}), [0, 1], "train.seed: found in arm"),
        ([Arm("base", {}), Arm("same", {"model.norm": "rms"})], [0, 1], "are one config"),
    ],
)
def test_a_design_with_nothing_to_compare_is_one_sentence(arms, seeds, message):
    with pytest.raises(ConfigError, match=message):
        Design(RunConfig(), arms, seeds)


def test_no_arm_gets_a_precision_of_its_own_by_a_timing():
    base = override(RunConfig(), {"train.device": "cpu"})
    assert of_one_precision(base).train.precision == "fp32"
    said = override(base, {"train.precision": "bf16"})
    assert of_one_precision(said) == said
