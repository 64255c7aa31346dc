"""Cells: one config under one seed, named by all that its numbers depend on."""

import hashlib
import json

from assay.config import RunConfig
from assay.experiments.code import bare_python
from assay.plugin import sources_of
from assay.schema import config_hash


def cell_key(config: RunConfig, data_sha256: str, code: str) -> str:
    """Return the name of a cell, 32 hexadecimal digits: other numbers, another name.

    Args:
        config: Resolved, with its seed.
        data_sha256: Of the text and its split.
        code: As `code_sha256` returns it; that of plug-ins is added here.
    """
    parts = [config_hash(config), data_sha256, code, *map(bare_python, sources_of(config))]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
