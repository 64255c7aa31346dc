import math

import numpy as np
import pytest
import torch

from assay.measure.frontier import dominated_area
from assay.measure.judged import model_bits, ngram_bits
from assay.measure.ngram import NGramModel
from assay.nn.model import GPT, ModelConfig

V = 11


def judge():
    config = ModelConfig(vocab_size=V, max_seq_len=16, d_model=16, n_layers=1)
    return GPT.create(config, seed=1).eval()


def test_bits_token_by_token():
    """Each text alone, each token from its own pass: float32 sums of five terms, off by 1e-6."""
    model, texts = judge(), [[3, 1, 4, 1, 5], [9], [2, 6, 5]]
    expected = []
    for text in texts:
        read, bits = [7], 0.0
        for token in text:
            with torch.no_grad():
                p = model(torch.tensor([read]))[0, -1].double().softmax(-1)[token]
            bits -= math.log2(p)
            read.append(token)
        expected.append(bits)
    assert model_bits(model, texts, start=7) == pytest.approx(expected, rel=1e-5)


def test_texts_do_not_depend_on_their_company(monkeypatch):
    model = judge()
    texts = [[i % V, 2 * i % V, 3 * i % V][: i % 4] for i in range(9)]
    together = model_bits(model, texts, start=0)
    monkeypatch.setattr("assay.measure.judged._BATCH_TOKENS", 6)  # two texts at a time
    assert model_bits(model, texts, start=0) == pytest.approx(together, rel=1e-5)
    assert together[0] == together[4] == 0  # empty


def test_no_texts_cost_nothing():
    assert model_bits(judge(), [], start=0).shape == (0,)
    assert list(model_bits(judge(), [[], []], start=0)) == [0, 0]


def test_the_start_is_context_and_costs_nothing():
    model = NGramModel.fit(np.tile([0, 1, 0, 2], 30), vocab_size=V, order=2)
    first = -math.log2(model.next_probability(np.array([1]))[0])
    second = -math.log2(model.next_probability(np.array([0]))[2])
    assert ngram_bits(model, [[0, 2], [0], []], start=1) == pytest.approx(
        [first + second, first, 0]
    )


@pytest.mark.parametrize(
    ("points", "area"),
    [
        ([], 0.0),
        ([(2.0, 3.0)], 6.0),
        ([(2.0, 3.0), (1.0, 1.0)], 6.0),  # dominated
        ([(2.0, 3.0), (4.0, 1.0)], 6 + 2.0),
        ([(4.0, 1.0), (2.0, 3.0), (1.0, 4.0)], 8 + 1.0),
        ([(2.0, 3.0), (2.0, 3.0)], 6.0),
        ([(2.0, 1.0), (2.0, 3.0)], 6.0),
        ([(2.0, 3.0), (-1.0, 9.0), (9.0, 0.0)], 6.0),
        ([(2.0, 3.0), (math.nan, 9.0), (9.0, math.nan)], 6.0),
    ],
)
def test_areas_by_hand(points, area):
    assert dominated_area(points) == area


def test_the_area_is_that_of_darts():
    """A grid of 400 x 400: each border of a union of 8 rectangles misses under one row of cells."""
    points = np.random.default_rng(0).random((8, 2))
    grid = (np.arange(400) + 0.5) / 400
    covered = ((grid[:, None, None] < points[:, 0]) & (grid[:, None] < points[:, 1])).any(-1)
    assert dominated_area(map(tuple, points)) == pytest.approx(covered.mean(), abs=2 / 400)
