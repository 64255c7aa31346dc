"""The base of every config, and dotted overrides.

A config is a frozen pydantic model: strict about names, validated once, hashable, with a JSON
schema that the command line, the web form and the documentation all print. An architecture choice
is a union of such models told apart by `kind`; `norm=rms` is short for `norm={"kind": "rms"}`.
"""

import difflib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Protocol, TypeVar, get_args, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from assay.errors import ConfigError

C = TypeVar("C", bound="Config")

Size = Annotated[int, Field(gt=0, lt=2**31)]
"""How many of something a tensor may hold along one dimension."""

_MOST_VALUES, _MOST_LEVELS = 1 << 15, 16
_LARGEST = 2**63 - 1
_MOST_SHOWN = 500  # characters of a value or a name found, in an error


class Config(BaseModel):
    """Frozen, closed to unknown fields; two configs are equal when their fields are."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


@runtime_checkable
class Choices(Protocol):
    """What annotates a field that holds one of several configs; see `assay.family`."""

    @property
    def variants(self) -> tuple[type[Config], ...]:
        """The configs, each of a kind."""
        ...


def kind_alone(value: object) -> object:
    """Read a bare string as the variant of that kind, with its defaults."""
    return {"kind": value} if isinstance(value, str) else value


def decode(cls: type[C], data: Mapping[str, Any]) -> C:
    """Build a `cls` from nested dicts; fields left out take their defaults.

    Raises:
        ConfigError: With the dotted place of the first problem, what was found, what is allowed.
    """
    _check_extent(data)
    try:
        return cls.model_validate(data)
    except ValidationError as error:
        raise ConfigError(_sentence(error.errors(include_url=False), cls, data)) from None


def shown(value: object) -> str:
    """Return a value found as an error shows it: its `repr`, cut where that is long."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of over 4,300 digits; nesting
        return f"{type(value).__name__} too large to show"
    return cut(text)


def cut(text: str) -> str:
    """Return a text of somebody else as an error quotes it: its beginning, where it is long."""
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


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
                raise ConfigError(
                    f"{cut(path)}: {shown(name)} holds {shown(child)}, which has no fields; "
                    "expected a value, not a field behind it."
                )
            node[name] = child = dict(child)  # the caller's own stays as it is
            node = child
        if leaf == "kind" and node.get("kind") != value:  # the old variant's fields do not follow
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


def field_paths(cls: type[Config]) -> dict[str, str]:
    """Return every dotted field a user may type, with what it means, variants' fields included.

    A field that chooses a variant names the kinds; one that only some kinds have names those.
    """
    told: dict[str, dict[str, list[str]]] = {}
    _collect(cls, "", "", told)
    return {
        path: " ".join(f"({', '.join(kinds)}) {m}" if any(kinds) else m for m, kinds in by.items())
        for path, by in told.items()
    }


def _collect(
    cls: type[Config], prefix: str, kind: str, told: dict[str, dict[str, list[str]]]
) -> None:
    """Add to `told` each field of `cls` as path -> meaning -> the kinds for which it means that."""
    for name, field in cls.model_fields.items():
        if name == "kind":
            continue
        inner = _chosen_from(field) or tuple(_configs_in(field.annotation))
        variants = {_kind(variant): variant for variant in inner}
        choice = f" One of: {', '.join(variants)}." if any(variants) else ""
        meaning = f"{field.description or ''}{choice}"
        told.setdefault(f"{prefix}{name}", {}).setdefault(meaning, []).append(kind)
        for inner_kind, variant in variants.items():
            _collect(variant, f"{prefix}{name}.", inner_kind, told)


def _kind(variant: type[Config]) -> str:
    field = variant.model_fields.get("kind")
    return str(field.default) if field else ""


def _chosen_from(field: FieldInfo) -> tuple[type[Config], ...]:
    return next((some.variants for some in field.metadata if isinstance(some, Choices)), ())


def _configs_in(annotation: object) -> Iterator[type[Config]]:
    if isinstance(annotation, type) and issubclass(annotation, Config):
        yield annotation
    for argument in get_args(annotation):
        yield from _configs_in(argument)


def _check_extent(data: Mapping[str, Any]) -> None:
    """Refuse what no config comes near; each wrong value would cost a kilobyte to find wrong."""
    waiting: list[tuple[object, int, str]] = [(data, 0, "")]
    seen = 0
    while waiting:
        node, level, path = waiting.pop()
        seen += 1
        if level > _MOST_LEVELS:
            raise ConfigError(f"{_named(path)}: over {_MOST_LEVELS} levels found; expected fewer.")
        if isinstance(node, Mapping):
            below = (
                (value, f"{path}.{name}" if path else str(name)) for name, value in node.items()
            )
            waiting += ((value, level + 1, cut(name)) for value, name in below)
        elif isinstance(node, list | tuple):
            waiting += ((value, level + 1, path) for value in node)
        elif isinstance(node, int) and abs(node) > _LARGEST:  # no tensor, file or float holds it
            raise ConfigError(
                f"{_named(path)}: {shown(node)} found; expected a whole number of at most "
                f"{_LARGEST}."
            )
        if seen + len(waiting) > _MOST_VALUES:
            raise ConfigError(
                f"{_named(path)}: over {_MOST_VALUES} values found; expected fewer. Name a folder "
                "or a glob, not each of its files."
            )


def _named(path: str) -> str:
    return cut(path) or "''"


def _sentence(problems: list[ErrorDetails], cls: type[Config], data: Mapping[str, Any]) -> str:
    """Say what is wrong at the place of the first problem."""
    problem = problems[0]
    where = _place(problem, data)
    prefix = f"{cut(where)}: " if where else ""
    if problem["type"] in ("union_tag_invalid", "kind_unknown"):
        found = problem["ctx"]["tag"]
        allowed = [name.strip("' ") for name in problem["ctx"]["expected_tags"].split(",")]
        expected = ", ".join(sorted(allowed))
        near = _near(found, allowed)
        own = (
            " A kind of your own needs --plugin FILE.py."
            if problem["type"] == "kind_unknown"
            else ""
        )
        return f"{prefix}unknown kind {shown(found)}; expected one of: {expected}.{near or own}"
    if problem["type"] in ("union_tag_not_found", "model_attributes_type"):
        return (
            f"{prefix}{shown(problem['input'])} found; expected a kind, such as the name of a "
            "variant."
        )
    if problem["type"] == "missing":
        return f"{prefix}nothing found; expected a value, such as {where}=VALUE."
    if problem["type"] == "extra_forbidden":
        return f"{_named(where)}: unknown field{_near_field(where, cls, data)}"
    if problem["type"] == "value_error":  # our own validators write whole sentences
        message = problem["msg"].removeprefix("Value error, ")
        inner = f"{where}.{message.partition(':')[0]}"  # and may name a field inside this place
        return f"{where}.{message}" if inner in field_paths(cls) else f"{prefix}{message}"
    # A plain union, such as `none` or a number, has one problem a leg, all at the same place.
    legs = dict.fromkeys(p["msg"] for p in problems if _place(p, data) == where)
    return f"{prefix}{shown(problem['input'])} found; {', or '.join(map(_uncapitalised, legs))}."


def _uncapitalised(text: str) -> str:
    return text[:1].lower() + text[1:]


def _place(problem: ErrorDetails, data: Mapping[str, Any]) -> str:
    missing = problem["type"] == "missing"
    return ".".join(_as_typed(problem["loc"], data, missing=missing))


def _as_typed(
    place: tuple[int | str, ...],
    data: Any,  # noqa: ANN401
    *,
    missing: bool,
) -> Iterator[str]:
    """Leave out the variant's `kind`, which pydantic puts into the place and no user types."""
    for part in place:
        if isinstance(data, str) and data == part:
            data = kind_alone(data)
            continue
        if isinstance(data, Mapping):
            if part not in data and (data.get("kind") == part or not missing):
                continue  # or one leg of a plain union, such as `float` or `literal[...]`
            data = data.get(part)
        elif isinstance(data, list | tuple) and isinstance(part, int):
            data = data[part] if part < len(data) else None
        else:
            continue
        yield str(part)


def _near(found: str, allowed: Iterable[str]) -> str:
    near = difflib.get_close_matches(cut(str(found)), list(allowed), n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""


def _near_field(where: str, cls: type[Config], data: Mapping[str, Any]) -> str:
    """Suggest a field of the same name elsewhere, else a name alike beside it, else anywhere."""
    paths = list(field_paths(cls))
    parent, _, leaf = where.rpartition(".")
    if where in paths:  # of another variant
        having = ", ".join(_kinds_with(cls, where))
        return f" with {parent}={_kind_at(parent, data)}; expected {parent} to be one of: {having}."
    same_name = [path for path in paths if path.rpartition(".")[2] == leaf]
    if same_name:
        return f". Did you mean {same_name[0]!r}?"
    beside = [path.rpartition(".")[2] for path in paths if path.rpartition(".")[0] == parent]
    near = _near(leaf, beside) or _near(where, paths)
    return f".{near}" if near else f"; expected one of: {', '.join(beside)}."


def _kinds_with(cls: type[Config], path: str) -> list[str]:
    told: dict[str, dict[str, list[str]]] = {}
    _collect(cls, "", "", told)
    return [kind for kinds in told[path].values() for kind in kinds]


def _kind_at(place: str, data: Any) -> str:  # noqa: ANN401
    for name in place.split("."):
        data = data[name]
    return str(data["kind"])
