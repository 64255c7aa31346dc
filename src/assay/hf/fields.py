"""A Hugging Face config read field by field, each checked; null counts as left out."""

from collections.abc import Mapping
from typing import Any, Never, TypeVar, final

from assay.errors import ConfigError
from assay.schema import shown

V = TypeVar("V")
_LARGEST = 2**26  # of any size; the product of two, in bytes, stays within 64 bits


@final
class Fields:
    """The fields of a `config.json`, named in errors as the file names them."""

    def __init__(self, data: Mapping[str, Any], family: str) -> None:
        self._data = data
        self._family = family

    def integer(self, name: str, default: int) -> int:
        """Return a whole number."""
        found = self.maybe_integer(name)
        return default if found is None else found

    def maybe_integer(self, name: str, left_out: int | None = None) -> int | None:
        """Return a whole number, None where the file says null, `left_out` where it says nothing.

        Here alone null differs from nothing: Mistral's `sliding_window` is 4096 when left out.
        """
        found = self._data.get(name, left_out)
        if found is None:
            return None
        if not isinstance(found, int) or isinstance(found, bool) or found > _LARGEST:
            self.refuse(name, f"a whole number up to {_LARGEST}")
        return found

    def number(self, name: str, default: float) -> float:
        """Return a number."""
        found = self._found(name, default)
        if not isinstance(found, int | float) or isinstance(found, bool):
            self.refuse(name, "a number")
        return float(found)

    def flag(self, name: str, default: bool) -> bool:
        """Return true or false."""
        found = self._found(name, default)
        if not isinstance(found, bool):
            self.refuse(name, "true or false")
        return found

    def table(self, name: str) -> Mapping[str, Any]:
        """Return nested fields, none if left out."""
        found: object = self._found(name, {})
        if not isinstance(found, Mapping):
            self.refuse(name, "nested fields")
        return found

    def choice(self, name: str, default: str, options: Mapping[str, V]) -> V:
        """Return what the value stands for among `options`."""
        found = self._found(name, default)
        if not isinstance(found, str) or found not in options:
            self.refuse(name, "one of: " + ", ".join(options))
        return options[found]

    def only(self, name: str, allowed: object) -> None:
        """Refuse any value but `allowed`, which is also what leaving the field out means."""
        found: object = self._found(name, allowed)
        if found != allowed:
            self.refuse(name, "null" if allowed is None else repr(allowed))

    def each(self, name: str, allowed: object) -> None:
        """Refuse a list, if there is one, that holds anything but `allowed`."""
        found: object = self._found(name, [])
        if not isinstance(found, list | tuple) or any(value != allowed for value in found):
            self.refuse(name, f"null or a list of {allowed!r}")

    def refuse(self, name: str, expected: str) -> Never:
        """Say that our modules cannot express the value found.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(
            f"Hugging Face config of {self._family}: {name} is "
            f"{shown(self._data.get(name))}; expected "
            f"{expected}. Nothing else can be expressed by this package's modules."
        )

    def _found(self, name: str, default: V) -> Any | V:  # noqa: ANN401
        found = self._data.get(name)
        return default if found is None else found


def rope(
    fields: Fields, *, theta_name: str = "rope_theta", fraction_name: str | None = None
) -> dict[str, Any]:
    """Return the rotary embedding, from the fields of transformers 4 or of transformers 5.

    Version 4 has `rope_theta` and `rope_scaling` beside the other fields (GPT-NeoX:
    `rotary_emb_base` and `rotary_pct`, 0.25 unless given); version 5 nests them in
    `rope_parameters`. A family without `fraction_name` turns whole heads.
    """
    theta = fields.number(theta_name, 10_000.0)
    fraction = fields.number(fraction_name, 0.25) if fraction_name else 1.0
    if not fraction_name:
        fields.only("partial_rotary_factor", 1.0)
    for place in ("rope_parameters", "rope_scaling"):
        nested = fields.table(place)
        known = {"rope_theta", "rope_type", "type", "partial_rotary_factor"}
        kinds = {nested.get("rope_type", "default"), nested.get("type", "default")}
        if not set(nested) <= known or kinds != {"default"}:
            fields.refuse(place, "plain rope, of type 'default' and without scaling")
        inner = Fields(nested, place)
        theta = inner.number("rope_theta", theta)
        if fraction_name:
            fraction = inner.number("partial_rotary_factor", fraction)
        else:
            inner.only("partial_rotary_factor", 1.0)
    return {"kind": "rope", "theta": theta, "fraction": fraction}
