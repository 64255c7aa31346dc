"""Families: choices whose variants are told apart by `kind`, open to variants from outside.

    NORMS = Family(NormVariant, (NoNormConfig, LayerNormConfig, RMSNormConfig))
    NormConfig = Annotated[NormVariant, NORMS]

A config names a kind, and only kinds that are known by then are built: those of assay, those of
packages that the user has installed with the entry point `assay.variants`, those of a file that the
user has named with `--plugin`, and those whose configs were handed over in Python. Reading
somebody's config never imports anything that the user has not brought here.
"""

from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any, ClassVar, Generic, TypeVar, cast, final

from pydantic import GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, PydanticKnownError, core_schema

from assay.citation import Citation
from assay.errors import ConfigError
from assay.schema import Config

ENTRY_POINTS = "assay.variants"
"""Group of entry points by which an installed package offers variants: classes, or modules."""


class Variant(Config):
    """One choice of a family: a frozen config that says all that is known of it.

    Each family has a subclass of this that declares what it asks of its variants. What a variant
    does not say is not guessed: what it costs is "not counted", and PyTorch computes it.
    """

    kind: str
    """The name by which configs know it; a variant gives it a default of its own."""
    citation: ClassVar[Citation | None] = None
    """The paper behind it."""
    native_kind: ClassVar[int | None] = None
    """The number by which the C++ kernels know it. None: they do not, and PyTorch takes over."""
    family: ClassVar["Family[Any]"]

    def kernel_kind(self) -> int | None:
        """Return `native_kind`, or another number where it depends on the fields."""
        return self.native_kind

    def initial(self, name: str) -> float | None:
        """Return what every entry of its parameter `name` starts as; None: as its module is built.

        The weights and biases of `nn.Linear` and `nn.Embedding` are `model.init`'s in any case.
        """
        return None


V = TypeVar("V", bound=Variant)


@final
class Family(Generic[V]):
    """The variants that one field of a config may hold.

    Args:
        base: What every variant subclasses; it declares all that is asked of one.
        built_in: Those of assay, in the order in which a user sees them listed.
    """

    def __init__(self, base: type[V], built_in: tuple[type[V], ...]) -> None:
        self.base = base
        self._variants = {kind_of(variant): variant for variant in built_in}
        base.family = self

    @property
    def known(self) -> tuple[type[V], ...]:
        """Every variant known by now, without a look at what is installed."""
        return tuple(self._variants.values())

    @property
    def variants(self) -> tuple[type[V], ...]:
        """Every variant known by now, those of installed packages among them."""
        _load_installed()
        return tuple(self._variants.values())

    def __iter__(self) -> Iterator[type[V]]:
        """Go over `variants`."""
        return iter(self.variants)

    def __len__(self) -> int:
        """Return how many variants are known by now."""
        return len(self.variants)

    def __contains__(self, variant: object) -> bool:
        """Return whether a class is one of them."""
        return variant in self.variants

    def add(self, variant: type[V]) -> None:
        """Let configs name a variant from outside.

        A class of the same module and name takes the place of the one before it, as when a cell of
        a notebook is run again.

        Raises:
            ConfigError: If another variant has its kind, it has none, or it subclasses a variant.
        """
        kind, name = kind_of(variant), variant.__name__
        for parent in variant.__mro__[1:]:
            if issubclass(parent, Variant) and (of := kind_of(parent)):
                raise ConfigError(
                    f"{name}: a subclass of {parent.__name__}, the variant {of!r}, found; expected "
                    f"one of {self.base.__name__} itself, since kernels, counts and checks know a "
                    "variant by its class. Copy what it shares."
                )
        if not kind:
            raise ConfigError(
                f"{name}.kind: no default found; expected one, such as "
                f'kind: Literal["{name.lower()}"] = "{name.lower()}".'
            )
        known = self._variants.get(kind, variant)
        if _origin(known) != _origin(variant):
            raise ConfigError(
                f"{name}.kind: {kind!r} found, which is that of {known.__module__}."
                f"{known.__qualname__}; expected a kind of its own. Rename it."
            )
        self._variants[kind] = variant

    def remove(self, variant: type[V]) -> None:
        """Let configs no longer name a variant from outside."""
        if self._variants.get(kind_of(variant)) is variant:
            del self._variants[kind_of(variant)]

    def validate(self, value: object) -> V:
        """Read an instance, `"rms"`, or `{"kind": "rms", "eps": 1e-6}`."""
        if isinstance(value, self.base):
            self.add(type(value))  # whoever has an object has imported its class
            return value
        fields = {"kind": value} if isinstance(value, str) else value
        if not isinstance(fields, Mapping) or "kind" not in fields:
            raise PydanticKnownError("union_tag_not_found", {"discriminator": "'kind'"})
        kind = str(fields["kind"])
        if kind not in self._variants:
            _load_installed()
        if kind not in self._variants:
            tag = {"tag": kind, "expected_tags": ", ".join(map(repr, self._variants))}
            raise PydanticCustomError("kind_unknown", "unknown kind", tag)
        return self._variants[kind].model_validate(dict(fields))

    def __get_pydantic_core_schema__(
        self, source: object, handler: Callable[[object], CoreSchema]
    ) -> CoreSchema:
        """Validate by kind; write all fields of the variant, not only those of the base."""
        writer = core_schema.plain_serializer_function_ser_schema(
            lambda value, info: value.model_dump(
                mode=info.mode,
                include=info.include,
                exclude=info.exclude,
                exclude_unset=info.exclude_unset,
                exclude_defaults=info.exclude_defaults,
                exclude_none=info.exclude_none,
            ),
            info_arg=True,
        )
        return core_schema.no_info_plain_validator_function(self.validate, serialization=writer)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Return the union of all variants known by now."""
        choices = {kind_of(v): v.__pydantic_core_schema__ for v in self.variants}
        return handler(core_schema.tagged_union_schema(cast(Any, choices), discriminator="kind"))


def kind_of(variant: type[Variant]) -> str:
    """Return the name by which configs know a variant; empty for what only declares a family."""
    field = variant.model_fields["kind"]
    return "" if field.is_required() else str(field.default)


def families() -> "tuple[Family[Any], ...]":
    """Return every family that has been imported."""
    return tuple(cls.family for cls in Variant.__subclasses__() if "family" in vars(cls))


def field_of(variant: type[Variant]) -> str:
    """Return the field of a config that a variant may fill, such as `norm` of a NormVariant."""
    return str(variant.family.base.__name__).removesuffix("Variant").lower()


def add_variants(module: ModuleType) -> list[type[Variant]]:
    """Let configs name every variant that a module defines; return them.

    Raises:
        ConfigError: As `Family.add` does.
    """
    own = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Variant) and kind_of(value)
    ]
    variants = [variant for variant in own if variant.__module__ == module.__name__]
    for place, variant in enumerate(variants):
        try:
            variant.family.add(variant)
        except ConfigError:
            for added in variants[:place]:
                added.family.remove(added)
            raise
    return variants


def _origin(variant: type[Variant]) -> tuple[str, str]:
    return variant.__module__, variant.__qualname__


_installed: list[str] = []


def _load_installed() -> None:
    """Take in the variants of packages that the user has installed, once in a process."""
    if _installed:
        return
    _installed.append(ENTRY_POINTS)  # first: a package may itself read a config
    for point in entry_points(group=ENTRY_POINTS):
        _take_in(point)
        _installed.append(point.name)


def _take_in(point: EntryPoint) -> None:
    try:
        found = point.load()
    except Exception as error:
        raise ConfigError(
            f"entry point {point.name!r} of {ENTRY_POINTS}: {point.value} does not load "
            f"({type(error).__name__}: {error}). Mend or uninstall the package."
        ) from error
    if isinstance(found, ModuleType):
        add_variants(found)
    elif isinstance(found, type) and issubclass(found, Variant):
        found.family.add(found)
    else:
        raise ConfigError(
            f"entry point {point.name!r} of {ENTRY_POINTS}: {point.value} is a "
            f"{type(found).__name__}; expected a subclass of Variant or a module of some."
        )
