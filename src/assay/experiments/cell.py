"""Cells: one config under one seed, named by all that its numbers depend on."""

import hashlib
import json
from functools import cache
from pathlib import Path

import assay.config
from assay.config import RunConfig
from assay.schema import config_hash

_NUMBERS_DEPEND_ON = (
    "data",
    "decode",
    "engine",
    "evaluate",
    "measure",
    "nn",
    "runs",
    "sampling",
    "train",
    "config.py",
    "generate.py",
    "schema.py",
)
_SOURCES = {".py", ".cpp"}


@cache
def code_sha256() -> str:
    """Return the SHA-256 over every source file a run's numbers can depend on."""
    root = Path(assay.__file__).parent
    digest = hashlib.sha256()
    for name in _NUMBERS_DEPEND_ON:
        top = root / name
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.suffix in _SOURCES:
                digest.update(f"{path.relative_to(root).as_posix()}\0".encode())
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
