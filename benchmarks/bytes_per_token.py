"""Bytes per token on held-out text: GPT-2's vocabulary against ones trained on the text's own kind.

    ASSAY_DATA=FOLDER python benchmarks/bytes_per_token.py [CACHE]

FOLDER holds viwiki2017/, english_classics/ and gpt2_tokenizer/, as docs/data.md names them. Both
corpora are split by document; tokenizers see the training side, the figures are of the other one.
Prints a Markdown table and the hash of each prepared set.
"""

import os
import sys
from pathlib import Path

from assay.data.config import (
    BPETokenizerConfig,
    ByteTokenizerConfig,
    DataConfig,
    FileTokenizerConfig,
    TokenizerConfig,
)
from assay.data.prepare import prepare

TEXTS = {
    "Vietnamese": ("viwiki2017/viwiki.txt.xz", "^= .+ =$"),
    "English": ("english_classics/english-classics.txt.bz2", "^# Title: "),
}
OWN_SIZES = (2048, 8192, 16_384)


def main() -> None:
    """Measure every tokenizer on every text."""
    folder = Path(os.environ["ASSAY_DATA"])
    cache = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    gpt2 = FileTokenizerConfig(path=str(folder / "gpt2_tokenizer"))
    tokenizers: dict[str, TokenizerConfig] = {"bytes": ByteTokenizerConfig(), "GPT-2": gpt2}
    tokenizers |= {f"own BPE {size:,}": BPETokenizerConfig(vocab_size=size) for size in OWN_SIZES}
    print("| text | tokenizer | V | bytes per token | tokens per 1,000 bytes | data |")
    print("|---|---|---|---|---|---|", flush=True)
    for text, (path, start) in TEXTS.items():
        for name, tokenizer in tokenizers.items():
            config = DataConfig(
                text=(str(folder / path),), document_start=start, tokenizer=tokenizer
            )
            print(f"| {text} | {name} | {row(config, cache)} |", flush=True)


def row(config: DataConfig, cache: Path | None) -> str:
    """Return the measured cells of one line."""
    data = prepare(config, cache)
    ratio = data.summary["val"]["bytes_per_token"]
    cells = f"{data.tokenizer.vocab_size:,}", f"{ratio:.3f}", f"{1000 / ratio:.0f}"
    return " | ".join((*cells, f"`{data.sha256[:8]}`"))


if __name__ == "__main__":
    main()
