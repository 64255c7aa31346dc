"""What stands behind `assay ablate`: fields with several values, and the rest."""

import re
from typing import Any

from assay.cli.arguments import parse_value
from assay.errors import ConfigError

_CHANGE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+)+)=(.*)", re.DOTALL)
_LONGEST = 50  # of a name made up here, so that `-tuning` fits behind it


def apart(arguments: list[str]) -> tuple[dict[str, list[Any]], list[str]]:
    """Return the fields with several values, and all other arguments.

    Raises:
        ConfigError: If a field is given twice, or none has several values.
    """
    several: dict[str, list[Any]] = {}
    rest = []
    for argument in arguments:
        name, values = values_of(argument)
        if len(values) < 2:
            rest.append(argument)
        elif name in several:
            raise ConfigError(
                f"{name}: values found twice; expected them once, behind one '='. Join the two."
            )
        else:
            several[name] = values
    if not several:
        raise ConfigError(
            "fields: none with several values found; expected one such as model.norm=layer,rms."
        )
    return several, rest


def values_of(argument: str) -> tuple[str, list[Any]]:
    """Return the name and the values of FIELD=A,B; none where it is something else."""
    match = _CHANGE.fullmatch(argument)
    if not match:
        return argument, []
    return match[1], [parse_value(value) for value in _split(match[2])]


def name_of(several: dict[str, list[Any]]) -> str:
    """Return a name that says what is compared."""
    text = "-".join(field.rpartition(".")[2] for field in several)
    return re.sub(r"[^a-z0-9._-]", "-", text.lower())[:_LONGEST]


def _split(text: str) -> list[str]:
    """Cut at the commas that stand in no bracket and no quotation."""
    parts, depth, quote, start = [], 0, "", 0
    for place, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter in "[{":
            depth += 1
        elif letter in "]}":
            depth -= 1
        elif letter == "," and depth == 0:
            parts.append(text[start:place])
            start = place + 1
    return [*parts, text[start:]]
