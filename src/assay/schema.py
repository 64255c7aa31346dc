"""The base of every config, and dotted overrides.

A config is a frozen pydantic model: strict about names, validated once, hashable, with a JSON
schema that the command line, the web form and the documentation all print. An architecture choice
is a union of such models told apart by `kind`; `norm=rms` is short for `norm={"kind": "rms"}`.
"""

import difflib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from assay.errors import ConfigError

C = TypeVar("C", bound="Config")


class Config(BaseModel):
    """Frozen, closed to unknown fields; two configs are equal when their fields are."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


def kind_alone(value: object) -> object:
    """Read a bare string as the variant of that kind, with its defaults."""
    return {"kind": value} if isinstance(value, str) else value


def decode(cls: type[C], data: Mapping[str, Any]) -> C:
    """Build a `cls` from nested dicts; fields left out take their defaults.

    Raises:
        ConfigError: With the dotted place of the first problem, what was found, what is allowed.
    """
    try:
        return cls.model_validate(data)
    except ValidationError as error:
        raise ConfigError(_sentence(error.errors()[0], cls, data)) from None


def override(config: C, changes: Mapping[str, Any]) -> C:
    """Return `config` with dotted fields replaced, in the order given.

    >>> from assay.config import RunConfig
    >>> override(RunConfig(), {"model.norm": "rms", "model.norm.eps": 1e-3}).model.norm
    RMSNormConfig(kind='rms', eps=0.001, affine='scale')

    Raises:
        ConfigError: As `decode` does.
    """
    tree = config.model_dump()
    for path, value in changes.items():
        *parents, leaf = path.split(".")
        node = tree
        for name in parents:
            child = kind_alone(node.get(name, {}))
            if not isinstance(child, dict):
                raise ConfigError(f"{path}: {name!r} holds {child!r}, which has no fields.")
            node[name] = child
            node = child
        if leaf == "kind":  # another variant: the fields of the old one do not follow
            node.clear()
        node[leaf] = value
    return decode(type(config), tree)


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested `base` with nested `over` laid upon it; another `kind` replaces the whole."""
    merged = dict(base)
    for name, value in over.items():
        old, new = merged.get(name), value
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            same_kind = value.get("kind", old.get("kind")) == old.get("kind")
            new = merge(old, value) if same_kind else value
        merged[name] = new
    return merged


def config_hash(config: Config) -> str:
    """Return the SHA-256 of the config as canonical JSON, in hexadecimal."""
    canonical = json.dumps(config.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def field_paths(cls: type[Config], prefix: str = "") -> dict[str, str]:
    """Return every dotted field a user may type, with what it means, variants' fields included."""
    paths: dict[str, str] = {}
    for name, field in cls.model_fields.items():
        paths.setdefault(f"{prefix}{name}", field.description or "")
        for inner in _configs_in(field.annotation):
            for path, meaning in field_paths(inner, f"{prefix}{name}.").items():
                paths.setdefault(path, meaning)
    return paths


def _configs_in(annotation: object) -> Iterator[type[Config]]:
    if isinstance(annotation, type) and issubclass(annotation, Config):
        yield annotation
    for argument in get_args(annotation):
        yield from _configs_in(argument)


def _sentence(problem: ErrorDetails, cls: type[Config], data: Mapping[str, Any]) -> str:
    where = ".".join(_as_typed(problem["loc"], data))
    prefix = f"{where}: " if where else ""
    if problem["type"] == "union_tag_invalid":
        found = problem["ctx"]["tag"]
        allowed = [name.strip("' ") for name in problem["ctx"]["expected_tags"].split(",")]
        expected = ", ".join(sorted(allowed))
        return (
            f"{prefix}unknown kind {found!r}; expected one of: {expected}.{_near(found, allowed)}"
        )
    if problem["type"] == "union_tag_not_found":
        return (
            f"{prefix}{problem['input']!r} found; expected a kind, such as the name of a variant."
        )
    if problem["type"] == "extra_forbidden":
        return f"{prefix}unknown field.{_near_field(where, cls)}"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":  # our own validators write whole sentences
        return f"{prefix}{message}"
    return f"{prefix}{problem['input']!r} found; {message[0].lower()}{message[1:]}."


def _as_typed(place: tuple[int | str, ...], data: Any) -> Iterator[str]:  # noqa: ANN401
    """Leave out the variant's `kind`, which pydantic puts into the place and no user types."""
    for part in place:
        if isinstance(data, str) and data == part:
            continue
        if isinstance(data, Mapping) and part not in data and data.get("kind") == part:
            continue
        if not isinstance(data, Mapping | list | tuple):
            continue  # one leg of a plain union, such as `float` or `literal[...]`
        data = data.get(part) if isinstance(data, Mapping) else None
        yield str(part)


def _near(found: str, allowed: Iterable[str]) -> str:
    near = difflib.get_close_matches(str(found), list(allowed), n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""


def _near_field(where: str, cls: type[Config]) -> str:
    """Suggest a field of the same name elsewhere, else a name alike beside it, else anywhere."""
    paths = list(field_paths(cls))
    parent, _, leaf = where.rpartition(".")
    same_name = [path for path in paths if path.rpartition(".")[2] == leaf]
    if same_name:
        return f" Did you mean {same_name[0]!r}?"
    beside = [path.rpartition(".")[2] for path in paths if path.rpartition(".")[0] == parent]
    return _near(leaf, beside) or _near(where, paths)
