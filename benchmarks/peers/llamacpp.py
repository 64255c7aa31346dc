"""llama.cpp through its own C interface, on a GGUF file written from a model of transformers."""

from pathlib import Path

import gguf
import llama_cpp
import numpy as np
import torch
from gguf import GGMLQuantizationType as Kind
from numpy.typing import NDArray
from torch import Tensor
from transformers import GPT2LMHeadModel

KINDS = {"F32": Kind.F32, "BF16": Kind.BF16, "Q8_0": Kind.Q8_0}
_SILENT = llama_cpp.llama_log_callback(lambda level, text, data: None)


def write_gguf(model: GPT2LMHeadModel, path: Path, kind: str) -> None:
    """Write a GPT-2 without a vocabulary; matrices in `kind`, norms and biases in float32."""
    config = model.config
    writer = gguf.GGUFWriter(path, "gpt2")
    writer.add_context_length(config.n_positions)
    writer.add_embedding_length(config.n_embd)
    writer.add_feed_forward_length(4 * config.n_embd)
    writer.add_block_count(config.n_layer)
    writer.add_head_count(config.n_head)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("no_vocab")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GPT2, config.n_layer)
    for name, value in model.state_dict().items():
        if name == "lm_head.weight":  # tied
            continue
        theirs = names.get_name(name, try_suffixes=(".weight", ".bias"))
        matrix = value.T if value.ndim == 2 and name.startswith("transformer.h.") else value
        wanted = KINDS[kind] if value.ndim == 2 and "wpe" not in name else Kind.F32
        array = np.ascontiguousarray(matrix.float().numpy())
        writer.add_tensor(theirs, gguf.quants.quantize(array, wanted), raw_dtype=wanted)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _has_amx() -> bool:
    return bool(torch.cpu.get_capabilities().get("amx_int8"))


class Decoder:
    """Greedy decoding of several rows, each a sequence of its own in one batch."""

    def __init__(self, path: Path, *, rows: int, max_len: int, vocab_size: int) -> None:
        llama_cpp.llama_log_set(_SILENT, None)
        self.rows, self.vocab_size = rows, vocab_size
        threads = torch.get_num_threads()
        settings = llama_cpp.llama_model_default_params()
        # Repacked for AMX, a tied Q8_0 matrix ends its first product with a segmentation fault.
        settings.use_extra_bufts = not (path.stem == "Q8_0" and _has_amx())
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), settings)
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = rows * max_len
        params.n_batch = rows * max_len
        params.n_seq_max = rows
        params.n_threads = params.n_threads_batch = threads
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        if not self.context:
            raise RuntimeError("llama.cpp made no context")
        self.batch = llama_cpp.llama_batch_init(rows * max_len, 0, 1)

    def start(self, prompts: Tensor) -> Tensor:
        """Read prompts (B, T) and return the first new token of each row: (B, 1)."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)
        self.read = 0
        return self.step(prompts)

    def step(self, tokens: Tensor) -> Tensor:
        """Take in tokens (B, t) and return the next of each row: (B, 1)."""
        width, batch = tokens.shape[1], self.batch
        for row, ids in enumerate(tokens.tolist()):
            for column, token in enumerate(ids):
                place = row * width + column
                batch.token[place], batch.pos[place] = token, self.read + column
                batch.n_seq_id[place], batch.seq_id[place][0] = 1, row
                batch.logits[place] = column == width - 1
        batch.n_tokens = tokens.numel()
        self.read += width
        if llama_cpp.llama_decode(self.context, batch):
            raise RuntimeError("llama.cpp did not decode")
        drawn = [int(self._logits(row * width + width - 1).argmax()) for row in range(self.rows)]
        return torch.tensor(drawn)[:, None]

    def _logits(self, place: int) -> NDArray[np.float32]:
        found = llama_cpp.llama_get_logits_ith(self.context, place)
        return np.ctypeslib.as_array(found, shape=(self.vocab_size,))
