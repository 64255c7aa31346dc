"""Variants from a file of the user's: loaded by the user's word, recorded, and asked for again.

    assay train --plugin my_norms.py model.norm=dyt

A run records which files its variants come from, by name and SHA-256. Nothing that is read (a
config, a run, a checkpoint, a report) makes assay load one: who opens such a run names it again.
"""

import hashlib
import importlib
import json
import os
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from assay.disk import read_bytes
from assay.errors import ConfigError
from assay.family import Variant, add_variants, families, field_of, kind_of

_MOST_BYTES = 1 << 24
_PACKAGE = "assay_plugins"
_INHERITED = "ASSAY_PLUGINS"  # what a process of assay's own hands to those that it starts


@dataclass(frozen=True, slots=True)
class Plugin:
    """Where variants come from that are none of assay's own.

    Attributes:
        name: Of the file, without its folder; of the module, where there is no file.
        sha256: Of the file; empty where there is none.
        kinds: Those a config uses, such as `norm=dyt`.
    """

    name: str
    sha256: str
    kinds: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return the name and the beginning of the hash."""
        return f"{self.name} (SHA-256 {self.sha256[:16]}...)" if self.sha256 else self.name


@dataclass(frozen=True, slots=True)
class _Loaded:
    path: Path
    sha256: str
    source: str
    variants: tuple[type[Variant], ...]


_LOADED: dict[str, _Loaded] = {}  # by the name of the module


def load(path: Path) -> tuple[type[Variant], ...]:
    """Run a file of the user's and let configs name the variants that it defines; return them.

    Raises:
        ConfigError: If it cannot be read or run, or defines no variant.
    """
    name = f"{_PACKAGE}.{path.stem}"
    try:
        content = read_bytes(path, _MOST_BYTES)
    except OSError as error:
        raise ConfigError(f"--plugin: {path}: {error.strerror}; expected a Python file.") from None
    sha256, path = hashlib.sha256(content).hexdigest(), path.resolve()
    if before := _LOADED.get(name):
        if (before.path, before.sha256) == (path, sha256):
            return before.variants
        raise ConfigError(
            f"--plugin: {path} found beside {before.path}; expected files of different names, each "
            "once in a process. Rename one."
        )
    module = _run(name, path, content)
    try:
        variants = tuple(add_variants(module))
    except ConfigError:
        del sys.modules[name]
        raise
    if not variants:
        del sys.modules[name]
        raise ConfigError(
            f"--plugin: {path} defines no variant; expected a class such as MyNorm(NormVariant) "
            'with a default for its kind: Literal["mine"] = "mine".'
        )
    _LOADED[name] = _Loaded(path, sha256, content.decode("utf-8", "replace"), variants)
    return variants


def _run(name: str, path: Path, content: bytes) -> types.ModuleType:
    """Return the module of a file, which finds the modules beside it as a script does."""
    parent = sys.modules.setdefault(_PACKAGE, types.ModuleType(_PACKAGE))
    module = types.ModuleType(name)
    module.__file__, module.__spec__ = str(path), ModuleSpec(name, None, origin=str(path))
    sys.modules[name] = module  # before it runs: dataclasses and pydantic look their module up
    setattr(parent, path.stem, module)
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    try:
        exec(compile(content, str(path), "exec"), module.__dict__)
    except ConfigError:
        del sys.modules[name]
        raise
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise ConfigError(
            f"--plugin: {path}{_line(error, path)}: {type(error).__name__}: {error}. Mend the "
            "file; with --debug the whole traceback is printed."
        ) from error
    return module


def _line(error: BaseException, path: Path) -> str:
    """Return the line of the file in which an error arose, if it did."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f", line {error.lineno}"
    line, trace = "", error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = f", line {trace.tb_lineno}"
        trace = trace.tb_next
    return line


def variants_in(value: object) -> Iterator[Variant]:
    """Yield the variants of a config, of all it holds and of what a sequence or mapping holds."""
    if isinstance(value, BaseModel):
        if isinstance(value, Variant):
            yield value
        for name in type(value).model_fields:
            yield from variants_in(getattr(value, name))
    elif isinstance(value, Mapping):
        yield from variants_in(tuple(value.values()))
    elif isinstance(value, tuple | list):
        for each in value:
            yield from variants_in(each)


def plugins_of(config: BaseModel) -> list[Plugin]:
    """Return where the variants of a config come from that are none of assay's own."""
    kinds: dict[type[Variant], set[str]] = {}
    for variant in variants_in(config):
        if not _is_own(type(variant)):
            kinds.setdefault(type(variant), set()).add(variant.kind)
    by_module: dict[str, list[str]] = {}
    for cls in kinds:
        by_module.setdefault(cls.__module__, []).append(f"{field_of(cls)}={kind_of(cls)}")
    return [Plugin(*_named(module), tuple(sorted(each))) for module, each in by_module.items()]


def sources_of(config: BaseModel) -> list[str]:
    """Return the code behind those variants: what a number computed with them depends on."""
    modules = {type(v).__module__ for v in variants_in(config) if not _is_own(type(v))}
    return [_source(module) for module in sorted(modules)]


def recorded(config: BaseModel) -> list[dict[str, Any]]:
    """Return `plugins_of` as a manifest holds it."""
    return [asdict(plugin) | {"kinds": list(plugin.kinds)} for plugin in plugins_of(config)]


def check_known(record: object, where: Path) -> None:
    """Compare the plug-ins that a manifest names with what the user has loaded.

    Raises:
        ConfigError: If one is not loaded.
    """
    for plugin in _read(record):
        if not _known(plugin):
            name = plugin.name if plugin.name.endswith(".py") else f"{plugin.name}.py"
            raise ConfigError(
                f"{where}: made with the plug-in {plugin}, for {', '.join(plugin.kinds)}; expected "
                "it to be loaded at your word, since opening a run runs no code of its own. Read "
                f"it, then give the same command with --plugin {name}"
            )


def changed(record: object, config: BaseModel) -> list[str]:
    """Return which plug-ins of a config are others than a manifest says, in words."""
    began = {plugin.name: plugin.sha256 for plugin in _read(record)}
    return [
        f"the plug-in {now.name} changed: SHA-256 {now.sha256[:16]}... found, "
        f"{began[now.name][:16]}... when the run began"
        for now in plugins_of(config)
        if now.name in began and began[now.name] != now.sha256
    ]


def handed_on() -> dict[str, str]:
    """Return what to add to the environment of a process that is to know the same variants."""
    own = {cls.__module__ for cls in _strangers()}
    files = [[str(each.path), each.sha256] for each in _LOADED.values()]
    modules = [[module, ""] for module in sorted(own - _LOADED.keys()) if module != "__main__"]
    return {_INHERITED: json.dumps(files + modules)} if files or modules else {}


def take_over() -> None:
    """Load, in a process that assay started itself, what the process that started it knew.

    Raises:
        ConfigError: If a file is another by now.
    """
    for place, sha256 in json.loads(os.environ.get(_INHERITED, "[]")):
        if not sha256:
            importlib.import_module(place)
            continue
        load(Path(place))
        if (found := _LOADED[f"{_PACKAGE}.{Path(place).stem}"].sha256) != sha256:
            raise ConfigError(
                f"{place}: SHA-256 {found[:16]}... found, {sha256[:16]}... when this began: the "
                "plug-in was edited meanwhile. Give the command again."
            )


def _strangers() -> Iterator[type[Variant]]:
    """Yield the variants from outside that configs may name by now."""
    for family in families():
        yield from (variant for variant in family.known if not _is_own(variant))


def _is_own(cls: type[Variant]) -> bool:
    return cls.__module__.partition(".")[0] == "assay"


def _file(module: str) -> Path | None:
    file = getattr(sys.modules.get(module), "__file__", None)
    return None if file is None else Path(file)


def _named(module: str) -> tuple[str, str]:
    """Return the name and the SHA-256 of what a module comes from."""
    if loaded := _LOADED.get(module):
        return loaded.path.name, loaded.sha256
    source = _source(module)
    return module, hashlib.sha256(source.encode()).hexdigest() if source else ""


def _source(module: str) -> str:
    """Return the text of a module; empty where it has none, as in a notebook."""
    if loaded := _LOADED.get(module):
        return loaded.source
    file = _file(module)
    if file is None or not file.is_file():
        return ""
    return read_bytes(file, _MOST_BYTES).decode("utf-8", "replace")


def _known(plugin: Plugin) -> bool:
    if any(loaded.path.name == plugin.name for loaded in _LOADED.values()):
        return True
    return plugin.name in {cls.__module__ for cls in _strangers()}


def _read(record: object) -> list[Plugin]:
    """Return the plug-ins that a manifest names, as far as they are any."""
    rows: Sequence[object] = record if isinstance(record, list) else []
    plugins = []
    for row in rows:
        if isinstance(row, dict) and isinstance(row.get("name"), str):
            kinds = row.get("kinds")
            told = tuple(map(str, kinds)) if isinstance(kinds, list) else ()
            plugins.append(Plugin(row["name"], str(row.get("sha256", "")), told))
    return plugins
