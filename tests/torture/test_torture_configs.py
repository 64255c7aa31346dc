"""Random configs: each is taken or refused at its place, with what is allowed there."""

import json
import random
import re
from collections import Counter

import pytest
from mutations import NAMES, VALUES, as_json, deep, mutated_tree

from assay.cli.arguments import Given, build_config, parse_value, tell_apart
from assay.config import RunConfig
from assay.disk import parse_json
from assay.errors import ConfigError
from assay.schema import decode, field_paths, override

FIELDS = sorted(field_paths(RunConfig))
WHOLE = RunConfig().model_dump(mode="json")
WORDS = [
    "null", "nan", "inf", "-inf", "1e999", "true", "0x" + "f" * 5000, "9" * 5000, "-1", "0", "1",
    "1.5", "[]", "{}", "[1, 2]", "{kind = 1}", '{kind = "rms"}', "'rms'", "rms", "RMS", "layer ",
    "", "=", "1979-05-27", "[" * 5000, '"\\ud800"', "\x1b[2J", "a.b=c", "1\nb = 2", "é", "2" * 30,
]  # fmt: skip
ALLOWED = re.compile(r"expected|Did you mean|should be|should have|needs an even number|Choose")
PLACES = {".".join(field.split(".")[:n]) for field in FIELDS for n in range(1, 5)}
NO_FIELD = re.compile(
    r"unknown field|has no fields|levels found|expected a whole number of at most"
)


def typo(name, rng):
    """A name one slip of the finger away."""
    at = rng.randrange(len(name))
    deed = rng.randrange(4)
    if deed == 0:
        return name[:at] + name[at + 1 :]
    if deed == 1:
        return name[:at] + rng.choice("abcxyz_.0") + name[at:]
    if deed == 2:
        return name[:at] + name[at : at + 2][::-1] + name[at + 2 :]
    return name.upper()


def some_field(rng):
    chance = rng.random()
    if chance < 0.6:
        return rng.choice(FIELDS)
    if chance < 0.85:
        return typo(rng.choice(FIELDS), rng)
    return ".".join(rng.choice(NAMES) for _ in range(rng.choice((1, 2, 3, 40))))


def from_json(rng, folder):
    """A whole config, changed in a few places, spelt as JSON and read back."""
    try:
        tree = parse_json(as_json(mutated_tree(WHOLE, rng), rng), marks=10_000, finite=False)
    except ValueError as error:
        raise ConfigError(f"config.json: expected readable JSON: {error}") from None
    decode(RunConfig, tree)


def from_overrides(rng, folder):
    """Dotted fields with values of any type, as a program gives them."""
    values = [*VALUES, deep(50), deep(500), 16**5000, b"bytes", object, {1: 2}, {1, 2}]
    override(RunConfig(), {some_field(rng): rng.choice(values) for _ in range(rng.choice((1, 3)))})


def from_arguments(rng, folder):
    """What is typed after a command."""
    typed = [f"{some_field(rng)}={rng.choice(WORDS)}" for _ in range(rng.choice((1, 2)))]
    given = tell_apart(typed)
    build_config(Given([], [], given.changes), None)


def from_toml(rng, folder):
    """A file of lines of TOML, most of them well formed."""
    lines = []
    for _ in range(rng.choice((1, 2, 4))):
        field, value = some_field(rng), rng.choice([*WORDS, *map(json.dumps, (1, 2.5, "rms", []))])
        section, _, name = field.rpartition(".")
        lines += (
            [f"[{section}]", f"{name} = {value}"] if rng.random() < 0.5 else [f"{field}={value}"]
        )
    path = folder / "odd.toml"
    path.write_text("\n".join(lines), encoding="utf-8", errors="replace")
    build_config(Given([path], [], {}), None)


WAYS = {
    "JSON": from_json,
    "overrides": from_overrides,
    "arguments": from_arguments,
    "TOML": from_toml,
}


def fault_of(message):
    """Return what a refusal lacks, or None: a place, and what is allowed there."""
    message = re.sub(r"^\S*odd\.toml: ", "", message)
    if message.startswith(("not TOML: ", "config.json: ")):
        return None  # no config could be read, so it has no places
    place, colon, rest = message.partition(": ")
    if not colon or not place:
        return "no place"
    if re.sub(r"\.\d+$", "", place) not in PLACES and not NO_FIELD.search(rest):
        return "the place of a field"
    if not ALLOWED.search(rest):
        return "nothing said of what is allowed"
    return None if len(message) < 3000 else "too long"


def outcome(way, rng, folder):
    """Return how one random config ends: taken, refused, or by what else."""
    try:
        WAYS[way](rng, folder)
    except ConfigError as error:
        fault = fault_of(str(error))
        return f"refused without {fault}: {error!s:.300}" if fault else "refused"
    except BaseException as error:
        return f"crashed by {type(error).__name__}: {error!s:.300}"
    return "taken"


def test_a_random_config_is_taken_or_refused_at_its_place(tmp_path, load, record):
    total, outcomes = load(1000, 100_000), Counter()
    for number in range(total):
        way = list(WAYS)[number % len(WAYS)]
        ended = outcome(way, random.Random(number), tmp_path)
        assert ended in ("taken", "refused"), f"{way} {number}: {ended}"
        outcomes[ended] += 1
    assert outcomes["refused"] > total // 2
    assert outcomes["taken"]
    record(
        "configs",
        f"{total} random configs, a quarter each as {', '.join(WAYS)}",
        f"{outcomes['refused']} refused with field and what is allowed, {outcomes['taken']} taken "
        "(the change was within range); no traceback",
    )


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_says_its_own_name_when_its_value_is_of_no_use(field):
    with pytest.raises(ConfigError) as caught:
        override(RunConfig(), {field: {"nonsense": object}})
    assert str(caught.value).startswith(field.rpartition(".")[0])


def test_a_value_typed_is_never_more_than_one_value():
    """Else a value could smuggle another field in."""
    assert parse_value("1\nb = 2") == "1\nb = 2"
