"""What a check of a run says: findings, each true or not, in words and as numbers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at.

    Attributes:
        name: What it is called in the machine-readable line; once in a check.
        words: What was found.
        fine: Whether it is as it must be.
        facts: The numbers and hashes behind the words, ready for JSON.
    """

    name: str
    words: str
    fine: bool = True
    facts: Mapping[str, Any] = field(default_factory=dict)


def short(sha256: str) -> str:
    """Return the beginning of a hash, as people compare it."""
    return f"{sha256[:16]}..."
