"""Kernels with a fault in them: their sources with a few words exchanged, compiled."""

import shutil
import subprocess
from pathlib import Path

from assay.native import compiler as cxx

FAULTS = {
    "swapped fields": (
        "abi.h",
        "int32_t n_rows, seq_len;  // B sequences",
        "int32_t seq_len, n_rows;  // B sequences",
    ),
    "an endless loop": (
        "training_forward.h",
        "void act(Held<T>& h, int token, T* out) {",
        "void act(Held<T>& h, int token, T* out) { for (volatile bool on = true; on;) continue;",
    ),
    "abort": (
        "training_forward.h",
        "void act(Held<T>& h, int token, T* out) {",
        "void act(Held<T>& h, int token, T* out) { __builtin_abort();",
    ),
    "abort in Muon": (
        "muon.cpp",
        "void normalise(float* matrix, int64_t count) {",
        "void normalise(float* matrix, int64_t count) { __builtin_abort();",
    ),
    "NaN garbage": (
        "training_memory.h",
        "held(n && width ? (n + kPad) * stride + kPad : 0) {}",
        "held(n && width ? (n + kPad) * stride + kPad : 0) "
        "{ if (!held.empty()) std::memset((void*)held.data(), 0xff, held.size() * sizeof(T)); }",
    ),
    "a wrong norm in decoding": (
        "decoding_attention.h",
        "1.0f / std::sqrt(square + norm.eps);",
        "1.0f / std::sqrt(square + norm.eps + 0.01f);",
    ),
}
"""By name: a file, words that stand in it once, and what stands there instead."""


def plant(folder: Path, fault: str) -> None:
    """Exchange the words of a fault in the sources that lie in `folder`."""
    name, words, others = FAULTS[fault]
    path = folder / name
    source = path.read_text(encoding="utf-8")
    assert source.count(words) == 1, words
    path.write_text(source.replace(words, others), encoding="utf-8")


def compiled(folder: Path, fault: str, target: tuple[str, ...] | None = None) -> Path:
    """Return the library of sources with a fault, for this processor or a target."""
    sources = folder / "sources"
    sources.mkdir()
    for path in (*cxx.SOURCES, *cxx.HEADERS):
        shutil.copy(path, sources)
    plant(sources, fault)
    compiler = cxx.find_compiler()
    command = cxx.command_of(compiler, cxx.version_of(compiler), target or cxx.native())
    objects = [(path, path.with_suffix(".o")) for path in sorted(sources.glob("*.cpp"))]
    compiling = [subprocess.Popen([*command, "-O1", "-c", path, "-o", to]) for path, to in objects]
    assert not any(process.wait() for process in compiling)
    library = folder / "kernels.so"
    linked = [compiler, "-shared", *(to for _, to in objects), "-o", library]
    subprocess.run(linked, check=True)
    library.chmod(0o700)
    return library
