"""Every call in src that opens, reads or unpacks a file, and why it may, if not by `assay.disk`.

A file that a stranger may have written is read by `assay.disk` (`read_bytes`, `read_json`,
`unzipped_lines`, `open_ordinary`, `sha256_of`, `check_header`): of a bounded size, and no pipe.
"""

import ast
from collections import Counter
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "assay"
METHODS = {"open", "read_bytes", "read_text", "memmap", "fromfile", "genfromtxt", "loadtxt"}
FUNCTIONS = {
    "open", "CDLL", "safe_open", "load_file", "import_module", "json.load", "json.loads", "np.load",
    "torch.load", "sqlite3.connect", "yaml.load", "runpy.run_path", "mmap.mmap", "exec", "eval",
    "spec_from_file_location", "importlib.import_module", "models.BPE.from_file", "BPE.from_file",
    "Tokenizer.from_file",
}  # fmt: skip
MODULES = {"gzip", "bz2", "lzma", "tomllib", "zipfile", "tarfile", "pickle", "pickletools",
           "shelve", "zstandard", "marshal"}  # fmt: skip
OWN = ("Run.open", "Corpus.open", "Study.open", "run_member.open")
"""Ours, which open no file but by what is listed here."""

OURS = "a file of the program's own, installed with it"
JUST_WRITTEN = "written by this process, or a child of it, a moment ago"
WRITTEN = "opened to be written, in a folder of this process"
NAMED_TEXT = (
    "a text that the user names: an ordinary file, streamed, and bounded where it is unpacked"
)
HEADER_CHECKED = "safetensors, behind `check_header`: the library reads no more than that, no code"
OF_LINUX = "the kernel's own account, under /proc"
OF_CACHE = "of the user's cache, held to the hash it was written with"
EXEMPT = {
    ("__init__.py", "import_module"): (1, "a module of assay, by a table in this file"),
    ("checks/bits.py", "safe_open"): (2, "two checkpoints that `verify_checkpoint` passed"),
    ("checks/scratch.py", "_log(scratch).open"): (1, WRITTEN),
    ("checks/scratch.py", "_log(scratch).read_text"): (1, JUST_WRITTEN),
    ("cli/__init__.py", "os.open"): (1, "/dev/null, to be written"),
    ("cli/arguments.py", "tomllib.loads"): (
        2,
        "a value that was typed; a file that `read_bytes` bounded; deep nesting is caught",
    ),
    ("cli/generate.py", "path.read_text"): (1, "a prompt that the user names, which may be a pipe"),
    ("cli/train.py", "sample.read_text"): (1, JUST_WRITTEN),
    ("data/bundled/build.py", "lzma.compress"): (1, "makes the bundled text; nothing imports it"),
    ("data/bundled/build.py", "sdist.read_bytes"): (1, "the same, held to a hash"),
    ("data/bundled/build.py", "tarfile.open"): (1, "the same, once the hash fits"),
    ("data/corpus.py", "BUNDLED.read_bytes"): (1, OURS),
    ("data/encode.py", "(folder / 'train.bin').open"): (1, WRITTEN),
    ("data/encode.py", "(folder / 'val.bin').open"): (1, WRITTEN),
    ("data/prepare.py", "np.fromfile"): (1, f"{OF_CACHE}, as long as its counts say"),
    ("data/prepare.py", "np.memmap"): (1, f"{OF_CACHE}, as long as its counts say, ids compared"),
    ("data/readers.py", "open"): (2, NAMED_TEXT),
    ("data/readers.py", "gzip.open"): (1, NAMED_TEXT),
    ("data/readers.py", "bz2.open"): (1, NAMED_TEXT),
    ("data/readers.py", "lzma.open"): (1, NAMED_TEXT),
    ("data/readers.py", "zstandard.ZstdDecompressor"): (2, NAMED_TEXT),
    ("data/readers.py", "zstandard.ZstdDecompressor().decompressobj"): (2, NAMED_TEXT),
    ("data/readers.py", "json.loads"): (1, "a line of such a text; what is no JSON is a sentence"),
    ("data/subword.py", "models.BPE.from_file"): (1, "files whose sizes `read_bounded` checked"),
    ("disk.py", "gzip.GzipFile"): (1, "the bounded reader itself"),
    ("disk.py", "json.loads"): (1, "the bounded reader itself"),
    ("disk.py", "os.open"): (2, "the bounded reader itself; a file or folder to be synced"),
    ("engine/device.py", "Path('/proc/meminfo').read_text"): (1, OF_LINUX),
    ("engine/device.py", "open"): (1, OF_LINUX),
    ("experiments/code.py", "path.read_text"): (2, OURS),
    ("experiments/jobs.py", "json.loads"): (1, "what this process is about to ask for"),
    ("experiments/jobs.py", "sqlite3.connect"): (
        2,
        "behind `_check_files` and `_tables_in`: no link, journal or schema of others, rows by key",
    ),
    ("experiments/paper/folder.py", "gzip.compress"): (1, "packs what this process judged"),
    ("experiments/paper/interface.py", "(Path(__file__).parent / 'interface.toml').read_text"): (
        1,
        OURS,
    ),
    ("experiments/paper/interface.py", "tomllib.loads"): (1, OURS),
    ("experiments/study_file.py", "json.loads"): (2, "what this process dumped"),
    ("experiments/words.py", "path.read_text"): (1, OURS),
    ("experiments/words.py", "tomllib.loads"): (1, OURS),
    ("hf/files.py", "safe_open"): (2, HEADER_CHECKED),
    ("hf/llama2c.py", "np.memmap"): (1, "as long as its header says, which was read and checked"),
    ("hf/torch_file.py", "pickletools.genops"): (1, "looks at a bounded pickle and runs nothing"),
    ("hf/torch_file.py", "torch.load"): (1, "weights_only, once every name in it is one of ours"),
    ("hf/torch_file.py", "zipfile.ZipFile"): (1, "its records are plain and bounded, or refused"),
    ("native/build.py", "CDLL"): (2, "a library that this user alone can have written"),
    ("native/build.py", "os.open"): (1, "the same: whose it is is looked at before it is loaded"),
    ("native/build.py", "Path('/proc/cpuinfo').read_text"): (1, OF_LINUX),
    ("native/build.py", "Path('/proc/self/maps').read_text"): (1, OF_LINUX),
    ("native/build.py", "path.read_text"): (1, OURS),
    ("native/selfcheck.py", "importlib.import_module"): (2, "a module of assay, named in build.py"),
    ("native/selfcheck.py", "json.loads"): (1, "lines of a child process"),
    ("native/selfcheck.py", "os.open"): (1, "/dev/null, for a child"),
    ("runs/metrics.py", "path.open"): (1, "opened to be appended to, in a folder `find` checked"),
    ("runs/metrics.py", "temporary.open"): (1, WRITTEN),
    ("train/checkpoint.py", "safe_open"): (2, HEADER_CHECKED),
    ("plugin.py", "exec"): (1, "the user's own file, named with --plugin or by the parent process"),
    ("plugin.py", "importlib.import_module"): (1, "what the parent process had imported"),
    ("plugin.py", "json.loads"): (1, "the environment that the parent process gave this one"),
}


def calls_in(source):
    """Yield the name of every call that opens, reads, unpacks or loads something."""
    tree = ast.parse(source)
    bounded = {
        name.asname or name.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "assay.disk"
        for name in node.names
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        last = called.rpartition(".")[2]
        is_method = isinstance(node.func, ast.Attribute) and last in METHODS
        if called in OWN or called in bounded:
            continue
        if is_method or called in FUNCTIONS or called.partition(".")[0] in MODULES:
            yield called


def found():
    return Counter(
        (path.relative_to(SRC).as_posix(), call)
        for path in sorted(SRC.rglob("*.py"))
        for call in calls_in(path.read_text(encoding="utf-8"))
    )


def test_every_file_is_read_by_the_bounded_readers_or_for_a_reason_named_here():
    expected = {place: count for place, (count, _) in EXEMPT.items()}
    now = dict(found())
    new = {place: count for place, count in now.items() if count > expected.get(place, 0)}
    assert not new, (
        f"{new}: a new call that reads or opens a file. If a stranger may have written it, read it "
        "by assay.disk (read_bytes, read_json, unzipped_lines, open_ordinary, sha256_of); if none "
        "can have, name the call and the reason in EXEMPT of this test."
    )
    gone = {place: count for place, count in expected.items() if count > now.get(place, 0)}
    assert not gone, f"{gone}: no longer there; take it out of EXEMPT"


def test_every_reason_is_told():
    assert all(len(why) > 10 for _, why in EXEMPT.values())


@pytest.mark.parametrize(
    "call",
    [
        "path.open('rb')", "Path(x).read_bytes()", "open(x)", "gzip.decompress(x)", "np.load(x)",
        "json.load(x)", "bz2.BZ2File(x)", "tomllib.load(x)", "sqlite3.connect(x)", "CDLL(x)",
        "importlib.import_module(x)", "pickle.loads(x)", "np.memmap(x)", "io.open(x)", "exec(x)",
    ],
)  # fmt: skip
def test_such_a_call_would_be_seen(call):
    assert list(calls_in(f"def f(x):\n    return [{call} for _ in x]"))


def test_the_bounded_readers_are_no_such_call():
    source = "from assay.disk import read_bytes\nread_bytes(p, 9)\np.read_bytes()"
    assert list(calls_in(source)) == ["p.read_bytes"]
