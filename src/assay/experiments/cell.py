"""Cells: one config under one seed, named by all that its numbers depend on."""

import ast
import hashlib
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import assay.config
from assay.config import RunConfig
from assay.schema import config_hash

_ROOT = Path(assay.config.__file__).parent
_COMPILED = ("*.cpp", "*.h")  # beside a module that is imported
_TRAINING = "assay.runs.run"


@cache
def code_sha256(module: str = _TRAINING) -> str:
    """Return the SHA-256 over every source file that a module's results can depend on.

    That is the module, all of assay that it imports, near or far, and the C++ beside it: a change
    elsewhere leaves the hash, and what was computed under it, as they are.
    """
    digest = hashlib.sha256()
    for path in sorted(_reached(module)):
        digest.update(f"{path.relative_to(_ROOT).as_posix()}\0".encode())
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()


def cell_key(config: RunConfig, data_sha256: str, code: str) -> str:
    """Return the name of a cell, 32 hexadecimal digits: other numbers, another name.

    Args:
        config: Resolved, with its seed.
        data_sha256: Of the text and its split.
        code: As `code_sha256` returns it.
    """
    parts = [config_hash(config), data_sha256, code]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _reached(module: str) -> set[Path]:
    """Return the files of a module, of what it imports, and so on."""
    found: set[Path] = set()
    waiting = [module]
    while waiting:
        path = _file(waiting.pop())
        if path is None or path in found:
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
