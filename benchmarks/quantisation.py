"""What rounding the matrices costs: bits per byte of real models in float32, bfloat16 and int8.

    ASSAY_DATA=FOLDER python benchmarks/quantisation.py

FOLDER holds stories260K/ and tinyshakespeare/. The pretrained model is judged on stories that it
wrote itself in float32: what a rounded one loses there is its divergence from the first. The
other model is trained here (characters, 4 layers of 128 channels, about a minute) and judged on
the validation text. Prints a Markdown table.
"""

import contextlib
import os
import tempfile
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

from assay.config import RunConfig
from assay.data.prepare import prepare
from assay.data.tokenizer import Tokenizer
from assay.data.windows import evaluation_windows
from assay.decode.weights import Weights, rounded
from assay.evaluate.loss import evaluate
from assay.generate import GenerateOptions, generate
from assay.hf.llama2c import load_llama2c
from assay.nn.model import GPT
from assay.runs.run import Run
from assay.sampling import SamplingConfig
from assay.schema import override

STORIES, STORY_TOKENS, START = 64, 255, 1
RUN = {
    "data.tokenizer": "char",
    "model.max_seq_len": 128,
    "train.steps": 600,
    "train.batch_size": 16,
    "eval.every": 600,
}


def own_stories(model: GPT) -> Tensor:
    """Return what the model writes, a story a row."""
    options = GenerateOptions(max_new_tokens=STORY_TOKENS, n_samples=STORIES, reader="torch")
    list(run := generate(model, [[START]], SamplingConfig(), options=options))
    return torch.tensor([[START, *row] for row in run.generated])


def trained(text: Path, folder: Path) -> tuple[GPT, Tokenizer, Tensor]:
    """Train the small model; return it with the windows of its validation text."""
    config = override(RunConfig(), {"data.text": str(text), **RUN})
    run = Run.create(config, folder / "run")
    for _ in run.train():
        pass
    model, tokenizer = run.load()
    val = prepare(run.config.data).val.ids
    return model, tokenizer, evaluation_windows(val, seq_len=128)


def tell(name: str, model: GPT, tokenizer: Tokenizer, windows: Tensor) -> None:
    """Print a row for each kind of weights."""
    lengths, plain = tokenizer.token_byte_lengths(), contextlib.nullcontext
    kinds = get_args(Weights)
    found = [evaluate(rounded(model, kind), windows, lengths, plain) for kind in kinds]
    for kind, bits in zip(kinds, (each.bits_per_byte for each in found), strict=True):
        extra = bits - found[0].bits_per_byte
        print(f"| {name} | {found[0].text_bytes:,} | {kind} | {bits:.5f} | {extra:+.5f} |")


def main() -> None:
    """Judge both models."""
    data = Path(os.environ["ASSAY_DATA"])
    print("| model | bytes of text | weights | bits per byte | more than fp32 |")
    print("|---|---|---|---|---|")
    stories = data / "stories260K"
    model, tokenizer = load_llama2c(stories / "stories260K.bin", stories / "tok512.bin")
    tell("stories260K", model, tokenizer, own_stories(model))
    with tempfile.TemporaryDirectory() as folder:
        name = "L4 d128, Shakespeare"
        tell(name, *trained(data / "tinyshakespeare" / "input.txt", Path(folder)))


if __name__ == "__main__":
    main()
