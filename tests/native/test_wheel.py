"""A wheel brings the kernels compiled: nobody who installs it needs a compiler.

What the installed package writes and the losses it finds are PyTorch's, whichever library it takes.
"""

import platform
import subprocess
import sys
from pathlib import Path

import pytest
from programs import of_an_older

from assay.native.compiler import find_compiler
from patience import HANG_S

SPEAKS = """
import sys
from assay.native.build import kernels
from assay.generate import GenerateOptions, generate
import torch
from assay.nn.loss import next_token_loss
from assay.nn.model import GPT, ModelConfig
from assay.sampling import SamplingConfig
from assay.schema import decode
from assay.train.native_backend import gradients, multiplies_bf16
import assay
print(assay.__file__)
print(kernels().note)
fields = {"vocab_size": 61, "init": {"kind": "gaussian", "std": 0.3}}
model = GPT.create(decode(ModelConfig, fields))
for kind in ("fp32", "bf16", "int8"):
    options = GenerateOptions(max_new_tokens=20, weights=kind, reader=sys.argv[1])
    steps = generate(model, [[1, 2, 3]], SamplingConfig(temperature=0), options=options)
    print([row for (row,) in steps])
tokens = torch.arange(122).view(2, 61) * 7 % 61
for bf16 in (False, True):
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        loss = next_token_loss(model, tokens)
    if sys.argv[1] == "native" and (multiplies_bf16() or not bf16):
        loss = gradients(model, tokens, bf16=bf16, seed=0, pieces=1, apart=False)
    print(round(loss.item(), 1))
"""


def said(folder, reader, **environment):
    command = [sys.executable, "-c", SPEAKS, reader]
    told = subprocess.run(
        command,
        env={"PATH": "/nowhere", "PYTHONPATH": str(folder), "HOME": str(folder), **environment},
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
        timeout=HANG_S,
    )
    return told.stdout.splitlines()


@pytest.mark.slow
@pytest.mark.skipif(find_compiler() is None, reason="no C++ compiler")
def test_without_a_compiler_an_installed_wheel_reads_with_the_kernels(wheel):
    folder, name = wheel
    assert platform.machine() in name
    assert (folder / "assay" / "native" / "kernels-DEFAULT.so").is_file()
    where, note, *told = said(folder, "native")
    assert Path(where).is_relative_to(folder)
    assert note.startswith("C++ kernels, vectors of ")
    assert told == said(folder, "torch")[2:]


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="of x86 alone")
@pytest.mark.skipif(find_compiler() is None, reason="no C++ compiler")
@pytest.mark.parametrize("capability", ["default", "avx2"])
def test_an_older_processor_takes_the_library_that_it_can_run(wheel, capability):
    """PyTorch is told to see no more than this, which it takes for its own kernels too."""
    _, note, *told = said(wheel[0], "native", ATEN_CPU_CAPABILITY=capability)
    assert f"vectors of {256 if capability == 'avx2' else 128} bits" in note
    assert told == said(wheel[0], "torch")[2:]


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="of x86 alone")
@pytest.mark.skipif(find_compiler() is None, reason="no C++ compiler")
@pytest.mark.parametrize("name", ["AVX512_BF16", "AVX512"])
def test_a_newer_processor_can_run_the_library_of_one_before_it(wheel, tmp_path, name):
    folder = of_an_older(wheel[0], tmp_path, name)
    _, note, *told = said(folder, "native")
    assert ("in vectors" if name == "AVX512_BF16" else "in float32") in note
    assert told == said(folder, "torch")[2:]
