"""What text is read, how it is split and which tokenizer cuts it: the `data` field of a run."""

import re
import warnings
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, field_validator

from assay.citation import Citation
from assay.schema import Config, kind_alone, shown

if TYPE_CHECKING:
    from assay.data.tokenizer import Tokenizer, TrainingText


class CharTokenizerConfig(Config):
    """One token per distinct character of the corpus; nothing to train."""

    kind: Literal["char"] = "char"
    citation: ClassVar[Citation | None] = None

    def build(self, text: "TrainingText") -> "Tokenizer":
        """Return the sorted characters; an end of text only where documents must be kept apart."""
        from assay.data.tokenizer import CharTokenizer

        return CharTokenizer(text.alphabet, end_of_text=text.n_documents > 1)


class ByteTokenizerConfig(Config):
    """One token per byte of UTF-8, and an end of text: 257 tokens, whatever the language."""

    kind: Literal["byte"] = "byte"
    citation: ClassVar[Citation | None] = None

    def build(self, text: "TrainingText") -> "Tokenizer":
        """Return the one byte tokenizer there is."""
        from assay.data.tokenizer import ByteTokenizer

        return ByteTokenizer()


class BPETokenizerConfig(Config):
    """Byte-level byte-pair encoding, trained on the training split alone."""

    kind: Literal["bpe"] = "bpe"
    vocab_size: int = Field(default=2048, ge=257, le=1 << 24)
    """Tokens: 256 bytes, the end of text, and merges. A text too short gives fewer."""
    citation: ClassVar[Citation | None] = Citation(
        "Sennrich et al. 2016", "arXiv:1508.07909", "sec. 3.2"
    )

    def build(self, text: "TrainingText") -> "Tokenizer":
        """Train on the pieces of `text`; the same text gives the same tokenizer."""
        from assay.data.subword import train_bpe

        return train_bpe(text.pieces, vocab_size=self.vocab_size)


class FileTokenizerConfig(Config):
    """A tokenizer somebody trained before: `tokenizer.json`, or GPT-2's two files."""

    kind: Literal["file"] = "file"
    path: str
    """A `tokenizer.json`, or a folder that holds one or GPT-2's `vocab.json` and `merges.txt`."""
    citation: ClassVar[Citation | None] = None

    def build(self, text: "TrainingText") -> "Tokenizer":
        """Read the file; `text` is not looked at."""
        from assay.data.subword import read_tokenizer

        return read_tokenizer(self.path)


# A variant joins the laboratory by being named here, twice, and nowhere else.
TOKENIZERS = (CharTokenizerConfig, ByteTokenizerConfig, BPETokenizerConfig, FileTokenizerConfig)
TokenizerConfig = Annotated[
    CharTokenizerConfig | ByteTokenizerConfig | BPETokenizerConfig | FileTokenizerConfig,
    Field(discriminator="kind"),
    BeforeValidator(kind_alone),
]


def _as_tuple(value: object) -> object:
    """Read a bare string as one entry, and the list of a TOML or JSON file as a tuple."""
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


class DataConfig(Config):
    """The text of a run, from its files to its tokens."""

    text: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = ("shakespeare",)
    """Each of: `shakespeare`, its halves `shakespeare-1` and `shakespeare-2`, `task:copy`,
    `task:reverse`, `task:addition`, a file, a folder, a glob, `-`, or `hf:NAME[:SPLIT]`."""
    json_field: str = "text"
    """The field of a .jsonl line that holds its text; `FILE.jsonl:FIELD` overrides it."""
    document_start: str | None = None
    """A regular expression; a line that it matches from its beginning begins a new document."""
    split: Literal["auto", "document", "tail"] = "auto"
    """`document`: whole documents validate; `tail`: the last characters do; `auto`: see docs."""
    val_fraction: float = Field(default=0.1, gt=0, le=0.5)
    """The part of the text held out: of its bytes by document, of its characters by tail."""
    tokenizer: TokenizerConfig = BPETokenizerConfig()

    @field_validator("text")
    @classmethod
    def _some_text_is_named(cls, text: tuple[str, ...]) -> tuple[str, ...]:
        if not text or not all(text):
            raise ValueError(f"{shown(text)} found; expected at least one file, folder or name.")
        if text.count("-") > 1:
            raise ValueError("'-' found twice; standard input can be read once.")
        return text

    @field_validator("document_start")
    @classmethod
    def _the_pattern_compiles(cls, pattern: str | None) -> str | None:
        try:
            with warnings.catch_warnings(
                action="ignore"
            ):  # of what Python may read otherwise one day
                re.compile(pattern or "")
        except (re.error, RecursionError, OverflowError) as error:
            raise ValueError(
                f"{shown(pattern)} found; expected a regular expression: {error}."
            ) from None
        return pattern
