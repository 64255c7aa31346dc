"""Weights out of a pickle: nothing runs, nothing but weights is taken, the logits are right."""

import contextlib
import json
import math
import os
import pickle
import resource
import zipfile

import pytest
import torch
import torch.nn.functional as F
from hf_models import GPT2, LLAMA, build
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from assay.cli.import_ import import_
from assay.errors import AssayError, CheckpointError, ConfigError
from assay.hf import load_hf, save_hf
from assay.hf.torch_file import read_torch_file
from assay.hf.torch_model import choose
from assay.nn.model import GPT, ModelConfig
from assay.schema import decode

SETTINGS = {
    "n_layer": 2,
    "n_head": 4,
    "n_embd": 32,
    "block_size": 24,
    "bias": True,
    "vocab_size": 61,
    "dropout": 0.1,
}
TOKENS = torch.randint(0, 61, (2, 20), generator=torch.Generator().manual_seed(3))


class Part(nn.Module):
    """A module of named parts, as nanoGPT's are."""

    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)


def nano(settings):
    """A model with the parameters of nanoGPT, written after its description, weights random."""
    width, bias = settings["n_embd"], settings["bias"]

    def norm():
        return nn.LayerNorm(width, bias=bias)

    def layer():
        attn = Part(
            c_attn=nn.Linear(width, 3 * width, bias=bias),
            c_proj=nn.Linear(width, width, bias=bias),
        )
        length = settings["block_size"]
        attn.register_buffer("bias", torch.tril(torch.ones(length, length))[None, None])
        mlp = Part(
            c_fc=nn.Linear(width, 4 * width, bias=bias),
            c_proj=nn.Linear(4 * width, width, bias=bias),
        )
        return Part(ln_1=norm(), attn=attn, ln_2=norm(), mlp=mlp)

    transformer = Part(
        wte=nn.Embedding(settings["vocab_size"], width),
        wpe=nn.Embedding(settings["block_size"], width),
        h=nn.ModuleList(layer() for _ in range(settings["n_layer"])),
        ln_f=norm(),
    )
    model = Part(
        transformer=transformer, lm_head=nn.Linear(width, settings["vocab_size"], bias=False)
    )
    model.lm_head.weight = transformer.wte.weight
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.double().parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_((1.0 if parameter.dim() == 1 else 0.0) + 0.3 * noise)
    return model


def nano_logits(model, tokens, n_head):
    """nanoGPT's forward pass, head by head and without any fused kernel."""
    parts = model.transformer
    x = parts.wte(tokens) + parts.wpe.weight[: tokens.shape[1]]
    hidden = torch.ones(tokens.shape[1], tokens.shape[1]).triu(1).bool()
    for layer in parts.h:
        q, k, v = layer.attn.c_attn(layer.ln_1(x)).split(x.shape[-1], dim=-1)
        heads = []
        for a, b, c in zip(*(t.chunk(n_head, dim=-1) for t in (q, k, v)), strict=True):
            scores = (a @ b.mT / math.sqrt(a.shape[-1])).masked_fill(hidden, -math.inf)
            heads.append(scores.softmax(-1) @ c)
        x = x + layer.attn.c_proj(torch.cat(heads, -1))
        x = x + layer.mlp.c_proj(F.gelu(layer.mlp.c_fc(layer.ln_2(x))))
    return model.lm_head(parts.ln_f(x))


def saved(tmp_path, content, name="ckpt.pt"):
    torch.save(content, tmp_path / name)
    return tmp_path / name


def nano_file(tmp_path, model, settings, **changes):
    state = {f"_orig_mod.{name}": value for name, value in model.state_dict().items()}
    whole = {
        "model": state,
        "optimizer": {"state": {}, "param_groups": [{"lr": 1e-3}]},
        "model_args": settings,
        "iter_num": 2000,
        "best_val_loss": torch.tensor(1.47),
        "config": {"out_dir": "out"},
    }
    return saved(tmp_path, whole | changes)


def imported(path, config=None):
    return choose(read_torch_file(path), path, config)


@pytest.mark.parametrize("bias", [True, False])
def test_nanogpts_own_forward_and_the_folder_it_becomes_give_the_same_logits(tmp_path, bias):
    settings = SETTINGS | {"bias": bias}
    theirs = nano(settings)
    candidate = imported(nano_file(tmp_path, theirs, settings))
    save_hf(candidate.build(), tmp_path / "out")
    ours = load_hf(tmp_path / "out")
    with torch.no_grad():
        expected = nano_logits(theirs, TOKENS, settings["n_head"])
        # float64, a few thousand roundings of 1e-16 on numbers of size 1 to 10
        torch.testing.assert_close(ours(TOKENS), expected, rtol=1e-10, atol=1e-10)
    assert ours.config.max_seq_len == 24
    assert len(candidate.added) == (0 if bias else 2 * 6 + 1)
    assert all(not candidate.taken[name].any() for name in candidate.added)


def test_what_is_no_weight_is_named_with_what_it_is(tmp_path):
    refused = imported(nano_file(tmp_path, nano(SETTINGS), SETTINGS)).refused
    masks = [name for name, reason in refused.items() if "mask" in reason]
    assert masks == [f"transformer.h.{layer}.attn.bias" for layer in range(2)]
    assert {name: refused[name] for name in refused if name not in masks} == {
        "optimizer": "dict of 2, beside the weights",
        "iter_num": "int, beside the weights",
        "best_val_loss": "a tensor, beside the weights",
        "config": "dict of 1, beside the weights",
    }


@pytest.mark.parametrize("fields", [GPT2, LLAMA], ids=lambda f: f["model_type"])
def test_a_pytorch_model_bin_beside_its_config_is_the_model_transformers_has(tmp_path, fields):
    theirs = build(fields)
    (tmp_path / "config.json").write_text(json.dumps(theirs.config.to_dict()))
    ours = imported(saved(tmp_path, theirs.state_dict(), "pytorch_model.bin")).build()
    with torch.no_grad():  # as tests/hf/hf_models.py derives it for Llama
        torch.testing.assert_close(ours(TOKENS), theirs(TOKENS).logits, rtol=1e-5, atol=1e-5)


def test_a_state_dict_of_our_names_comes_back_to_the_bit(tmp_path):
    config = decode(ModelConfig, {"vocab_size": 61, "max_seq_len": 24, "d_model": 16})
    model = GPT.create(config, seed=5)
    path = saved(tmp_path, {"module." + n: t for n, t in model.state_dict().items()})
    vocabulary_unknown = config.model_copy(update={"vocab_size": None})
    back = imported(path, vocabulary_unknown).build()
    assert back.config == config
    for name, value in model.state_dict().items():
        assert torch.equal(back.state_dict()[name], value)


class Trap:
    """Runs a command when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("variable", ["", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"])
@pytest.mark.parametrize("looked_at_first", [True, False])
def test_a_trap_is_refused_and_not_run_whatever_the_environment_says(
    tmp_path, monkeypatch, variable, looked_at_first
):
    """Also where only PyTorch looks: both walls must hold alone."""
    if variable:
        monkeypatch.setenv(variable, "1")
    if not looked_at_first:
        monkeypatch.setattr("assay.hf.torch_file._harmless", lambda name: True)
    marker = tmp_path / "sprung"
    path = saved(tmp_path, {"model": {"a.weight": torch.ones(2)}, "extra": Trap(marker)})
    with pytest.raises(CheckpointError, match=r"ckpt\.pt") as error:
        read_torch_file(path)
    assert "\n" not in str(error.value)
    assert not marker.exists()


def test_the_trap_above_would_spring(tmp_path):
    """Opened as pickles are: otherwise it would prove nothing."""
    marker = tmp_path / "sprung"
    torch.load(saved(tmp_path, Trap(marker)), weights_only=False)
    assert marker.exists()


def test_a_plain_file_opens_where_the_environment_asks_for_more(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    contents = read_torch_file(saved(tmp_path, {"a.weight": torch.ones(2)}))
    assert contents.tensors["a.weight"].tolist() == [1.0, 1.0]


def test_both_variables_at_once_are_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    monkeypatch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "1")
    with pytest.raises(CheckpointError, match="Only one of"):
        read_torch_file(saved(tmp_path, {"a.weight": torch.ones(2)}))


def stretched(shape):
    return torch.zeros(1).expand(shape)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ([1, 2], "list found; expected tensors by name"),
        (nn.Linear(2, 2), "torch.nn.modules.linear Linear"),
        ({"a": torch.zeros(2), "b": bytearray(10)}, "builtin.* bytearray"),
        ({f"w{n}": torch.zeros(1)[:] for n in range(3)}, "model_args"),
    ],
)
def test_a_file_of_something_else_is_one_sentence(tmp_path, content, told):
    with pytest.raises(CheckpointError, match=told) as error:
        imported(saved(tmp_path, content))
    assert "\n" not in str(error.value)


def test_a_tensor_larger_than_its_data_and_tensors_of_other_kinds_are_refused(tmp_path):
    weights = {
        "wide": stretched((10**6, 10**6)),
        "whole": torch.arange(3),
        "bad name\x1b[2J": torch.zeros(1),
        "text": "hello",
        7: torch.zeros(1),
        "good": torch.zeros(2),
    }
    contents = read_torch_file(saved(tmp_path, weights))
    assert list(contents.tensors) == ["good"]
    assert contents.refused == {
        "wide": "of shape (1000000, 1000000), with less data than that in the file",
        "whole": "torch.int64, not a floating dtype",
        "bad name\N{REPLACEMENT CHARACTER}[2J": "its name is none of a parameter",
        "text": "str, not a tensor",
        "(int)": "its name is none of a parameter",
    }


def test_names_that_share_their_data_are_refused_but_for_a_tie(tmp_path):
    one = torch.zeros(1000)
    assert len(read_torch_file(saved(tmp_path, {"a": one, "b": one})).tensors) == 2
    with pytest.raises(CheckpointError, match="data of its own"):
        read_torch_file(saved(tmp_path, {f"w{n}": one for n in range(50)}))


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        ({"n_embd": 2**40}, ConfigError, "model_args.n_embd: int found"),
        ({"n_embd": 2**26}, CheckpointError, "nothing was built"),
        ({"n_layer": 2**25}, CheckpointError, "n_layer 33554432 found for"),
        ({"n_layer": True}, ConfigError, "model_args.n_layer: bool"),
        ({"n_head": "4"}, ConfigError, "model_args.n_head: str"),
        ({"n_layer": 3}, CheckpointError, "transformer.h.2.ln_1.weight: missing"),
        ({"block_size": 25}, CheckpointError, "transformer.wpe.weight: shape"),
        ({"n_layer": 1}, CheckpointError, "13 tensors in all have no place|have no place"),
        ({"n_head": 5}, ConfigError, "32"),
        ({"dropout": [0.1]}, ConfigError, "model_args.dropout: list"),
    ],
)
def test_settings_that_are_not_the_weights_are_told_before_anything_is_built(
    tmp_path, change, error, told
):
    path = nano_file(tmp_path, nano(SETTINGS), SETTINGS | change)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(error, match=f"(?i){told}"):
        imported(path).build()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 50 << 10  # KiB on Linux; a table of 2**26 columns would be gigabytes


def repacked(path, change):
    """The archive with its records passed through `change(name, content)`."""
    with zipfile.ZipFile(path) as archive:
        records = [(info.filename, archive.read(info)) for info in archive.infolist()]
    target = path.with_name("changed.pt")
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in records:
            for new_name, new_content, how in change(name, content):
                archive.writestr(new_name, new_content, compress_type=how)
    return target


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda n, c: [(n, c, zipfile.ZIP_DEFLATED)], "a compressed record"),
        (lambda n, c: [(n, c, 0), (n.replace("data.pkl", "x/data.pkl"), c, 0)], "record twice"),
        (lambda n, c: [(n.replace("data.pkl", "constants.pkl"), c, 0)], "TorchScript"),
        (lambda n, c: [(n.replace("data.pkl", "none"), c, 0)], "0 pickles"),
        (lambda n, c: [(n, c + b"N" * (1 << 22) if "pkl" in n else c, 0)], "a pickle of"),
        (lambda n, c: [(n, b"\x80\x04\x8c\x02os\x8c\x06system\x93." if "pkl" in n else c, 0)],
         "STACK_GLOBAL"),
        (lambda n, c: [(n, c[:40] if "pkl" in n else c, 0)], "expected a file of torch.save"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_that_torch_save_would_not_make_is_refused(tmp_path, change, told):
    path = saved(tmp_path, {"a.weight": torch.ones(4)})
    assert read_torch_file(path).tensors["a.weight"].tolist() == [1.0] * 4
    with pytest.raises(CheckpointError, match=told):
        read_torch_file(repacked(path, change))


@pytest.mark.parametrize("content", [b"", b"PK", pickle.dumps({"a": 1}), b"\0" * 500])
def test_what_is_no_archive_is_refused(tmp_path, content):
    path = tmp_path / "a.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="zip archive"):
        read_torch_file(path)


@pytest.mark.parametrize("make", [lambda p: p.mkdir(), os.mkfifo, lambda p: None])
def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path, make):
    make(tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"a\.pt"):
        read_torch_file(tmp_path / "a.pt")


def test_a_record_longer_than_the_file_is_one_sentence(tmp_path):
    """The local header of the pickle claims more bytes before it than there are after it."""
    path = saved(tmp_path, {"model": {"a.weight": torch.ones(9)}, "model_args": {"n_layer": 1}})
    content = bytearray(path.read_bytes())
    content[29] = 6
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"ckpt\.pt: it ends before its records do; expected"):
        read_torch_file(path)


@settings(max_examples=150)
@given(data=st.data())
def test_a_file_changed_anywhere_gives_tensors_or_an_error_of_ours(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("changed")
    path = saved(folder, {"model": {"a.weight": torch.ones(9)}, "model_args": {"n_layer": 1}})
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))
    path.write_bytes(content[:cut])
    with contextlib.suppress(AssayError):
        contents = read_torch_file(path)
        assert all(tensor.numel() <= 9 for tensor in contents.tensors.values())


def test_the_command_writes_a_folder_once_and_says_what_it_took(tmp_path, capsys):
    path, out = nano_file(tmp_path, nano(SETTINGS), SETTINGS), tmp_path / "out"
    import_(path, out)
    told = capsys.readouterr()
    row = json.loads(told.out)
    assert row["source"] == "nanoGPT"
    assert row["refused"]["iter_num"] == "int, beside the weights"
    assert row["taken"]["transformer.wte.weight"] == [61, 32]
    assert "refused  optimizer: dict of 2" in told.err
    assert "transformer.h.N.attn.c_attn.weight (32, 96), 2 of them" in told.err
    assert sorted(p.name for p in out.iterdir()) == ["config.json", "model.safetensors"]
    before = (out / "model.safetensors").stat().st_mtime_ns
    with pytest.raises(CheckpointError, match="Nothing is written over"):
        import_(path, out)
    assert (out / "model.safetensors").stat().st_mtime_ns == before


def test_a_file_that_fits_no_config_leaves_no_folder(tmp_path):
    path = nano_file(tmp_path, nano(SETTINGS), SETTINGS | {"n_layer": 1})
    with pytest.raises(CheckpointError, match="Nothing was written"):
        import_(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_our_names_are_read_with_the_config_of_a_file(tmp_path, capsys):
    (tmp_path / "a.toml").write_text("[model]\nd_model = 16\nmax_seq_len = 24\n")
    config = decode(ModelConfig, {"vocab_size": 61, "max_seq_len": 24, "d_model": 16})
    model = GPT.create(config, seed=5)
    path = saved(tmp_path, model.state_dict())
    import_(path, tmp_path / "out", config=str(tmp_path / "a.toml"), as_json=True)
    assert capsys.readouterr().err == ""
    with torch.no_grad():  # a conversion moves numbers and computes none
        assert torch.equal(load_hf(tmp_path / "out")(TOKENS), model.eval()(TOKENS))
