"""The kernels under AddressSanitizer, UBSan and ThreadSanitizer, and beside pages nobody may touch.

Sanitizers are those of GCC, in kernels compiled for them. AddressSanitizer watches whatever is
allocated, PyTorch's tensors too, but no instruction that a compiler does not know as a load: masked
ones, and tiles. Those are watched by pages in the libraries of a wheel, just as they are shipped:
see guard.cpp. Where the processor has no AMX, tiles are emulated.
"""

import os
import platform
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from programs import compiled, why_no_tiles

from assay.native import compiler as cxx
from assay.native.build import runs

TESTS = Path(__file__).parents[1]
WATCHED = Path(__file__).with_name("watched.py")
FILES = (
    "train/test_kernels.py",
    "train/test_muon.py",
    "train/test_adamw.py",
    "train/test_dropout.py",
    "decode/test_native_model.py",
)
WITH_KERNELS = """
import sys
from pathlib import Path
import pytest
from assay.native import build
build.take(build.loaded(Path(sys.argv[1])))
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", *sys.argv[2:]]))
"""
"""Runs pytest with the library that is named first."""
LEFT_OUT = ("vocabulary", "longer_than", "scale", "token_by_token", "bits", "no_number")
"""What takes longest, and what tells one number of threads from another."""
FLAGS = ("-O0", "-g1", "-D_GLIBCXX_ASSERTIONS", "-fno-omit-frame-pointer")
"""GCC takes four times as long with -O1."""
FOR_MEMORY = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def gcc():
    """Return GCC, or skip the test."""
    path = shutil.which("g++")
    if sys.platform != "linux" or path is None:
        pytest.skip("no g++ on Linux, whose sanitizers these are")
    if "Free Software Foundation" not in cxx.version_of(path):
        pytest.skip("g++ is not GCC's")
    return path


def runtime(name):
    """Return the library of a sanitizer, or skip the test."""
    command = [gcc(), f"-print-file-name={name}.so"]
    path = subprocess.check_output(command, text=True).strip()
    if not os.path.isabs(path):
        pytest.skip(f"GCC came without {name}")
    return path


def watched(*command, preload, **environment):
    """Run Python with so many words of a command, and return how it ended."""
    source = str(Path(cxx.FOLDER).parents[1])
    paths = os.pathsep.join(filter(None, (source, os.environ.get("PYTHONPATH"))))
    environment |= {"LD_PRELOAD": " ".join(map(str, preload)), "PYTHONPATH": paths}
    return subprocess.run(
        [sys.executable, *command],
        env=os.environ | environment,
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        check=False,
    )


def passes(*command, note="", **how):
    done = watched(*command, **how)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    assert note in done.stdout


def emulated(target, request):
    """Return what is to be loaded for tiles, and skip what this machine cannot run."""
    if target == "AMX":
        if (reason := why_no_tiles()) is not None:
            pytest.skip(reason)
        return [request.getfixturevalue("emulator")]
    if not runs(target):
        pytest.skip(f"this processor has not the instructions of {target}")
    return []


NOTES = {"AMX": "multiplied in tiles", "AVX512_BF16": "multiplied in vectors"}


# --- AddressSanitizer and UBSan


@pytest.fixture(scope="module")
def for_memory(tmp_path_factory):
    """Return the kernels for a target, compiled with both sanitizers, once."""
    made = {}

    def library(target):
        if target not in made:
            path = tmp_path_factory.mktemp(target) / "kernels.so"
            command = cxx.command_of(gcc(), cxx.version_of(gcc()), cxx.TARGETS[target])
            cxx.compile_to(path, [*command, *FLAGS, *FOR_MEMORY], 280)
            path.chmod(0o700)
            made[target] = path
        return made[target]

    return library


def under_sanitizers(others=()):
    preload = (runtime("libasan"), runtime("libubsan"), *others)
    return {"preload": preload, "ASAN_OPTIONS": "detect_leaks=0"}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("target", cxx.shipped_targets())
def test_nothing_the_self_check_does_is_out_of_bounds_or_undefined(for_memory, request, target):
    how = under_sanitizers(emulated(target, request))
    passes(WATCHED, for_memory(target), "check", note=NOTES.get(target, ""), **how)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nothing_that_training_and_decoding_do_is_out_of_bounds_or_undefined(for_memory):
    target = next(name for name in cxx.shipped_targets() if name != "AMX" and runs(name))
    command = ("-c", WITH_KERNELS, for_memory(target), "-k", f"not ({' or '.join(LEFT_OUT)})")
    files = (TESTS / file for file in FILES)
    passes(*command, *files, note=" passed", **under_sanitizers())


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_addresses_beyond_a_tensor_of_pytorch_are_seen(for_memory):
    done = watched(WATCHED, for_memory("DEFAULT"), "trespass", **under_sanitizers())
    assert "heap-buffer-overflow" in done.stderr
    assert done.returncode != 0


# --- pages


@pytest.fixture(scope="module")
def guard(tmp_path_factory):
    if sys.platform != "linux" or platform.machine() != "x86_64" or not cxx.find_compiler():
        pytest.skip("no C++ compiler on x86-64 Linux")
    path = tmp_path_factory.mktemp("guard") / "guard.so"
    return compiled("guard.cpp", path, None, "DEFAULT", "-shared")


def shipped(wheel, target, tmp_path):
    """Return the library of a wheel where nobody else can write it."""
    path = tmp_path / "kernels.so"
    shutil.copy(wheel[0] / "assay" / "native" / f"kernels-{target}.so", path)
    path.chmod(0o700)
    return path


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("where", ["behind", "before"])
@pytest.mark.parametrize("target", cxx.shipped_targets())
def test_no_operand_is_read_or_written_beyond_its_ends(
    guard, wheel, request, tmp_path, target, where
):
    library, preload = shipped(wheel, target, tmp_path), [guard, *emulated(target, request)]
    note = NOTES.get(target, "")
    passes(WATCHED, library, "check", note=note, preload=preload, ASSAY_GUARD=where)


@pytest.mark.slow
def test_a_page_behind_an_operand_ends_who_reads_on(guard, wheel, tmp_path):
    library = shipped(wheel, "DEFAULT", tmp_path)
    done = watched(WATCHED, library, "trespass", preload=[guard])
    assert -done.returncode == signal.SIGSEGV, done.stderr
    assert watched(WATCHED, library, "trespass", preload=[]).returncode == 0


# --- ThreadSanitizer


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("source", ["races.cpp", "crew.cpp"])
def test_threads_do_not_race(tmp_path, monkeypatch, source):
    """With threads of our own: those of GCC's OpenMP meet in ways that the sanitizer cannot see."""
    monkeypatch.setenv("CXX", gcc())
    runtime("libtsan")
    target = next(name for name in cxx.shipped_targets() if name != "AMX" and runs(name))
    others = cxx.SOURCES if source == "races.cpp" else ()
    flags = ("-O1", "-g1", "-fsanitize=thread", *others)
    program = compiled(source, tmp_path / "program", "without OpenMP", target, *flags)
    done = subprocess.run([program], capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr[:6000]
    assert "ThreadSanitizer" not in done.stderr, done.stderr[:6000]
    assert not done.stdout.replace("done\n", "")


# --- warnings


@pytest.mark.slow
def test_the_kernels_of_a_wheel_compile_without_a_warning(wheel):
    assert not (wheel[0].parent / "warnings").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("target", cxx.shipped_targets())
def test_clang_warns_of_nothing(target):
    if (clang := shutil.which("clang++")) is None:
        pytest.skip("no clang++")
    command = cxx.command_of(clang, cxx.version_of(clang), cxx.TARGETS[target])
    for source in cxx.SOURCES:
        subprocess.run([*command, "-Werror", "-fsyntax-only", source], check=True)
