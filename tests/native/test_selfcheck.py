"""The kernels' self-check sees each planted fault, and PyTorch does what failed."""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from faulty_kernels import FAULTS, FAULTS_IN_TILES, NO_MEMORY, Planted

import assay
from assay.engine.kernel_parts import CHECKS
from assay.native import build, selfcheck
from assay.native.build import Kernels, kernels
from assay.native.compiler import find_compiler
from assay.nn.model import GPT, ModelConfig
from assay.schema import decode
from assay.train.config import TrainConfig
from assay.train.native_backend import multiplies_bf16, unsupported_reason
from assay.train.optim import AdamWConfig, MuonConfig

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="no C++ compiler")


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Libraries with a fault each."""
    return Planted(tmp_path_factory.mktemp("planted"))


def had(parts):
    """Those of some parts that this processor has."""
    return {part for part in parts if multiplies_bf16() or part not in ("train_bf16", "muon_bf16")}


@pytest.mark.parametrize("start", [selfcheck._forked, selfcheck._spawned])
def test_a_sound_library_has_no_fault_and_every_part_is_tried(native, start):
    found = selfcheck._tried(native.path, start)
    assert found.faults == {}
    assert found.findings.keys() == had(CHECKS)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_seen_in_its_part_and_in_no_other(native, planted, monkeypatch, fault):
    monkeypatch.setattr(selfcheck, "_CPU_S", 10)  # after which a part hangs, in a forked child
    found = selfcheck._tried(planted.library(FAULTS[fault]), selfcheck._forked)
    assert found.faults.keys() == had(FAULTS[fault].seen_in)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("fault", [None, *FAULTS_IN_TILES])
def test_a_fault_in_tiles_is_seen_in_what_takes_products_of_bfloat16(planted, tiles, fault):
    """On processors with AMX, or on one that is made to have it."""
    library = planted.library(FAULTS_IN_TILES.get(fault), "AMX")
    program = (
        "import sys, pathlib; from assay.native import selfcheck\n"
        "found = selfcheck._tried(pathlib.Path(sys.argv[1]), selfcheck._forked)\n"
        "print(*sorted(found.faults))"
    )
    told = subprocess.run(
        [sys.executable, "-c", program, str(library)],
        env=os.environ | tiles.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    seen = FAULTS_IN_TILES[fault].seen_in if fault else set()
    assert set(told.stdout.split()) == set(seen)


def test_a_library_of_another_version_is_refused_before_anything_is_called(native, tmp_path):
    source = tmp_path / "other.cpp"
    source.write_text(
        'extern "C" { extern const int assay_struct_sizes[]; '
        "const int assay_struct_sizes[] = {14, 8}; void assay_read() { __builtin_abort(); } }"
    )
    library = tmp_path / "kernels.so"
    subprocess.run([find_compiler(), "-shared", "-fPIC", source, "-o", library], check=True)
    library.chmod(0o700)
    with pytest.raises(OSError, match="compiled from another version"):
        build.loaded(library)
    assert "another version" in selfcheck.check(library).faults["library"]


# --- PyTorch takes over


@pytest.fixture
def faulty(native):
    """Let the kernels have failed their self-check of some parts."""

    def use(*parts):
        faults = dict.fromkeys(parts, "planted")
        build.take(Kernels(native.library, native.note, faults, native.path))

    yield use
    build.take(native)


def test_what_failed_is_not_asked_of_the_kernels(faulty):
    model, config = ModelConfig(vocab_size=37), decode(TrainConfig, {})
    cpu = torch.device("cpu")
    faulty("train_bf16")
    assert unsupported_reason(model, config, cpu) is None
    assert not multiplies_bf16()
    faulty("train_fp32")
    assert "failed their self-check of train_fp32" in unsupported_reason(model, config, cpu)
    assert kernels().lacks("decode_int8") is None


@pytest.mark.parametrize("optimizer", [AdamWConfig(), MuonConfig()])
@pytest.mark.parametrize("bf16", [False, True])
def test_pytorch_takes_the_steps_of_an_optimizer_that_failed(faulty, optimizer, bf16):
    def step(*parts):
        faulty(*parts)
        model = GPT.create(decode(ModelConfig, {"vocab_size": 37, "d_model": 32}), seed=1)
        draw = torch.Generator().manual_seed(0)
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=draw)
        optimizer.build(model).step_natively(1.0, scale=0.5, bf16=bf16 and multiplies_bf16())
        return model.state_dict()

    ours, theirs = step(), step("adamw", "muon_fp32", "muon_bf16")
    exact = optimizer.kind == "adamw" or not bf16
    for name, value in ours.items():
        torch.testing.assert_close(theirs[name], value, rtol=0, atol=1e-5 if exact else 2e-3)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("fault", FAULTS)
def test_with_any_fault_a_run_still_ends_with_text_and_says_why_it_is_slower(
    planted, tmp_path, fault
):
    """As `make demo`, by a copy of the package that brings the library as a wheel does."""
    package = Path(assay.__file__).parent
    copied = shutil.copytree(package, tmp_path / "assay", ignore=shutil.ignore_patterns("*.so"))
    shutil.copy(planted.library(FAULTS[fault]), copied / "native" / "kernels-DEFAULT.so")
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "ASSAY_CACHE": str(tmp_path / "cache")}
    small = ["model.d_model=36", "model.n_layers=1", "model.mixer.n_heads=2", "train.batch_size=4"]
    short = ["train.steps=4", "train.seq_len=16", "eval.final_max_tokens=500"]

    def said(*arguments):
        command = [sys.executable, "-m", "assay", *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done

    trained = said("train", *small, *short, "--name", "demo")
    if had(FAULTS[fault].seen_in):
        assert "self-check" in trained.stderr
    text = said("generate", "demo", "--prompt", "KING", "--max-new-tokens", "5")
    assert text.stdout.startswith("KING")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("fault", ["no memory", "abort in Muon"])
def test_a_check_that_had_no_memory_is_made_again_by_the_next_process(
    planted, tmp_path, monkeypatch, fault
):
    """It says nothing of the library; a fault of the library is kept."""
    monkeypatch.setenv("ASSAY_CACHE", str(tmp_path))
    found = build._checked(planted.library((FAULTS | NO_MEMORY)[fault]), renew=False)
    assert found.lacks("muon_fp32") is not None
    assert found.lacks("adamw") is None
    kept = list(build._private_folder().glob("*.json"))
    assert bool(kept) == (fault != "no memory")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(platform.machine() != "x86_64", reason="wheels have several libraries on x86")
def test_a_faulty_library_of_a_wheel_gives_way_to_that_of_an_older_processor(planted, tmp_path):
    installed = shutil.copytree(
        Path(assay.__file__).parent, tmp_path / "assay", ignore=shutil.ignore_patterns("*.so")
    )
    best = installed / "native" / f"kernels-{build._runnable()[0]}.so"
    shutil.copy(planted.library(FAULTS["abort in Muon"]), best)
    environment = {"PYTHONPATH": str(tmp_path), "ASSAY_CACHE": str(tmp_path / "cache")}

    def said():
        code = "from assay.native.build import kernels; print(kernels().note, kernels().faults)"
        command = [sys.executable, "-c", code]
        return subprocess.check_output(command, env=os.environ | environment, text=True)

    assert "'muon_fp32': 'ended by SIGABRT'" in said()
    shutil.copy(planted.library(None, "DEFAULT"), best.with_name("kernels-DEFAULT.so"))
    assert "vectors of 128 bits" in said()
