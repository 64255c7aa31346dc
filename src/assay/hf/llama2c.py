"""llama2.c's checkpoints of the first format: seven integers, then float32 numbers in fixed order.

It turns channel pairs (2i, 2i + 1) of a head, and we (i, i + K/2): the rows of queries and keys are
put in our order on reading, which leaves every score as it was.

Source: github.com/karpathy/llama2.c, `export.py`, `legacy_export`, and `run.c`.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from assay.disk import open_ordinary
from assay.errors import CheckpointError, ConfigError, DataError
from assay.hf.llama2c_tokenizer import Llama2cTokenizer
from assay.nn.model import GPT, ModelConfig
from assay.schema import decode

_HEADER = struct.Struct("<7i")
_FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True)
class _Header:
    d_model: int
    d_ff: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    vocab: int  # negative: the output matrix is not the embedding
    max_seq_len: int

    @property
    def d_head(self) -> int:
        return self.d_model // self.n_heads

    def config(self) -> ModelConfig:
        return decode(
            ModelConfig,
            {
                "vocab_size": abs(self.vocab),
                "max_seq_len": self.max_seq_len,
                "d_model": self.d_model,
                "n_layers": self.n_layers,
                "position": "rope",
                "norm": {"kind": "rms", "eps": 1e-5},
                "mixer": {
                    "kind": "attention",
                    "qk_norm": False,
                    "n_heads": self.n_heads,
                    "n_kv_heads": self.n_kv_heads,
                },
                "mlp": {"kind": "swiglu", "d_ff": self.d_ff},
                "tie_embeddings": self.vocab > 0,
                "init": "gaussian",
            },
        )


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Numbers that follow each other in the file.

    Attributes:
        name: Of our parameter, `*` standing for the layer; None for what is not kept.
        copies: One after the other, for layers 0, 1, ...
        shape: Of one.
    """

    name: str | None
    copies: int
    shape: tuple[int, ...]


def load_llama2c(
    model_path: Path | str, tokenizer_path: Path | str
) -> tuple[GPT, Llama2cTokenizer]:
    """Return model, float32 and in evaluation mode, and tokenizer of a llama2.c pair of files.

    Raises:
        CheckpointError: If the model's file is no such checkpoint or not of the size that its
            header announces.
        DataError: If the tokenizer's file is none, or of another vocabulary.
    """
    tokenizer = Llama2cTokenizer.read(Path(tokenizer_path))
    model = _load_model(Path(model_path))
    if tokenizer.vocab_size != model.config.vocab:
        raise DataError(
            f"{tokenizer_path}: {tokenizer.vocab_size} tokens found; expected the "
            f"{model.config.vocab} of {model_path}. Give the tokenizer it was trained with."
        )
    return model, tokenizer


def _load_model(path: Path) -> GPT:
    header = _read_header(path)
    config = _config(path, header)
    stretches = list(_stretches(header))
    expected = _HEADER.size + _FLOAT_BYTES * sum(s.copies * prod(s.shape) for s in stretches)
    if (found := path.stat().st_size) != expected:
        raise CheckpointError(
            f"{path}: {found} bytes found; expected {expected} from its header. The file is cut "
            "short, or of another llama2.c format than version 0 in float32."
        )
    numbers = np.memmap(path, dtype="<f4", mode="r", offset=_HEADER.size)
    weights = dict(_weights(stretches, numbers, header))
    with torch.device("meta"):
        model = GPT(config)
    model.load_state_dict(weights, assign=True)
    return model.eval()


def _read_header(path: Path) -> _Header:
    try:
        with open_ordinary(path) as file:
            header = file.read(_HEADER.size)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{path}: {reason}; expected a llama2.c checkpoint.") from None
    if len(header) < _HEADER.size:
        raise CheckpointError(
            f"{path}: {len(header)} bytes found; expected at least the {_HEADER.size} of a header."
        )
    return _Header(*_HEADER.unpack(header))


def _config(path: Path, header: _Header) -> ModelConfig:
    try:
        config = header.config()
    except ConfigError as error:
        raise CheckpointError(
            f"{path}: its header is of no llama2.c checkpoint of version 0: {error}"
        ) from None
    return config


def _stretches(header: _Header) -> Iterator[_Stretch]:
    d, n, d_ff = header.d_model, header.n_layers, header.d_ff
    d_kv = header.d_head * header.n_kv_heads
    yield _Stretch("embed.weight", 1, (abs(header.vocab), d))
    yield _Stretch("blocks.*.mixer_norm.weight", n, (d,))
    yield _Stretch("blocks.*.mixer.q_proj.weight", n, (d, d))
    yield _Stretch("blocks.*.mixer.k_proj.weight", n, (d_kv, d))
    yield _Stretch("blocks.*.mixer.v_proj.weight", n, (d_kv, d))
    yield _Stretch("blocks.*.mixer.out_proj.weight", n, (d, d))
    yield _Stretch("blocks.*.mlp_norm.weight", n, (d,))
    yield _Stretch("blocks.*.mlp.gate.weight", n, (d_ff, d))
    yield _Stretch("blocks.*.mlp.down.weight", n, (d, d_ff))
    yield _Stretch("blocks.*.mlp.up.weight", n, (d_ff, d))
    yield _Stretch("final_norm.weight", 1, (d,))
    yield _Stretch(None, 2, (header.max_seq_len, header.d_head // 2))  # cosines, sines
    if header.vocab < 0:
        yield _Stretch("unembed.weight", 1, (-header.vocab, d))


def _weights(
    stretches: list[_Stretch], numbers: NDArray[np.float32], header: _Header
) -> Iterator[tuple[str, Tensor]]:
    start = 0
    for stretch in stretches:
        end = start + stretch.copies * prod(stretch.shape)
        if stretch.name is not None:
            block = np.array(numbers[start:end], dtype=np.float32)  # a copy, in native order
            for index, weight in enumerate(torch.from_numpy(block).view(-1, *stretch.shape)):
                turned = stretch.name.endswith(("q_proj.weight", "k_proj.weight"))
                ours = _halves(weight, header.d_head) if turned else weight.clone()
                yield stretch.name.replace("*", str(index)), ours
        start = end


def _halves(weight: Tensor, d_head: int) -> Tensor:
    """Move rows 0, 2, 4, ... of each head to its first half and rows 1, 3, 5, ... to its second."""
    pairs = weight.view(-1, d_head // 2, 2, weight.shape[1])
    return pairs.transpose(1, 2).reshape(weight.shape)
