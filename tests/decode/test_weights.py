import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from shaken import small

from assay.decode.model_view import pack_int8
from assay.decode.weights import matrices, pack, rounded

STEP = {"fp32": 0.0, "bf16": 2.0**-8}  # half a step, relative, of 8 significant bits
floats = st.floats(-100, 100, width=32)
rows = st.integers(1, 5).flatmap(
    lambda n: st.lists(st.lists(floats, min_size=n, max_size=n), min_size=1, max_size=4)
)


@pytest.mark.parametrize("kind", ["fp32", "bf16"])
@given(rows=rows)
def test_a_number_moves_by_half_a_step_of_its_own(kind, rows):
    weight = torch.tensor(rows)
    moved = (pack(weight, kind).widened() - weight).abs()
    smallest = torch.finfo(torch.float32).smallest_normal  # below it bfloat16 has fewer bits
    assert (moved <= weight.abs() * STEP[kind] + smallest).all()


@given(rows=rows)
@example(rows=[[1308 * 2.0**-149]])  # 131 times its scale, which is of ten steps
def test_int8_moves_a_number_by_half_a_step_of_its_row(rows):
    weight = torch.tensor(rows)
    step = weight.double().abs().amax(1, keepdim=True) / 127
    moved = (pack(weight, "int8").widened() - weight).double().abs()
    # and the scale itself, in float32, is off by a rounding in each of 127 steps; a tiny row
    # has a scale that is not normal
    assert (moved <= step * (0.5 + 127 * 3e-7) + 127 * 2.0**-149).all()


@given(rows=rows, scale=st.sampled_from([1.0, 1e-3, 1e-42, 1e30]))
@example(rows=[[2.0**-149]], scale=1.0)  # over 127 it is zero
@example(rows=[[1308 * 2.0**-149]], scale=1.0)
def test_the_kernels_round_to_the_same_bits(native, rows, scale):
    wide = torch.linspace(-254, 254, 509)[None].repeat(3, 1) / 2  # every half of a step
    for weight in (torch.tensor(rows), wide, wide[:, 7:93]):
        expected, found = pack(weight * scale, "int8"), pack_int8(native.library, weight * scale)
        assert torch.equal(found.data, expected.data)
        assert torch.equal(found.scale, expected.scale)


def test_some_rows_are_rows_of_the_whole():
    weight = torch.randn(9, 5)
    for kind in ("fp32", "bf16", "int8"):
        packed, ids = pack(weight, kind), torch.tensor([3, 0, 3])
        assert torch.equal(packed.rows(ids), packed.widened()[ids])


def test_bytes_are_those_of_the_numbers_and_scales():
    weight = torch.randn(9, 5)
    assert [pack(weight, kind).nbytes for kind in ("fp32", "bf16", "int8")] == [180, 90, 45 + 36]


def test_every_matrix_is_rounded_once_and_vectors_are_not():
    model = small(bias=True, tie_embeddings=False, position="learned")
    twin = rounded(model, "int8")
    assert len(matrices(model)) == 2 + 2 * 7  # embed, unembed; q k v out up gate down, twice
    for matrix, other in zip(matrices(model), matrices(twin), strict=True):
        assert 0 < (matrix - other).abs().max() < 0.02
    inside = {id(matrix) for matrix in matrices(model)}
    for (name, parameter), other in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert torch.equal(parameter, other) == (id(parameter) not in inside), name


def test_a_tied_model_stays_tied():
    twin = rounded(small(), "bf16")
    assert twin.unembed is None
    assert twin.output_matrix is twin.embed.weight
