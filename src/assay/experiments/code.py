"""The code that a number depends on, without what says nothing to the processor.

A name that hangs on code decides whether a finished run is used again. Comments and docstrings are
left out of it, and files that only draw, print or cite: to correct a sentence throws nobody's
laboratory away. Text is compared, not a parsed tree, whose form differs between Pythons.
"""

import ast
import hashlib
import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import assay.config

_ROOT = Path(assay.config.__file__).parent
_COMPILED = ("*.cpp", "*.h")  # beside a module that is imported
_TRAINING = "assay.runs.run"
SHOWS_ONLY = (
    "native/selfcheck.py",
    "runs/tensorboard.py",
    "runs/plot.py",
    "citation.py",
)
"""Files that a training imports and that decide no number of it."""
_CPP = re.compile(
    r'R"(?P<mark>[^()\\ ]*)\(.*?\)(?P=mark)"'
    r'|"(?:\\.|[^"\\])*"'
    r"|'(?:\\.|[^'\\])*'"
    r"|//(?:\\\n|[^\n])*"
    r"|/\*.*?\*/",
    re.DOTALL,
)
"""A literal, or a comment: the alternatives that begin with a slash."""


@cache
def code_sha256(module: str = _TRAINING) -> str:
    """Return the SHA-256 of all the code that a module's results can depend on.

    That is the module, all of assay that it imports, near or far, and the C++ beside it: a change
    elsewhere leaves the hash, and what was computed under it, as they are.
    """
    digest = hashlib.sha256()
    for path in sorted(_reached(module)):
        bare = _bare(path.suffix, path.read_text(encoding="utf-8"))
        digest.update(f"{path.relative_to(_ROOT).as_posix()}\0{bare}\0".encode())
    return digest.hexdigest()


@cache  # most tasks share most files
def _bare(suffix: str, source: str) -> str:
    return bare_python(source) if suffix == ".py" else bare_cpp(source)


def bare_python(source: str) -> str:
    """Return Python without comments, docstrings and empty lines, otherwise as it is written."""
    lines = [list(line) for line in source.split("\n")]  # as Python does, at nothing else
    strings = list(_strings(source))
    docstrings = [(first, last) for used, first, last in strings if not used]
    for first, last in (*docstrings, *_comments(source)):
        for row in range(first[0], last[0] + 1):
            line = lines[row - 1]
            begin = first[1] if row == first[0] else 0
            end = last[1] if row == last[0] else len(line)
            line[begin:end] = " " * (end - begin)
    inside = {row for used, first, last in strings if used for row in range(first[0], last[0])}
    texts = map("".join, lines)
    return "\n".join(
        text if row in inside else text.rstrip()
        for row, text in enumerate(texts, 1)
        if row in inside or text.strip()
    )


def bare_cpp(source: str) -> str:
    """Return C++ without comments and empty lines, otherwise as it is written."""
    bare = _CPP.sub(lambda found: " " if found[0].startswith("/") else found[0], source)
    return "\n".join(line.rstrip() for line in bare.split("\n") if line.strip())


_Place = tuple[int, int]  # a line, from 1 on, and a character in it


def _strings(source: str) -> Iterator[tuple[bool, _Place, _Place]]:
    """Yield where strings stand, and whether anything is done with them: not with docstrings."""
    rows = source.split("\n")
    tree = ast.parse(source)
    alone = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}

    def place(row: int, n_bytes: int) -> _Place:  # ast counts bytes of UTF-8
        return row, len(rows[row - 1].encode()[:n_bytes].decode())

    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if is_text or isinstance(node, ast.JoinedStr):
            assert isinstance(node, ast.expr)
            assert node.end_lineno is not None
            assert node.end_col_offset is not None
            yield (
                node not in alone,
                place(node.lineno, node.col_offset),
                place(node.end_lineno, node.end_col_offset),
            )


def _comments(source: str) -> Iterator[tuple[_Place, _Place]]:
    if "#" not in source:
        return
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start, token.end


def _reached(module: str) -> set[Path]:
    """Return the files of a module, of what it imports, and so on."""
    found: set[Path] = set()
    waiting = [module]
    while waiting:
        path = _file(waiting.pop())
        if path is None or path in found or path.relative_to(_ROOT).as_posix() in SHOWS_ONLY:
            continue
        found.add(path)
        if path.parent != _ROOT:
            found.update(other for kind in _COMPILED for other in path.parent.rglob(kind))
        waiting += _imports(path)
    return found


def _imports(path: Path) -> Iterator[str]:
    """Yield what a file imports, at once or inside a function; a name may be a module."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _file(module: str) -> Path | None:
    """Return the file of one of assay's modules; the package itself only names what others hold."""
    top, *parts = module.split(".")
    if top != "assay" or not parts:
        return None
    path = _ROOT.joinpath(*parts)
    places = (path / "__init__.py", path.with_suffix(".py"))
    return next((place for place in places if place.is_file()), None)
