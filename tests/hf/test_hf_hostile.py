"""Folders made to harm whoever opens them."""

import json
import os
import shutil
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from assay.errors import CheckpointError, ConfigError
from assay.hf import load_hf, save_hf
from assay.nn.model import GPT, ModelConfig
from assay.schema import decode

FIELDS = {"vocab_size": 11, "max_seq_len": 8, "d_model": 8, "n_layers": 1}
EMBED = "model.embed_tokens.weight"


@pytest.fixture
def folder(tmp_path):
    heads = {"kind": "attention", "n_heads": 2, "qk_norm": False}
    save_hf(GPT.create(decode(ModelConfig, FIELDS | {"mixer": heads})), tmp_path / "model")
    return tmp_path / "model"


def refused(folder, match, error=CheckpointError):
    with pytest.raises(error, match=match) as caught:
        load_hf(folder)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 2000


def configured(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def retold(folder, name, **changes):
    """Change one entry of the header, and leave the numbers as they are."""
    path = folder / "model.safetensors"
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header[name] |= changes
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
    return folder


def test_the_unharmed_folder_loads(folder):
    assert load_hf(folder).config.vocab_size == 11


def test_a_model_of_its_own_python_code_is_refused_and_the_code_not_run(folder):
    (folder / "modeling.py").write_text(f"open({str(folder / 'ran')!r}, 'w')")
    configured(folder, auto_map={"AutoModelForCausalLM": "modeling.Model"})
    refused(folder, "auto_map is {.*; expected null", ConfigError)
    assert not (folder / "ran").exists()


def test_trust_is_not_taken_from_the_file_that_asks_for_it(folder):
    refused(configured(folder, trust_remote_code=True), "trust_remote_code is True", ConfigError)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "a.pth", "x.ckpt", "m.pkl"])
def test_a_pickle_by_any_name_is_said_and_not_opened(folder, name):
    (folder / "model.safetensors").rename(folder / name)
    refused(folder, f"{name} is a pickle, which can run code: `assay import` reads it without")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"vocab_size": 2**26}, r"embed_tokens.weight: shape \(11, 8\) found; expected \(67108864"),
        ({"vocab_size": 2**40}, "vocab_size is 1099511627776; expected a whole number up to"),
        ({"num_hidden_layers": 2**26}, "layers.1.input_layernorm.weight: missing"),
        ({"intermediate_size": 2**26}, r"mlp.\w+.weight: shape"),
        ({"hidden_size": 2**26, "head_dim": None}, "shape"),
    ],
)
def test_sizes_are_compared_with_the_config_before_memory_is_taken(folder, fields, said):
    """Of the first config the embedding alone would take 2 GB, of the last a layer 16 PB."""
    refused(configured(folder, **fields), said, (CheckpointError, ConfigError))


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": [2**40, 2**40]},
        {"shape": [2**63, 0]},
        {"shape": [-1, 8]},
        {"shape": [11, 8, 1]},
        {"shape": [88]},
        {"data_offsets": [0, 2**62]},
        {"data_offsets": [8, 0]},
        {"dtype": "F64"},
        {"dtype": "I32"},
        {"dtype": "F8_E4M3", "shape": [11, 32]},
        {"dtype": "BOOL", "shape": [11, 32]},
    ],
)
def test_a_header_that_lies_is_refused(folder, changes):
    refused(retold(folder, EMBED, **changes), "model.safetensors: |embed_tokens.weight: ")


def test_two_tensors_over_the_same_bytes_are_refused(folder):
    path = folder / "model.safetensors"
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    names = sorted(name for name in header if name.endswith("norm.weight"))
    refused(retold(folder, names[0], **header[names[1]]), "model.safetensors: ")


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.bool, torch.float8_e5m2])
def test_weights_that_are_no_floats_of_16_bits_or_more_are_refused(folder, dtype):
    path = folder / "model.safetensors"
    save_file({name: value.to(dtype) for name, value in load_file(path).items()}, path)
    refused(folder, "found; expected a floating dtype of 16 bits or more")


def test_a_header_of_ten_megabytes_is_refused_unread(folder):
    """The library takes up to a hundred, and makes ten times as much memory of it."""
    path = folder / "model.safetensors"
    content = path.read_bytes()
    padded = content[8 : 8 + int.from_bytes(content[:8], "little")].ljust(10_000_000)
    path.write_bytes(len(padded).to_bytes(8, "little") + padded)
    refused(folder, "a header of 10000000 bytes announced")


def sharded(folder, weight_map):
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    text = weight_map if isinstance(weight_map, str) else json.dumps(weight_map)
    (folder / "model.safetensors.index.json").write_text(f'{{"weight_map": {text}}}')
    return folder


def test_an_index_that_names_a_tensor_twice_is_refused(folder):
    twice = f'{{"{EMBED}": "a.safetensors", "{EMBED}": "b.safetensors"}}'
    refused(sharded(folder, twice), f"'{EMBED}' found twice in one object")


@pytest.mark.parametrize(
    "shard", ["../a.safetensors", "/a.safetensors", "", ".", "a\0b", "x" * 4000, None, ["a"]]
)
def test_a_shard_is_the_name_of_a_file_and_no_path(folder, shard):
    refused(sharded(folder, {EMBED: shard}), "shard .* found; expected the name of a file")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_link_out_of_the_folder_is_refused(folder, tmp_path, name):
    (folder / name).touch()
    (folder / name).rename(tmp_path / name)
    (folder / name).symlink_to(tmp_path / name)
    refused(folder, f"{name}: a link that leads out of the folder")


def test_the_links_of_the_hubs_cache_are_followed(folder, tmp_path):
    """There a snapshot is a folder of links to blobs beside the snapshots."""
    cache = tmp_path / "models--someone--model"
    (cache / "blobs").mkdir(parents=True)
    shutil.copytree(folder, cache / "snapshots" / "abc")
    for path in (cache / "snapshots" / "abc").iterdir():
        path.rename(cache / "blobs" / path.name[::-1])
        path.symlink_to(f"../../blobs/{path.name[::-1]}")
    assert load_hf(cache / "snapshots" / "abc").config.vocab_size == 11
    (cache / "snapshots" / "abc" / "more").symlink_to("../../../model/config.json")
    refused(cache / "snapshots" / "abc", "more: a link that leads out")


def test_a_pipe_is_not_waited_for(folder):
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")
    refused(folder, "config.json: .* a pipe")


def test_a_config_too_large_to_be_one_is_not_read(folder):
    with (folder / "config.json").open("wb") as file:
        file.truncate(1 << 33)
    refused(folder, "8589934592 bytes found; expected at most")


def test_a_buffer_of_another_dtype_is_passed_over_as_before(folder, tmp_path):
    """GPT-2's files on the hub have masks among their tensors."""
    fields = {"position": "learned", "norm": "layer", "mlp": "gelu", "bias": True}
    heads = {"kind": "attention", "n_heads": 2, "qk_norm": False}
    save_hf(GPT.create(decode(ModelConfig, FIELDS | fields | {"mixer": heads})), tmp_path / "gpt2")
    path = tmp_path / "gpt2" / "model.safetensors"
    mask = torch.from_numpy(np.tri(8, dtype=np.uint8))
    save_file(load_file(path) | {"h.0.attn.bias": mask}, path)
    assert load_hf(tmp_path / "gpt2").config.n_layers == 1


def calls_of(work):
    """Return the names of all functions in C that `work` calls."""
    called = set()

    def note(frame, event, function):
        if event == "c_call":
            called.add(function.__name__)

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return called


def test_no_tensor_is_read_of_a_folder_whose_last_one_does_not_fit(folder):
    """Headers are compared with the config first: what is refused costs no memory."""
    assert "get_tensor" in calls_of(lambda: load_hf(folder))
    retold(folder, "model.norm.weight", shape=[2, 4])
    assert "get_tensor" not in calls_of(lambda: refused(folder, r"norm.weight: shape \(2, 4\)"))
