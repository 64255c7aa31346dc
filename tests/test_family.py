"""Families of variants: open to a class from outside, and asked about nowhere but in them."""

import ast
import json
import sys
from pathlib import Path
from typing import Literal

import pytest
from torch import nn

import assay
from assay import family as family_module
from assay.config import RunConfig
from assay.errors import ConfigError
from assay.family import Family, Variant, add_variants, families, field_of, kind_of
from assay.nn.norm import NORMS, LayerNormConfig, NormConfig, NormVariant, RMSNormConfig
from assay.schema import Config, config_hash, decode, field_paths, override

SRC = Path(assay.__file__).parent
OPEN = {
    *("norm", "position", "block", "mixer", "mlp", "init"),
    *("optimizer", "schedule", "adapt", "filter"),
}
MAY_ASK = {
    "nn/reference.py": "the twin writes every formula of assay's own out, and hands on the rest",
    "hf/": "a format of somebody else's knows only what it has a word for",
}


class DoublingConfig(NormVariant):
    kind: Literal["doubling"] = "doubling"
    by: float = 2.0

    def build(self, d_model):
        return nn.Identity()


class Holder(Config):
    norm: NormConfig = RMSNormConfig()


@pytest.fixture(autouse=True)
def _as_it_was():
    before = dict(NORMS._variants)
    yield
    NORMS._variants.clear()
    NORMS._variants.update(before)


def test_a_bare_name_and_a_mapping_are_read_and_written_whole():
    holder = decode(Holder, {"norm": {"kind": "layer", "eps": 1e-3}})
    assert holder.norm == LayerNormConfig(eps=1e-3)
    assert decode(Holder, {"norm": "rms"}).norm == RMSNormConfig()
    written = {"norm": {"kind": "layer", "eps": 1e-3, "affine": "scale_shift"}}
    assert holder.model_dump(mode="json") == written


def test_fields_of_a_variant_are_left_out_and_picked_as_of_any_other_config():
    config = override(RunConfig(), {"train.optimizer": "adamw", "train.optimizer.lr": 0.5})
    left = {"train": {"optimizer": {"lr"}}}
    for written in (
        config.model_dump(exclude=left),
        json.loads(config.model_dump_json(exclude=left)),
    ):
        assert "lr" not in written["train"]["optimizer"]
        assert written["train"]["optimizer"]["kind"] == "adamw"
    assert config.model_dump(include=left) == {"train": {"optimizer": {"lr": 0.5}}}
    changed = config.train.model_dump(exclude_defaults=True)
    assert changed == {"optimizer": {"lr": 0.5}}
    assert config.train.model_dump(exclude_unset=True)["optimizer"]["lr"] == 0.5


def test_an_unknown_kind_is_refused_with_the_way_to_bring_one():
    with pytest.raises(ConfigError, match=r"unknown kind 'xyz'; .* needs --plugin FILE\.py"):
        decode(Holder, {"norm": "xyz"})


def test_a_class_from_outside_is_named_like_our_own():
    NORMS.add(DoublingConfig)
    config = override(RunConfig(), {"model.norm": "doubling", "model.norm.by": 3.0})
    assert config.model.norm == DoublingConfig(by=3.0)
    assert decode(RunConfig, json.loads(config.model_dump_json())) == config
    assert config_hash(config) != config_hash(override(config, {"model.norm.by": 4.0}))
    assert "doubling" in str(Holder.model_json_schema())
    assert "(doubling)" in field_paths(Holder)["norm.by"]


def test_a_class_of_a_kind_that_is_taken_or_of_none_is_refused():
    class Other(NormVariant):
        kind: Literal["rms"] = "rms"

    class Nameless(NormVariant):
        pass

    class Child(RMSNormConfig):
        pass

    for cls, told in ((Other, "that of assay.nn.norm.RMSNormConfig"), (Nameless, "no default")):
        with pytest.raises(ConfigError, match=told):
            NORMS.add(cls)
    with pytest.raises(ConfigError, match="a subclass of RMSNormConfig"):
        NORMS.add(Child)


def test_a_cell_that_is_run_again_replaces_its_class():
    def cell(default):
        class Mine(NormVariant):
            kind: Literal["mine"] = "mine"
            by: float = default

        return Mine

    NORMS.add(cell(1.0))
    NORMS.add(cell(2.0))
    assert decode(Holder, {"norm": "mine"}).norm.by == 2.0


def test_where_one_class_of_a_module_is_refused_none_of_them_is_taken():
    class Taken(NormVariant):
        kind: Literal["layer"] = "layer"

    module = type(sys)("some_module")
    module.First, module.Second = DoublingConfig, Taken
    for cls in (DoublingConfig, Taken):
        cls.__module__ = "some_module"
    try:
        with pytest.raises(ConfigError, match="'layer' found"):
            add_variants(module)
    finally:
        DoublingConfig.__module__ = __name__
    assert DoublingConfig not in NORMS.known


PACKAGE = """
from typing import Literal
from torch import nn
from assay.nn.norm import NormVariant

class InstalledConfig(NormVariant):
    kind: Literal["installed"] = "installed"

    def build(self, d_model):
        return nn.Identity()
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package with an entry point, as pip leaves it; its import is seen by a file."""
    (tmp_path / "their_norms.py").write_text(PACKAGE)
    folder = tmp_path / "their_norms-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: their-norms\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[assay.variants]\nnorms = their_norms\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(family_module, "_installed", [])
    yield tmp_path
    sys.modules.pop("their_norms", None)


def test_an_installed_package_offers_variants_by_its_entry_point(installed):
    assert decode(Holder, {"norm": "layer"}).norm == LayerNormConfig()
    assert "their_norms" not in sys.modules  # not before a kind is asked for that is not known
    assert kind_of(type(decode(Holder, {"norm": "installed"}).norm)) == "installed"


def test_an_installed_package_that_does_not_load_is_a_sentence(installed):
    (installed / "their_norms.py").write_text("import nothing_of_this_name")
    with pytest.raises(ConfigError, match=r"'norms' of assay\.variants: their_norms does not load"):
        decode(Holder, {"norm": "installed"})


def test_every_choice_is_a_family_with_a_field_of_its_name():
    assert {field_of(next(iter(family.known))) for family in families()} == OPEN


@pytest.mark.parametrize("one", families(), ids=lambda f: f.base.__name__)
def test_a_variant_says_where_it_comes_from_or_that_it_is_our_own(one):
    assert isinstance(one, Family)
    for variant in one.known:
        assert issubclass(variant, one.base)
        assert variant.__doc__
        assert variant.citation is None or str(variant.citation)


def concrete():
    """The names of all variants of assay's own."""
    return {v.__name__ for f in families() for v in f.known if v.__module__.startswith("assay.")}


def questions(path):
    """Yield the lines in which a module asks which variant it has, but for one that it defines."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    names = concrete() - own
    for node in ast.walk(tree):
        if isinstance(node, ast.MatchClass) and ast.unparse(node.cls) in names:
            yield node.cls.lineno
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "issubclass"):
            asked = {n.id for n in ast.walk(node.args[1]) if isinstance(n, ast.Name)}
            if asked & names:
                yield node.lineno
        if isinstance(node, ast.Compare):
            for side in (node.left, *node.comparators):
                is_kind = isinstance(side, ast.Attribute) and side.attr == "kind"
                if is_kind and ast.unparse(side.value).rpartition(".")[2] in OPEN:
                    yield node.lineno


def test_nobody_asks_about_a_family_outside_it():
    found = {}
    for path in sorted(SRC.rglob("*.py")):
        name = path.relative_to(SRC).as_posix()
        if lines := list(questions(path)):
            found[name] = lines
    allowed = {name for name in found if any(name.startswith(start) for start in MAY_ASK)}
    assert found.keys() == allowed, "a variant is asked which it is: let it say what is wanted"
    assert "nn/reference.py" in allowed


@pytest.mark.parametrize(
    "line",
    [
        "isinstance(config.norm, RMSNormConfig)",
        "isinstance(x, (int, AlibiConfig))",
        "config.model.norm.kind == 'rms'",
        "optimizer.kind in ('muon', 'adamw')",
    ],
)
def test_a_question_is_seen(tmp_path, line):
    (tmp_path / "module.py").write_text(f"found = {line}\n")
    assert list(questions(tmp_path / "module.py")) == [1]


def test_what_declares_no_kind_is_no_variant():
    assert kind_of(Variant) == kind_of(NormVariant) == ""
