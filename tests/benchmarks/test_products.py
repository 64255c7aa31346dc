from pathlib import Path

import pytest

import products
from assay.errors import ConfigError
from assay.native.compiler import find_compiler

HERE = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="no C++ compiler")


@pytest.mark.slow
def test_every_product_of_two_checkouts_has_a_rate(monkeypatch):
    monkeypatch.setattr(products, "_VISIT_S", 0.0)  # each product three times
    rates = products.measure(["DEFAULT"], [HERE, HERE], rounds=1)["DEFAULT"]
    assert "fp32  192 x   384 x 3072 turned" in rates
    assert len(rates) > 10
    assert all(rate > 0.0 for pair in rates.values() for rate in pair)


def test_a_folder_without_kernels_is_named(tmp_path):
    with pytest.raises(
        ConfigError, match=rf"{tmp_path}.*cannot compile its products: .*product\.h"
    ):
        products.measure(["DEFAULT"], [tmp_path], rounds=1)
