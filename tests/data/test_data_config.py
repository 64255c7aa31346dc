import subprocess
import sys

import pytest

from assay.data.config import TOKENIZERS, BPETokenizerConfig, DataConfig, FileTokenizerConfig
from assay.errors import ConfigError
from assay.schema import decode, field_paths, override


def test_a_bare_string_and_a_list_are_read_as_a_tuple_of_texts():
    assert decode(DataConfig, {"text": "a.txt"}).text == ("a.txt",)
    assert decode(DataConfig, {"text": ["a.txt", "b"]}).text == ("a.txt", "b")
    assert DataConfig().text == ("shakespeare",)


@pytest.mark.parametrize("text", [[], [""], ["-", "a.txt", "-"], 3])
def test_a_text_that_names_nothing_is_refused(text):
    with pytest.raises(ConfigError, match=r"text: .* found"):
        decode(DataConfig, {"text": text})


def test_a_kind_alone_names_a_tokenizer_with_its_defaults():
    config = override(DataConfig(), {"tokenizer": "bpe", "tokenizer.vocab_size": 300})
    assert config.tokenizer == BPETokenizerConfig(vocab_size=300)
    assert {cls().kind for cls in TOKENIZERS if cls is not FileTokenizerConfig} == {
        "char",
        "byte",
        "bpe",
    }


def test_a_vocabulary_without_room_for_all_bytes_and_the_end_is_refused():
    with pytest.raises(ConfigError, match=r"tokenizer\.vocab_size: 256 found; .* 257"):
        override(DataConfig(), {"tokenizer.vocab_size": 256})


@pytest.mark.parametrize("fraction", [0.0, 0.51, -0.1])
def test_a_fraction_that_leaves_a_side_empty_is_refused(fraction):
    with pytest.raises(ConfigError, match=f"val_fraction: {fraction} found"):
        override(DataConfig(), {"val_fraction": fraction})


def test_a_pattern_that_is_no_regular_expression_is_refused():
    with pytest.raises(
        ConfigError, match=r"document_start: '\(' found; expected a regular expression"
    ):
        override(DataConfig(), {"document_start": "("})


def test_every_field_says_what_it_means():
    said = {path for path, meaning in field_paths(DataConfig).items() if meaning}
    assert {"text", "json_field", "document_start", "split", "val_fraction"} <= said


def test_importing_the_config_imports_neither_torch_nor_numpy():
    code = "import sys, assay.data.config; sys.exit(bool({'torch', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
