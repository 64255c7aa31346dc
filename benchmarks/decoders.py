"""Who decodes: assay and its peers, on one GPT-2 small with random weights.

Hugging Face's model is made first; assay and llama.cpp get its weights, so that all three must draw
the same tokens. litgpt and the article's code have architectures of their own at the same size.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from assay.generate import GenerateOptions, QuantizedModel, generate
from assay.hf import from_hf
from assay.nn.model import GPT
from assay.sampling import SamplingConfig
from assay.schema import decode
from shapes import SMALL

PROMPT_TOKENS, MAX_LEN = 128, 256
SHAPE = replace(SMALL, seq_len=1024)
_GREEDY = decode(SamplingConfig, {"temperature": 0.0})


class Decoder(Protocol):
    """Something that decodes greedily."""

    def start(self, prompts: Tensor) -> Tensor:
        """Read prompts (B, T) and return the first new token of each row: (B, 1)."""

    def step(self, tokens: Tensor) -> Tensor:
        """Take in tokens (B, 1) and return the next of each row: (B, 1)."""


@dataclass(frozen=True, slots=True)
class Entrant:
    """A row of the table.

    Attributes:
        label: As the table prints it.
        weight_bytes: Of one weight.
        make: Builds it for a number of rows; files may go to the folder.
        same_model: Whether its tokens must be Hugging Face's.
        n_steps: Tokens after the first in a visit, in share of the others'.
    """

    label: str
    weight_bytes: float
    make: Callable[["Source", int, Path], Decoder]
    same_model: bool = True
    n_steps: float = 1.0


class Source:
    """The weights that all have, made once.

    As initialised, a tied model repeats itself; with four times the matrices in its blocks it does
    not, and equal tokens mean something.
    """

    def __init__(self, device: torch.device) -> None:
        from peers import huggingface

        torch.manual_seed(0)
        self.device = device
        self.model = huggingface.gpt2(SHAPE).to(device).eval()
        with torch.no_grad():
            for name, matrix in self.model.named_parameters():
                if ".h." in name and matrix.ndim == 2:
                    matrix.mul_(4)

    def prompts(self, rows: int) -> Tensor:
        """Return random prompts (rows, PROMPT_TOKENS)."""
        draw = torch.Generator().manual_seed(1)
        size = (rows, PROMPT_TOKENS)
        return torch.randint(SHAPE.vocab_size, size, generator=draw).to(self.device)


class Ours:
    """assay through its public `generate`; the tokens passed to `step` are those it gave out.

    Weights are rounded before the first visit, as llama.cpp's are when its file is written.
    """

    def __init__(self, model: GPT, options: GenerateOptions) -> None:
        self.model, self.options = QuantizedModel(model, options.weights), options

    def start(self, prompts: Tensor) -> Tensor:
        """Read prompts (B, T) and return the first new token of each row: (B, 1)."""
        steps = generate(self.model, prompts.tolist(), _GREEDY, options=self.options)
        self.steps: Iterator[list[int | None]] = iter(steps)
        return self.step(prompts)

    def step(self, tokens: Tensor) -> Tensor:
        """Return the next token of each row: (B, 1)."""
        return torch.tensor(next(self.steps), device=tokens.device)[:, None]


class Article:
    """The appendix's loop: the whole context for every token, drawn at temperature 1."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model.eval()

    def start(self, prompts: Tensor) -> Tensor:
        """Read prompts (B, T) and return the first new token of each row: (B, 1)."""
        self.ids = prompts
        return self.step(prompts)

    def step(self, tokens: Tensor) -> Tensor:
        """Return the next token of each row: (B, 1)."""
        from peers import article

        self.ids = article.next_tokens(self.model, self.ids)
        return self.ids[:, -1:]


def _ours(weights: str, reader: str = "auto") -> Callable[[Source, int, Path], Decoder]:
    def make(source: Source, rows: int, folder: Path) -> Decoder:
        model = from_hf(source.model.config.to_dict(), source.model.state_dict())
        asked = {"max_new_tokens": MAX_LEN - PROMPT_TOKENS, "weights": weights, "reader": reader}
        return Ours(model, decode(GenerateOptions, asked))

    return make


def _graphs(weights: str) -> Callable[[Source, int, Path], Decoder]:
    def make(source: Source, rows: int, folder: Path) -> Decoder:
        if source.device.type != "cuda":
            raise RuntimeError("CUDA graphs need a CUDA device")
        return _ours(weights, reader="graphs")(source, rows, folder)

    return make


def _hugging_face(dtype: torch.dtype) -> Callable[[Source, int, Path], Decoder]:
    def make(source: Source, rows: int, folder: Path) -> Decoder:
        from peers import huggingface

        return huggingface.Decoder(copy.deepcopy(source.model).to(dtype))

    return make


def _litgpt(dtype: torch.dtype) -> Callable[[Source, int, Path], Decoder]:
    def make(source: Source, rows: int, folder: Path) -> Decoder:
        from peers import lit

        return lit.Decoder(lit.build(SHAPE).to(source.device, dtype), MAX_LEN)

    return make


def _llama_cpp(kind: str) -> Callable[[Source, int, Path], Decoder]:
    def make(source: Source, rows: int, folder: Path) -> Decoder:
        from peers import llamacpp

        if source.device.type != "cpu":
            raise RuntimeError("llama.cpp is compared on a CPU only")
        path = folder / f"{kind}.gguf"
        if not path.exists():
            llamacpp.write_gguf(source.model, path, kind)
        return llamacpp.Decoder(path, rows=rows, max_len=MAX_LEN, vocab_size=SHAPE.vocab_size)

    return make


def _article(source: Source, rows: int, folder: Path) -> Decoder:
    from peers import article

    return Article(article.build(SHAPE).to(source.device))


FP32, BF16 = torch.float32, torch.bfloat16
DECODERS = {
    "assay fp32": Entrant("assay, fp32", 4, _ours("fp32")),
    "assay bf16": Entrant("assay, bf16", 2, _ours("bf16")),
    "assay int8": Entrant("assay, int8", 1, _ours("int8")),
    "assay bf16 graphs": Entrant("assay, bf16, CUDA graphs", 2, _graphs("bf16")),
    "llama.cpp F32": Entrant("llama.cpp, F32", 4, _llama_cpp("F32")),
    "llama.cpp BF16": Entrant("llama.cpp, BF16", 2, _llama_cpp("BF16")),
    "llama.cpp Q8_0": Entrant("llama.cpp, Q8_0", 34 / 32, _llama_cpp("Q8_0")),
    "hf fp32": Entrant("Hugging Face GPT-2, fp32", 4, _hugging_face(FP32)),
    "hf bf16": Entrant("Hugging Face GPT-2, bf16", 2, _hugging_face(BF16)),
    "litgpt fp32": Entrant("litgpt, fp32", 4, _litgpt(FP32), same_model=False),
    "litgpt bf16": Entrant("litgpt, bf16", 2, _litgpt(BF16), same_model=False),
    "article": Entrant(
        "the article's loop, no cache, fp32", 4, _article, same_model=False, n_steps=0.125
    ),
}
REFERENCE = "hf fp32"
