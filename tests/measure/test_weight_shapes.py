import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from assay.measure.weights import QUANTILES, by_component, describe
from assay.nn.model import GPT, ModelConfig
from assay.presets import minigpt
from assay.schema import override


def normal(size, seed=0):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=50))
def test_every_figure_against_scipy_and_numpy(values):
    x = np.array(values)
    if x.std() < 1e-6:  # a standardised constant is noise
        return
    found = describe(torch.from_numpy(x))
    assert found.count == len(x)
    assert found.mean == pytest.approx(x.mean(), abs=1e-12)
    assert found.std == pytest.approx(x.std(), rel=1e-9)
    assert found.quantiles == pytest.approx(np.quantile(x, QUANTILES), abs=1e-12)
    assert found.excess_kurtosis == pytest.approx(stats.kurtosis(x), rel=1e-6, abs=1e-6)
    expected = stats.kstest(x, stats.norm(x.mean(), x.std()).cdf).statistic
    assert found.normal_distance == pytest.approx(expected, abs=1e-9)


def test_normal_weights_are_near_normal():
    """The distance has mean near 0.6/√n; 1.1/√n is exceeded once in a thousand (Lilliefors)."""
    found = describe(normal(40_000))
    assert found.normal_distance < 1.1 / math.sqrt(40_000)
    assert abs(found.excess_kurtosis) < 5 * math.sqrt(24 / 40_000)


def test_uniform_weights_are_told_from_normal_ones():
    """On ±1 in deviations of 1/√3: kurtosis -1.2, and the distance of the two laws is 0.0572."""
    found = describe(torch.linspace(-1, 1, 100_001, dtype=torch.float64))
    assert found.excess_kurtosis == pytest.approx(-1.2, abs=1e-4)
    z = np.linspace(-math.sqrt(3), math.sqrt(3), 200_001)
    apart = np.abs((z / math.sqrt(3) + 1) / 2 - stats.norm.cdf(z)).max()
    assert found.normal_distance == pytest.approx(apart, abs=2e-5)


def test_layers_of_different_widths_pooled_would_look_heavy_tailed():
    pooled = torch.cat([normal(20_000, 1), 4 * normal(20_000, 2)])
    assert describe(pooled).excess_kurtosis > 1
    assert abs(describe(normal(20_000, 1)).excess_kurtosis) < 0.2


def test_constants_have_no_shape():
    found = describe(torch.ones(8))
    assert (found.mean, found.std) == (1, 0)
    assert math.isnan(found.excess_kurtosis)
    assert math.isnan(found.normal_distance)


def test_every_weight_belongs_to_one_component():
    config = minigpt(vocab_size=40, max_seq_len=8, d_model=8, n_layers=2)
    model = GPT.create(override(config, {"mixer.n_heads": 2}))
    found = by_component(model)
    sizes = {name: [tuple(t.shape) for t in tensors] for name, tensors in found.items()}
    assert sizes == {
        "embed": [(40, 8)],
        "position": [(8, 8)],
        "q": [(8, 8)] * 2,
        "k": [(8, 8)] * 2,
        "v": [(8, 8)] * 2,
        "out": [(8, 8)] * 2,
        "up": [(32, 8)] * 2,
        "down": [(8, 32)] * 2,
        "norm": [(8,)] * 10,
        "bias": [(8,), (8,), (8,), (8,), (32,), (8,)] * 2,
    }
    assert sum(t.numel() for tensors in found.values() for t in tensors) == sum(
        parameter.numel() for parameter in model.parameters()
    )


def test_a_gate_and_an_untied_output_have_components_of_their_own():
    config = ModelConfig(vocab_size=40, d_model=16, n_layers=3, tie_embeddings=False)
    found = by_component(GPT.create(config))
    assert (len(found["gate"]), len(found["unembed"]), len(found["embed"])) == (3, 1, 1)


def test_the_initialisation_is_found_again():
    """GPT-2's: 0.02, and 0.02/√(2L) into the residual; relative error of a deviation 1/√(2n)."""
    model = GPT.create(ModelConfig(vocab_size=300, d_model=64, n_layers=2))
    found = {name: describe(ts[0]) for name, ts in by_component(model).items()}
    for name, std in {"q": 0.02, "up": 0.02, "embed": 0.02, "out": 0.01, "down": 0.01}.items():
        allowed = 5 / math.sqrt(2 * found[name].count)
        assert found[name].std == pytest.approx(std, rel=allowed), name
    assert found["norm"].std == 0
