import os
import stat
import subprocess
import sys
from ctypes import CDLL
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from programs import compiler_in

from assay.data.cache import open_entry
from assay.engine.doctor import examine
from assay.generate import GenerateOptions, generate
from assay.native import build
from assay.native.build import at_hand, kernels
from assay.native.compiler import find_compiler
from assay.nn.model import GPT, ModelConfig
from assay.sampling import SamplingConfig
from patience import wait_until


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """As in a process that has not asked for the kernels yet, with a cache of its own."""
    monkeypatch.setenv("ASSAY_CACHE", str(tmp_path))
    before = build._candidate
    build.take(None)
    yield tmp_path
    build.take(before)


def test_the_threads_are_those_of_pytorch(native):
    if sys.platform != "linux":
        pytest.skip("libraries in memory are listed by Linux")
    with open("/proc/self/maps") as maps:
        loaded = {line.split()[-1] for line in maps if "libgomp" in line}
    assert len([path for path in loaded if "kept" not in path]) == 1


def test_an_openmp_that_pytorch_keeps_to_itself_is_seen_by_what_is_loaded_later(native, tmp_path):
    """As on Arm; a library of PyTorch's that nobody else sees stands for its OpenMP here."""
    if sys.platform != "linux":
        pytest.skip("libraries in memory are listed by Linux")
    kept = tmp_path / "torch" / "libgomp-kept.so"
    kept.parent.mkdir()
    source = tmp_path / "kept.cpp"
    source.write_text('extern "C" int kept_to_itself() { return 7; }')
    command = [find_compiler() or "", "-shared", "-fPIC", source, "-o", kept]
    subprocess.run(command, check=True)
    loaded = CDLL(str(kept))
    assert loaded.kept_to_itself() == 7
    assert not hasattr(CDLL(None), "kept_to_itself")
    build._share_openmp.__wrapped__()
    assert CDLL(None).kept_to_itself() == 7


@pytest.mark.slow
def test_a_library_is_built_once_and_one_that_was_damaged_again(native, fresh, monkeypatch):
    monkeypatch.setenv("CXX", compiler_in(fresh, f'exec {find_compiler()} "$@" -O0'))
    assert at_hand() is None
    build.take(None)
    assert kernels().library is not None
    assert at_hand().note == kernels().note
    (library,) = fresh.glob("kernels/*/kernels.so")
    built = library.stat().st_mtime_ns
    build.take(None)
    assert kernels().library is not None
    assert library.stat().st_mtime_ns == built
    library.unlink()  # not written over: this process has it in memory
    library.write_bytes(b"")
    build.take(None)
    assert kernels().library is not None
    assert library.stat().st_size > 0


@pytest.mark.parametrize(
    ("compiler", "note"),
    [("/nowhere/g++", "could not be built or loaded"), ("false", "could not compile")],
)
def test_without_a_compiler_pytorch_reads_and_the_reason_is_told(
    fresh, monkeypatch, compiler, note
):
    monkeypatch.setenv("CXX", compiler)
    assert kernels().library is None
    assert note in kernels().note
    run = generate(
        GPT.create(ModelConfig(vocab_size=37)),
        [[1, 2]],
        SamplingConfig(),
        options=GenerateOptions(max_new_tokens=4, weights="int8"),
    )
    assert len(list(run)) == 4


def test_a_compiler_whose_message_is_no_utf_8_is_told_of(fresh, monkeypatch):
    broken = r"printf 'error: \377\376 gro\337\n' >&2; exit 1"
    command = f'[ "$1" = --version ] && exec {find_compiler()} --version; {broken}'
    monkeypatch.setenv("CXX", compiler_in(fresh, command))
    assert kernels().library is None
    assert "could not compile them (error: \ufffd\ufffd gro\ufffd)" in kernels().note


def test_a_library_without_our_functions_is_told_of(fresh, monkeypatch):
    """A compiler that writes something else."""
    command = f"""[ "$1" = --version ] && exec {find_compiler()} --version
    while [ $# -gt 0 ]; do [ "$1" = -o ] && out=$2; [ "$1" = -shared ] && linked=1; shift; done
    [ "$linked" ] || exec touch "$out"
    echo "int nothing;" | cc -x c -shared -fPIC -o "$out" -
    """
    monkeypatch.setenv("CXX", compiler_in(fresh, command))
    for _ in range(2):  # as it is built, and from the cache
        assert kernels().library is None
        assert "not a library of these kernels" in kernels().note
        build.take(None)


@pytest.mark.slow
def test_a_compiler_may_be_several_words(fresh, monkeypatch):
    wrapper = compiler_in(fresh, 'exec "$@" -O0')
    monkeypatch.setenv("CXX", f"{wrapper} {find_compiler()}")
    assert kernels().library is not None
    (finding,) = (found for found in examine(fresh) if found.name == "compiler")
    assert finding.fine


@pytest.mark.parametrize("named", ["/nowhere/g++ -O2", "'g++", "false"])
def test_a_compiler_that_is_none_is_for_the_doctor_to_tell(fresh, monkeypatch, named):
    monkeypatch.setenv("CXX", named)
    findings = {found.name: found for found in examine(fresh)}
    assert not findings["compiler"].fine
    assert named in findings["compiler"].found


def test_a_compiler_that_hangs_is_ended_with_all_it_started_and_not_asked_again(
    fresh, monkeypatch, caplog
):
    monkeypatch.setattr(build.cxx, "COMPILE_S", 1)
    command = f"""[ "$1" = --version ] && exec {find_compiler()} --version
    sleep 1000 & echo $! >> {fresh}/started; wait"""
    monkeypatch.setenv("CXX", compiler_in(fresh, command))
    assert kernels().library is None
    assert "did not end within" in kernels().note
    started = (fresh / "started").read_text().split()
    assert len(started) == len(build.cxx.SOURCES)
    for process in started:
        wait_until(lambda: not _runs(int(process)))  # noqa: B023
    build.take(None)
    assert "`assay doctor --kernels` tries again" in kernels().note
    assert (fresh / "started").read_text().split() == started


def _runs(process):
    """Whether a process is there and no zombie."""
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def test_somebody_who_waits_for_another_process_says_so_and_goes_on(fresh, monkeypatch, capfd):
    monkeypatch.setattr(build, "_WAIT_S", 0.2)
    monkeypatch.setattr("assay.data.cache._QUIET_S", 0.1)
    entry = build._entry(find_compiler())
    build._private_folder()
    with FileLock(entry.with_suffix(".lock")):
        assert kernels().library is None
    assert "another process has been making the compiled C++ kernels" in kernels().note
    assert (
        "another process makes the compiled C++ kernels; waiting for it" in capfd.readouterr().err
    )
    assert build._failure(entry) is None  # nothing failed: the next process looks again


# --- whose library it is


@pytest.fixture
def entry(native, fresh):
    """A cache that has a library, compiled by another process, which tells when it is opened."""
    source = fresh / "planted.cpp"
    source.write_text(
        "#include <cstdio>\n__attribute__((constructor)) void opened() "
        f'{{ std::fclose(std::fopen("{fresh}/opened", "w")); }}'
    )

    def write(folder):
        library = folder / "kernels.so"
        command = [find_compiler(), "-shared", "-fPIC", source, "-o", library]
        subprocess.run(command, check=True)
        library.chmod(0o700)

    build._private_folder()
    entry = build._entry(find_compiler())
    open_entry(entry, write)
    return entry


def test_a_library_of_ours_is_opened(entry, fresh):
    assert "not a library of these kernels" in kernels().note
    assert (fresh / "opened").exists()


@pytest.mark.parametrize("what", ["library", "entry", "folder"])
@pytest.mark.parametrize("how", ["owner", "others may write"])
def test_a_library_that_another_user_may_have_planted_is_never_opened(entry, fresh, what, how):
    library = entry / "kernels.so"
    place = {"library": library, "entry": entry, "folder": entry.parent}[what]
    if how == "owner":
        if os.geteuid() != 0:
            pytest.skip("only root can give a file away")
        os.chown(place, 12345, -1)
    else:
        place.chmod(0o777)
    if (what, how) == ("folder", "others may write"):  # ours: it is closed, what lies there is ours
        build._private_folder()
        assert stat.S_IMODE(place.stat().st_mode) == 0o700
        return
    assert kernels().library is None
    expected = "belongs to user 12345" if how == "owner" else "can be written by others"
    assert expected in kernels().note
    assert not (fresh / "opened").exists()


# --- no memory

NO_MEMORY = """
import resource, torch
from assay.train.muon import Muon
from assay.native.build import kernels
assert kernels().library is not None
torch.set_num_threads(2)
parameters = [torch.nn.Parameter(torch.ones(8, 8)), torch.nn.Parameter(torch.ones(3000, 3000))]
for parameter in parameters:
    parameter.grad = torch.ones_like(parameter)
muon = Muon(parameters, lr=0.1, momentum=0.9, weight_decay=0.0)
for parameter in parameters:
    muon.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
small = Muon(parameters[:1], lr=0.1, momentum=0.9, weight_decay=0.0)
small.step_natively(scale=1.0, bf16=False)  # threads are there
before = parameters[0].detach().clone()
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (60 << 20), -1))
try:
    muon.step_natively(scale=1.0, bf16=False)
except MemoryError as error:
    print(error)
print(bool((parameters[1] == 1).all()), torch.equal(parameters[0], before))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads how much memory is used as Linux tells")
def test_a_step_without_memory_is_an_exception_and_changes_nothing(native):
    command = [sys.executable, "-c", NO_MEMORY]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    assert said.stdout.splitlines() == [
        "not enough memory for assay_muon of the C++ kernels",
        "True True",
    ]


def test_no_compiler_at_all_is_told(fresh, monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(build.cxx.shutil, "which", lambda name: None)
    assert kernels().note == "no C++ compiler was found (g++ or clang++)"


@pytest.mark.parametrize("capability", ["AVX512", "SVE256"])
def test_a_pytorch_that_tells_less_of_the_processor_is_enough(monkeypatch, capability):
    """The oldest one has no `get_capabilities`; of Arm no wheel has more than the plain kernels."""
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert build._runnable() == [capability, "DEFAULT"]
    assert not build.runs("AVX512")
