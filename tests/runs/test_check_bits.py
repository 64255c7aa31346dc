"""The comparing of two folders finds the one bit that differs, and says where it is."""

import json
import math
import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from assay.checks.bits import compare_metrics, compare_recorded, compare_runs, compare_tensors

TENSORS = {
    "a.weight": torch.arange(12.0).reshape(3, 4),
    "b.step": torch.tensor(7.0),
    "c.bias": torch.tensor([1.0, -0.0, math.nan]),
    "d.weight": torch.ones(2, 2, dtype=torch.bfloat16),
}
ROWS = [{"kind": "train", "step": step, "loss_nats": 3.0 / step, "lr": 0.1} for step in range(1, 9)]


def written(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def folder(path, tensors=TENSORS, rows=ROWS):
    checkpoint = path / "checkpoints/step-000008"
    checkpoint.mkdir(parents=True)
    for name in ("model", "optim"):
        save_file(tensors, checkpoint / f"{name}.safetensors")
    written(path / "metrics.jsonl", rows)
    return path


def flipped(tensor, place, bit):
    """A copy with one bit of one element changed."""
    copy = tensor.clone().reshape(-1)
    copy.view(torch.uint8)[place * tensor.element_size() + bit // 8] ^= 1 << (bit % 8)
    return copy.reshape(tensor.shape)


def test_equal_folders_are_the_same_bits_with_their_hashes(tmp_path):
    found = list(compare_runs(folder(tmp_path / "one"), folder(tmp_path / "other"), 8))
    assert [finding.name for finding in found] == ["metrics", "weights", "optimizer"]
    assert all(finding.fine for finding in found)
    for finding in found:
        one, other = finding.facts["sha256"]
        assert one == other
        assert one[:16] in finding.words


@settings(max_examples=30)
@given(name=st.sampled_from(sorted(TENSORS)), data=st.data())
def test_any_one_flipped_bit_is_found_and_its_tensor_named(tmp_path_factory, name, data):
    tmp_path, tensor = tmp_path_factory.mktemp("flip"), TENSORS[name]
    place = data.draw(st.integers(0, tensor.numel() - 1))
    bit = data.draw(st.integers(0, 8 * tensor.element_size() - 1))
    save_file(TENSORS, tmp_path / "one")
    save_file(TENSORS | {name: flipped(tensor, place, bit)}, tmp_path / "other")
    finding = compare_tensors("weights", tmp_path / "one", tmp_path / "other")
    assert not finding.fine
    assert finding.facts["tensor"]["name"] == name
    assert finding.facts["tensors_differing"] == 1
    assert finding.words.startswith(name)


def test_how_far_apart_two_tensors_are_is_told_at_the_place_of_the_largest_difference(tmp_path):
    other = TENSORS["a.weight"].clone()
    other[0, 1] += 0.25
    other[2, 3] -= 0.5
    save_file(TENSORS, tmp_path / "one")
    save_file(TENSORS | {"a.weight": other}, tmp_path / "other")
    told = compare_tensors("weights", tmp_path / "one", tmp_path / "other").facts["tensor"]
    assert (told["largest_difference"], told["index"]) == (0.5, [2, 3])
    assert (told["elements_differing"], told["elements"]) == (2, 12)


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"a.weight": torch.arange(12.0)}, "a.weight is torch.float32 of shape (3, 4) in one"),
        ({"e.weight": torch.ones(1)}, "e.weight is in one file alone"),
        ({"a.weight": torch.full((3, 4), math.nan)}, "by inf at most"),
    ],
)
def test_another_shape_another_name_and_a_nan_are_told(tmp_path, other, told):
    save_file(TENSORS, tmp_path / "one")
    save_file(TENSORS | other, tmp_path / "other")
    assert told in compare_tensors("weights", tmp_path / "one", tmp_path / "other").words


def test_the_first_step_that_differs_is_named_with_both_values(tmp_path):
    last_bit = struct.unpack(
        "<d", struct.pack("<Q", struct.unpack("<Q", struct.pack("<d", 0.75))[0] + 1)
    )[0]
    rows = [row | ({"loss_nats": last_bit} if row["step"] in (4, 6) else {}) for row in ROWS]
    one, other = written(tmp_path / "one", ROWS), written(tmp_path / "other", rows)
    finding = compare_metrics(one, other)
    assert not finding.fine
    assert finding.facts["step"] == 4
    assert finding.facts["field"] == "loss_nats"
    assert finding.facts["values"] == [0.75, last_bit]
    assert "step 4 is the first" in finding.words


@pytest.mark.parametrize("rows", [ROWS[:-1], [*ROWS, ROWS[-1] | {"step": 9}]])
def test_a_row_too_few_or_too_many_is_a_difference(tmp_path, rows):
    finding = compare_metrics(written(tmp_path / "one", ROWS), written(tmp_path / "other", rows))
    assert not finding.fine
    assert "in one alone" in finding.words
    assert finding.facts["step"] == (8 if len(rows) < len(ROWS) else 9)


def test_a_loss_that_is_not_a_number_is_equal_to_itself(tmp_path):
    rows = [{"kind": "train", "step": 1, "loss_nats": math.nan}]
    assert compare_recorded(rows, [dict(rows[0])], 1).fine
    assert not compare_recorded(rows, [rows[0] | {"loss_nats": 1.0}], 1).fine


def test_recorded_rows_are_looked_for_among_more_and_only_as_far_as_was_trained():
    recorded = [ROWS[0], ROWS[3], ROWS[7] | {"loss_nats": 99.0}]
    finding = compare_recorded(recorded, ROWS[:5], 5)
    assert finding.fine
    assert finding.facts["rows"] == 2
    wrong = compare_recorded([ROWS[0], ROWS[3] | {"lr": 0.2}], ROWS[:5], 5)
    assert not wrong.fine
    assert (wrong.facts["step"], wrong.facts["field"]) == (4, "lr")
    assert not compare_recorded([ROWS[3] | {"kind": "eval"}], ROWS[:5], 5).fine


def test_a_run_that_recorded_nothing_so_far_is_said_to_have():
    assert compare_recorded([ROWS[7]], ROWS, 5).fine
    assert "no rows" in compare_recorded([], ROWS, 5).words
