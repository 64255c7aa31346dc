"""Kernels with a fault in them: their sources with a few words exchanged, compiled."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from assay.native import compiler as cxx


class Fault(NamedTuple):
    """Words that stand once in a file, and what stands there instead.

    Attributes:
        file: Its name.
        words: What stands there.
        instead: What is to stand there.
        seen_in: The parts of the self-check that see it.
    """

    file: str
    words: str
    instead: str
    seen_in: frozenset[str]


TRAINING = frozenset({"train_fp32", "train_bf16"})
DECODING = frozenset({"decode_fp32", "decode_bf16", "decode_int8"})
_ACT = "void act(Held<T>& h, int token, T* out) {"
_ROWS = "held(n && width ? (n + kPad) * stride + kPad : 0) {"
FAULTS = {
    "swapped fields": Fault(
        "abi.h", "int32_t n_rows, seq_len;  //", "int32_t seq_len, n_rows;  //", TRAINING
    ),
    "an endless loop": Fault(
        "training_forward.h",
        _ACT,
        f"{_ACT} for (volatile bool on = true; on;) continue;",
        frozenset({"library", "train_fp32"}),
    ),
    "abort": Fault("training_forward.h", _ACT, f"{_ACT} __builtin_abort();", TRAINING),
    "abort in Muon": Fault(
        "muon.cpp",
        "void normalise(float* matrix, int64_t count) {",
        "void normalise(float* matrix, int64_t count) { __builtin_abort();",
        frozenset({"muon_fp32", "muon_bf16"}),
    ),
    "NaN garbage": Fault(
        "training_memory.h",
        _ROWS,
        f"{_ROWS} if (held.size()) std::memset((void*)held.data(), 255, held.size() * sizeof(T)); ",
        frozenset({"train_bf16"}),
    ),
    "a wrong norm in decoding": Fault(
        "decoding_attention.h",
        "1.0f / std::sqrt(square + norm.eps);",
        "1.0f / std::sqrt(square + norm.eps + 0.01f);",
        DECODING,
    ),
}
_MUON = "float scale, int32_t bf16, int32_t n_threads) {"
NO_MEMORY = {
    "no memory": Fault(
        "muon.cpp",
        _MUON,
        f"{_MUON} return assay::kNoMemory;",
        frozenset({"muon_fp32", "muon_bf16"}),
    )
}
FAULTS_IN_TILES = {
    "dropped stores": Fault(
        "tiles.h",
        "config.row_bytes[i] = kTileBytes;",
        "",
        frozenset({"train_bf16", "muon_bf16", *DECODING}),
    ),
    "a wrong tile width": Fault(
        "tiles.h",
        "config.row_bytes[i] = kTileBytes;",
        "config.row_bytes[i] = kTileBytes / 2;",
        frozenset({"train_bf16", "muon_bf16", "decode_bf16", "decode_int8"}),
    ),
}
"""Of processors with AMX; the first is what GCC 12 made of its own intrinsic, once inlined."""


class Planted:
    """Libraries with a fault each; only what a fault touches is compiled again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._compiler = cxx.find_compiler()
        self._version = cxx.version_of(self._compiler)

    def library(self, fault: Fault | None, target: str | None = None) -> Path:
        """Return the library, for a target of a wheel or for this processor."""
        name = f"{target}-{'sound' if fault is None else abs(hash(fault))}"
        library = self._folder / name / "kernels.so"
        if not library.is_file():
            library.parent.mkdir(parents=True)
            objects = self._objects(fault, target, library.parent)
            linked = [self._compiler, "-shared", *objects, "-o", library]
            subprocess.run(linked, check=True)
            library.chmod(0o700)
        return library

    def _objects(self, fault: Fault | None, target: str | None, folder: Path) -> list[Path]:
        sources = shutil.copytree(cxx.FOLDER, folder / "sources")
        if fault is not None:
            plant(sources, fault)
        flags = cxx.native() if target is None else cxx.TARGETS[target]
        command = [*cxx.command_of(self._compiler, self._version, flags), "-O1", "-w"]
        objects, compiling = [], []
        for source in sorted(sources.glob("*.cpp")):
            if fault is not None and fault.file not in _includes(source):
                objects.append(self.library(None, target).parent / f"{source.stem}.o")
                continue
            objects.append(folder / f"{source.stem}.o")
            compiling.append(subprocess.Popen([*command, "-c", source, "-o", objects[-1]]))
        assert not any(process.wait() for process in compiling)
        return objects


def plant(folder: Path, fault: Fault) -> None:
    """Exchange the words of a fault in the sources that lie in `folder`."""
    path = folder / fault.file
    source = path.read_text(encoding="utf-8")
    assert source.count(fault.words) == 1, fault.words
    path.write_text(source.replace(fault.words, fault.instead), encoding="utf-8")


def _includes(source: Path) -> set[str]:
    """Return the names of a source and of all files of ours that it includes."""
    found, todo = set(), [source]
    while todo:
        path = todo.pop()
        if path.name in found or not path.is_file():
            continue
        found.add(path.name)
        names = re.findall(r'^#include "(.*)"', path.read_text(encoding="utf-8"), re.MULTILINE)
        todo += [path.parent / name for name in names]
    return found
