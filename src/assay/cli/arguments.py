"""What stands after a command: TOML files, texts and FIELD=VALUE, in any order."""

import os
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from assay.disk import read_bytes
from assay.errors import ConfigError

if TYPE_CHECKING:
    from assay.config import RunConfig

_MOST_TOML = 1 << 20  # bytes of a config file
_CHANGE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*=.*", re.DOTALL)

Arguments = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="TEXT|FILE.toml|FIELD=VALUE",
        help="Texts to learn from, config files, and fields to change, in any order. Later wins.",
        show_default=False,
        autocompletion=lambda incomplete: complete_field(incomplete),
    ),
]
Preset = Annotated[
    str | None,
    typer.Option("--preset", "-p", help="Start from a known model, such as gpt2 or minigpt."),
]
RunsFolder = Annotated[
    Path, typer.Option("--runs", envvar="ASSAY_RUNS", help="The folder that holds run folders.")
]


@dataclass(frozen=True, slots=True)
class Given:
    """Arguments told apart.

    Attributes:
        files: Config files.
        texts: Everything that is neither a file of config nor a change.
        changes: Dotted fields with their values.
    """

    files: list[Path]
    texts: list[str]
    changes: dict[str, Any]


def tell_apart(arguments: Sequence[str] | None) -> Given:
    """Sort arguments: `*.toml` is a config, `a.b=c` a change, the rest are texts."""
    given = Given([], [], {})
    for argument in arguments or ():
        if _CHANGE.fullmatch(argument) and not os.path.exists(argument):
            field, _, value = argument.partition("=")
            given.changes[field] = parse_value(value)
        elif argument.endswith(".toml"):
            given.files.append(Path(argument))
        else:
            given.texts.append(argument)
    return given


def parse_value(text: str) -> object:
    """Read a value as TOML does; `null` is None, and a bare word a string."""
    if text == "null":
        return None
    if re.fullmatch(r"-?\.\d+", text):  # TOML wants the zero
        return float(text)
    try:
        found = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):  # no TOML, or an integer of over 4,300 digits
        return text
    return found["value"] if len(found) == 1 else text


def build_config(given: Given, preset: str | None, start: "RunConfig | None" = None) -> "RunConfig":
    """Lay preset, files, texts and changes upon `start`, else the defaults, in that order.

    Raises:
        ConfigError: With the file and the dotted place of the first mistake.
    """
    from assay.config import RunConfig
    from assay.schema import decode, merge, override

    tree: dict[str, Any] = (start or RunConfig()).model_dump()
    if preset is not None:
        tree["model"] = _preset(preset)
    for path in given.files:
        tree = merge(tree, _read_toml(path))
        try:
            decode(RunConfig, tree)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None
    changes = {"data.text": tuple(given.texts)} if given.texts else {}
    return override(decode(RunConfig, tree), changes | given.changes)


def _preset(name: str) -> dict[str, Any]:
    from assay.presets import PRESETS

    if name not in PRESETS:
        raise ConfigError(f"--preset: {name!r} found; expected one of: {', '.join(PRESETS)}.")
    return PRESETS[name]().model_dump() | {"vocab_size": None}  # the tokenizer at hand decides


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        content = read_bytes(path, _MOST_TOML)
        return tomllib.loads(content.decode("utf-8-sig"))  # some editors mark UTF-8
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; expected a TOML file.") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not TOML: {error}.") from None


def complete_field(incomplete: str) -> list[str]:
    """Return the fields that begin with what was typed, for the shell."""
    from assay.config import RunConfig
    from assay.schema import field_paths

    return [f"{path}=" for path in field_paths(RunConfig) if path.startswith(incomplete)]
