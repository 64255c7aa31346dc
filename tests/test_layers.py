"""The layers of the package, lowest first: a module imports only from its own layer and below."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src"
LAYERS = [
    {"errors", "citation", "schema", "disk", "family", "plugin"},
    {"nn"},
    {"presets", "count", "sampling"},
    {"generate", "decode", "cuda_graph", "native", "data", "measure", "hf"},
    {"train"},
    {"config"},
    {"engine", "evaluate"},
    {"runs"},
    {"checks"},
    {"experiments"},
    {"cli", "web"},
    {"__init__", "__main__"},
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
ONLY_UNDER = {
    "transformers": {"hf"},
    "datasets": {"data"},
    "lm_eval": {"evaluate"},
    "typer": {"cli"},
    "click": {"cli"},
    "rich": {"cli"},
    "fastapi": {"web"},
    "uvicorn": {"web"},
    "sse_starlette": {"web"},
    "torch.distributed": {"engine"},
}
FORBIDDEN_NAMES = {"utils", "common", "helpers", "misc", "base", "manager"}
MODULES = sorted((SRC / "assay").rglob("*.py"))
every_module = pytest.mark.parametrize(
    "path", MODULES, ids=[str(path.relative_to(SRC)) for path in MODULES]
)


def imported(node, package):
    """Yield the dotted names that an import statement may bind, relative ones resolved."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        above = package[: len(package) - node.level + 1] if node.level else []
        module = ".".join([*above, *([node.module] if node.module else [])])
        yield from (f"{module}.{alias.name}" for alias in node.names)


def imports_of(source, package):
    """Yield every import of a module, those inside functions included."""
    for node in ast.walk(ast.parse(source)):
        yield from imported(node, package)


def imports_at_once(source, package):
    """Yield the imports that run when the module is imported."""
    waiting = list(ast.parse(source).body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting.extend(node.orelse)
            continue
        yield from imported(node, package)
        waiting.extend(ast.iter_child_nodes(node))


def package_of(path):
    return list(path.relative_to(SRC).parent.parts)


def part_of(path):
    """The first name under `assay`: a folder, or a module without its suffix."""
    return path.relative_to(SRC / "assay").with_suffix("").parts[0]


def parts_imported(path):
    for name in imports_of(path.read_text(), package_of(path)):
        if name.partition(".")[0] == "assay":
            inner = name.split(".")[1:2]
            yield inner[0] if inner and inner[0] in RANK else "__init__"


def is_under(name, library):
    return name == library or name.startswith(f"{library}.")


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("import assay.train", {"assay.train"}),
        ("import torch, assay.nn.norm as n", {"torch", "assay.nn.norm"}),
        ("from assay.nn import norm", {"assay.nn.norm"}),
        ("from assay import train", {"assay.train"}),
        ("from . import norm", {"assay.nn.norm"}),
        ("from .norm import RMSNorm", {"assay.nn.norm.RMSNorm"}),
        ("from ..train import loop", {"assay.train.loop"}),
        ("def f():\n    if 1:\n        from assay.cli import app", {"assay.cli.app"}),
    ],
)
def test_every_form_of_import_is_seen(statement, expected):
    assert set(imports_of(statement, ["assay", "nn"])) == expected


def test_imports_inside_functions_do_not_run_at_once():
    waiting = "def f():\n    import b\nif TYPE_CHECKING:\n    import d\n"
    at_once = "import a\nclass C:\n    import c\n"
    assert set(imports_at_once(waiting + at_once, [])) == {"a", "c"}


@every_module
def test_imports_point_downwards(path):
    own = part_of(path)
    assert own in RANK, f"{own} is in no layer: name it in LAYERS"
    for other in parts_imported(path):
        assert RANK[other] <= RANK[own], f"{path.name} imports assay.{other}, a higher layer"


def test_parts_of_one_layer_do_not_import_each_other_in_a_circle():
    graph = {}
    for path in MODULES:
        graph.setdefault(part_of(path), set()).update(set(parts_imported(path)) - {part_of(path)})
    assert list(TopologicalSorter(graph).static_order())  # raises CycleError on a circle


@every_module
def test_a_library_stays_in_its_own_part(path):
    for name in imports_of(path.read_text(), package_of(path)):
        for library, owners in ONLY_UNDER.items():
            assert not is_under(name, library) or part_of(path) in owners, f"{name} in {path}"


@every_module
def test_matplotlib_waits_until_it_is_needed(path):
    for name in imports_at_once(path.read_text(), package_of(path)):
        assert not is_under(name, "matplotlib"), f"{path} imports {name} at once"


@every_module
def test_no_file_is_over_400_lines_and_no_function_over_60(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < 60, f"{path}: {node.name}"


def test_every_name_says_what_is_inside():
    names = {part for path in MODULES for part in path.relative_to(SRC).with_suffix("").parts}
    assert not names & FORBIDDEN_NAMES
