"""Folders as transformers writes them, whole, in shards, spoilt."""

import json
import shutil

import pytest
import torch
from hf_models import GPT2, LLAMA, NEOX, build
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from assay.errors import CheckpointError, ConfigError
from assay.hf import from_hf, load_hf, save_hf
from assay.nn.model import GPT, ModelConfig
from assay.schema import decode


def same_weights(left, right):
    pairs = zip(left.named_parameters(), right.named_parameters(), strict=True)
    return all(a == b and torch.equal(p, q) for (a, p), (b, q) in pairs)


@pytest.mark.parametrize("fields", [GPT2, LLAMA, NEOX], ids=["gpt2", "llama", "neox"])
@pytest.mark.parametrize("shard", ["1GB", "20KB"])
def test_a_folder_saved_by_transformers_loads(fields, shard, tmp_path):
    model = build(fields)
    model.save_pretrained(tmp_path, max_shard_size=shard)
    assert (tmp_path / "model.safetensors").exists() == (shard == "1GB")
    assert same_weights(load_hf(tmp_path), from_hf(model.config.to_dict(), model.state_dict()))


@pytest.mark.parametrize("fields", [GPT2, LLAMA, NEOX], ids=["gpt2", "llama", "neox"])
def test_a_folder_we_save_loads_in_transformers_and_here(fields, tmp_path, recwarn):
    model = build(fields)
    ours = from_hf(model.config.to_dict(), model.state_dict())
    save_hf(ours, tmp_path / "new")
    assert same_weights(load_hf(str(tmp_path / "new")), ours)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "new", attn_implementation="eager")
    assert again.dtype == torch.float64
    tokens = torch.arange(12)[None]
    assert torch.equal(again(tokens).logits, model(tokens).logits)
    assert not recwarn.list


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    build(GPT2).save_pretrained(folder / "whole")
    build(GPT2).save_pretrained(folder / "shards", max_shard_size="40KB")
    return folder


@pytest.fixture
def whole(saved, tmp_path):
    return shutil.copytree(saved / "whole", tmp_path / "whole")


@pytest.fixture
def shards(saved, tmp_path):
    return shutil.copytree(saved / "shards", tmp_path / "shards")


def refusal(folder, error=CheckpointError):
    with pytest.raises(error) as caught:
        load_hf(folder)
    return str(caught.value)


def test_a_name_of_the_hub_is_no_folder():
    assert "openai-community/gpt2: no such folder" in refusal("openai-community/gpt2")
    assert "hf download" in refusal("openai-community/gpt2")


def test_a_missing_config_is_named(whole):
    (whole / "config.json").unlink()
    assert "config.json: missing" in refusal(whole)


@pytest.mark.parametrize("text", ["{", "[]", "\x00", '{"a": ' * 100_000, "nul"])
def test_a_config_that_is_no_json_object_is_named(whole, text):
    (whole / "config.json").write_text(text)
    assert "config.json: " in refusal(whole)


def test_a_config_in_another_encoding_is_named(whole):
    (whole / "config.json").write_bytes(b'{"model_type": "\xff"}')
    assert "config.json: " in refusal(whole)


def test_weights_cut_short_are_named(whole):
    path = whole / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert "model.safetensors: " in refusal(whole)
    path.write_bytes(b"")
    assert "model.safetensors: " in refusal(whole)


def test_a_pickle_is_never_opened(whole):
    (whole / "model.safetensors").unlink()
    (whole / "pytorch_model.bin").write_bytes(b"cposix\nsystem\n(S'touch harmed'\ntR.")
    assert "pytorch_model.bin is a pickle, which can run code" in refusal(whole)
    assert not (whole / "harmed").exists()


def test_a_missing_shard_is_named(shards):
    last = sorted(shards.glob("*.safetensors"))[-1]
    last.unlink()
    assert f"shard {last.name!r} found" in refusal(shards)


@pytest.mark.parametrize("shard", ["../whole/model.safetensors", "/etc/passwd", "..", 3])
def test_an_index_may_not_point_outside_its_folder(shards, whole, shard):
    path = shards / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["transformer.wte.weight"] = shard
    path.write_text(json.dumps(index))
    assert f"shard {shard!r} found" in refusal(shards)


def test_a_tensor_promised_by_the_index_and_absent_is_named(shards):
    first = sorted(shards.glob("*.safetensors"))[0]
    tensors = load_file(first)
    lost = sorted(tensors)[0]
    del tensors[lost]
    save_file(tensors, first)
    assert f"tensor {lost} cannot be read" in refusal(shards)


def test_an_index_without_a_map_is_named(shards):
    (shards / "model.safetensors.index.json").write_text("{}")
    assert "no weight_map" in refusal(shards)


def test_a_config_our_modules_cannot_express_is_a_config_error(whole):
    config = json.loads((whole / "config.json").read_text()) | {"scale_attn_weights": False}
    (whole / "config.json").write_text(json.dumps(config))
    assert "scale_attn_weights is False" in refusal(whole, ConfigError)


def small(**changes):
    sizes = {"vocab_size": 9, "d_model": 16, "n_layers": 1}
    return GPT.create(decode(ModelConfig, sizes | changes))


def test_a_folder_with_something_in_it_is_not_written_to(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(CheckpointError, match="not empty; expected a new folder"):
        save_hf(small(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_place_that_cannot_be_a_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="file: cannot be written"):
        save_hf(small(), tmp_path / "file")


def test_a_refused_model_leaves_nothing_behind(tmp_path):
    with pytest.raises(ConfigError, match="no Hugging Face family"):
        save_hf(small(norm="none"), tmp_path / "new")
    assert not (tmp_path / "new").exists()
