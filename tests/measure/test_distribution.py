import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from assay.measure.distribution import shape

EXACT = {"abs": 1e-12, "rel": 1e-12}


def test_a_uniform_prediction_has_no_shape():
    found = shape(torch.full((3, 4, 40), 2.5))
    assert found.entropy_deficit_nats == pytest.approx(0, abs=1e-12)
    assert found.effective_share == pytest.approx(1)
    assert found.top1_mass == pytest.approx(1 / 40)
    assert found.top10_mass == pytest.approx(10 / 40)
    assert found.gini == pytest.approx(0, abs=1e-12)
    assert found.peak_over_uniform == pytest.approx(1)
    assert found.near_uniform_share == 1


def test_one_token_with_everything_is_the_other_end():
    logits = torch.full((5, 40), -math.inf)
    logits[:, 7] = 0.0
    found = shape(logits)
    assert found.entropy_deficit_nats == pytest.approx(math.log(40))
    assert found.effective_share == pytest.approx(1 / 40)
    assert found.top1_mass == found.top10_mass == 1
    assert found.gini == pytest.approx(1 - 1 / 40)
    assert found.peak_over_uniform == 40
    assert found.near_uniform_share == 0


def brute_force(z):
    """Every figure of one prediction from its definition, with loops where that is plainest."""
    p = np.exp(z - z.max())
    p /= p.sum()
    size = len(p)
    entropy = -sum(q * math.log(q) for q in p if q > 0)
    top = sorted(p, reverse=True)
    return (
        math.log(size) - entropy,
        math.exp(entropy) / size,
        top[0],
        sum(top[:10]),
        np.abs(p[:, None] - p[None]).mean() / (2 * p.mean()),
        size * p.max(),
        sum(0.5 <= size * q <= 2 for q in p) / size,
    )


@given(
    st.lists(
        st.lists(st.floats(-30, 30), min_size=12, max_size=12), min_size=1, max_size=5
    )  # thirty nats above the rest is one-hot to thirteen digits
)
def test_every_figure_is_the_mean_of_its_definition(rows):
    logits = torch.tensor(rows, dtype=torch.float64)
    expected = np.mean([brute_force(np.array(row)) for row in rows], axis=0)
    found = shape(logits)
    assert [
        found.entropy_deficit_nats,
        found.effective_share,
        found.top1_mass,
        found.top10_mass,
        found.gini,
        found.peak_over_uniform,
        found.near_uniform_share,
    ] == [pytest.approx(value, **EXACT) for value in expected]


@pytest.mark.parametrize("s", [0.25, 1.0, 2.0])
def test_normal_logits_give_the_law_of_the_lognormal(s):
    """Over V = 200,000 tokens each figure is a mean of V terms; five deviations are allowed.

    V p is exp(z) over its own mean, whose relative deviation is √((exp s² - 1) / V). The deficit is
    the mean of V p ln(V p), with second moment under (s² + s⁴) exp(s²); the share is a proportion.
    """
    size = 200_000
    z = torch.randn(1, size, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * s
    found = shape(z)
    mean_off = math.sqrt((math.exp(s**2) - 1) / size)
    deficit_off = math.sqrt((s**2 + s**4) * math.exp(s**2) / size)
    phi = torch.special.ndtr

    def below(factor):
        return float(phi(torch.tensor((math.log(factor) + s**2 / 2) / s, dtype=torch.float64)))

    assert found.entropy_deficit_nats == pytest.approx(s**2 / 2, abs=5 * (deficit_off + mean_off))
    assert found.gini == pytest.approx(math.erf(s / 2), abs=5 * mean_off)
    assert found.near_uniform_share == pytest.approx(
        below(2) - below(0.5), abs=5 * (0.5 / math.sqrt(size) + mean_off)
    )


def test_a_vocabulary_under_ten_holds_all_its_mass_in_ten():
    assert shape(torch.randn(4, 6)).top10_mass == pytest.approx(1)


def test_a_prediction_that_is_no_number_is_not_averaged_away():
    logits = torch.zeros(2, 8)
    logits[0, 0] = math.nan
    assert math.isnan(shape(logits).entropy_deficit_nats)
    assert math.isnan(shape(logits).gini)
