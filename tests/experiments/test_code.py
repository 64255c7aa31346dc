"""What of the code decides the name of a finished run, and what may be changed without loss."""

import ast
import io
import shutil
import tokenize

import pytest
from hypothesis import given
from hypothesis import strategies as st

import assay.experiments.code as code
from assay.experiments.code import SHOWS_ONLY, bare_cpp, bare_python, code_sha256

INITIAL = "assay.experiments.tasks.initial"
TRAINING = "assay.runs.run"

PYTHON = '''"""A module."""

import math  # of numbers

_RATE = "#1 # no comment"  # one
"""Of a step, in ứ."""


class Step:
    """A step.

    Attributes:
        size: Its size.
    """

    size: float = 2.0
    """In metres."""

    def __call__(self, x):
        """Return the step."""
        text = """kept

        as it is"""
        return (
            # a comment by itself
            x + self.size  # and one behind
        )
'''
CPP = r"""// A file.
#include "a//b.h"  // a header

/* over
   lines */
const char* kText = "/* no comment */ \" // none";
const char kSlash = '/', kQuote = '"';  // one "quoted"
const auto kRaw = R"x(// kept )" */)x";
int f(int x) { return x / 2; }  /* half */ int g();
"""


def test_comments_and_docstrings_are_left_out_of_python_and_nothing_else():
    bare = bare_python(PYTHON)
    assert bare.splitlines() == [
        "import math",
        '_RATE = "#1 # no comment"',
        "class Step:",
        "    size: float = 2.0",
        "    def __call__(self, x):",
        '        text = """kept',
        "",
        '        as it is"""',
        "        return (",
        "            x + self.size",
        "        )",
    ]


def test_comments_are_left_out_of_cpp_and_nothing_else():
    assert bare_cpp(CPP).splitlines() == [
        '#include "a//b.h"',
        r'const char* kText = "/* no comment */ \" // none";',
        "const char kSlash = '/', kQuote = '\"';",
        'const auto kRaw = R"x(// kept )" */)x";',
        "int f(int x) { return x / 2; }    int g();",
    ]


def tokens_of(source):
    """The tokens of all statements that are not a string alone."""
    found, statement = [], []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in (tokenize.NEWLINE, tokenize.ENDMARKER):
            if any(kind != tokenize.STRING for kind, _ in statement):
                found += [text for _, text in statement]
            statement = []
        elif token.type not in (tokenize.COMMENT, tokenize.NL, tokenize.INDENT, tokenize.DEDENT):
            statement.append((token.type, token.string))
    return found


@pytest.mark.parametrize("path", sorted(code._reached(TRAINING)), ids=lambda path: path.name)
def test_what_is_left_of_every_file_is_every_statement_of_it(path):
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        assert tokens_of(bare_python(source)) == tokens_of(source)
    else:
        assert "//" not in bare_cpp(source)
        assert bare_cpp(source).count(";") > 0
        assert bare_cpp(bare_cpp(source)) == bare_cpp(source)


@given(st.text(alphabet="#'\"\\\n ab=()", max_size=40))
def test_a_text_that_is_no_python_is_no_reason_to_hang(text):
    try:
        ast.parse(text)
    except (SyntaxError, ValueError):
        return
    bare_python(text)


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A copy of the package, of which the hash is taken."""
    root = tmp_path / "assay"
    shutil.copytree(code._ROOT, root, ignore=shutil.ignore_patterns("bundled", "__pycache__"))
    monkeypatch.setattr(code, "_ROOT", root)
    return root


def hashes():
    fresh = code_sha256.__wrapped__
    return fresh(INITIAL), fresh(TRAINING)


def edit(path, words, instead):
    source = path.read_text(encoding="utf-8")
    assert words in source
    path.write_text(source.replace(words, instead, 1), encoding="utf-8")


def test_a_sentence_a_plot_or_a_page_changes_no_name(copied):
    before = hashes()
    edit(copied / "nn" / "norm.py", '"""', '"""Better said. ')
    edit(copied / "nn" / "norm.py", "\nfrom ", "\n# a comment\n\n\nfrom ")
    edit(copied / "native" / "product.h", "// Matrix products", "// All products of matrices")
    for name in SHOWS_ONLY:
        (copied / name).write_text("# another\n", encoding="utf-8")
    for name in ("measure/bigram.py", "experiments/page.py", "cli/train.py"):
        (copied / name).write_text("# another\n", encoding="utf-8")
    assert hashes() == before


@pytest.mark.parametrize(
    ("name", "words", "instead"),
    [
        ("nn/norm.py", "1e-", "2e-"),
        ("native/product.h", "kDepth = 512", "kDepth = 256"),
        ("native/muon.cpp", "kIterations = 5", "kIterations = 4"),
        ("train/schedule.py", "math.cos(", "math.sin("),
    ],
)
def test_a_number_that_is_computed_otherwise_changes_the_name(copied, name, words, instead):
    before = hashes()
    edit(copied / name, words, instead)
    assert hashes()[1] != before[1]


def test_files_that_only_show_are_there():
    assert all((code._ROOT / name).is_file() for name in SHOWS_ONLY)
