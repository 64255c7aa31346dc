"""AMX's instructions beside plain loops, and what a processor refuses.

Where there is AMX it is the processor that is tried, and the emulator where there is none.
"""

import signal
import subprocess
import sys

import pytest
from programs import compiled

from assay.native.build import runs

pytestmark = pytest.mark.slow

REFUSED = {
    "palette": "ldtilecfg: the palette is neither 0 nor 1",
    "rows": "ldtilecfg: a tile has more than 16 rows",
    "bytes": "ldtilecfg: a tile has more than 64 bytes in a row",
    "many bytes": "ldtilecfg: a tile has more than 64 bytes in a row",
    "reserved": "ldtilecfg: a reserved byte of the configuration is not 0",
    "ninth bytes": "ldtilecfg: a reserved byte of the configuration is not 0",
    "ninth rows": "ldtilecfg: a reserved byte of the configuration is not 0",
    "no bytes": "ldtilecfg: a tile has rows of no bytes, or bytes in no rows",
    "no rows": "ldtilecfg: a tile has rows of no bytes, or bytes in no rows",
    "no configuration": "tileloadd: no configuration is loaded",
    "released": "tilezero: no configuration is loaded",
    "stored": "tilestored: no configuration is loaded",
    "multiplied": "tdpbssd: no configuration is loaded",
    "thread": "tilezero: no configuration is loaded",
    "no tile": "tilezero: the configuration has no rows for a tile that it names",
    "odd bytes": "tilezero: the bytes in a tile's row are no multiple of 4",
    "first row": "tileloadd: the configuration's first row is beyond the tile",
    "tile 8": "tilezero: there are only 8 tiles",
    "no stride": "tileloadd: its operand has no SIB byte (base and stride)",
    "relative": "tileloadd: its operand has no SIB byte (base and stride)",
    "same tiles": "tdpbf16ps: two of its tiles are the same",
    "m": "tdpbf16ps: C and A differ in rows",
    "n": "tdpbf16ps: C and B differ in columns",
    "k": "tdpbf16ps: A has not as many columns (of 4 bytes) as B has rows",
}
OTHERS = {
    "null": signal.SIGSEGV,
    "ud2": signal.SIGILL,
    "no amx": signal.SIGILL,
    "raised": signal.SIGILL,
}
IN_PYTHON = """
import ctypes, faulthandler, sys
program = ctypes.CDLL(sys.argv[1])
faulthandler.enable()
arguments = [b"program", *map(str.encode, sys.argv[2:])]
program.main(len(arguments), (ctypes.c_char_p * len(arguments))(*arguments))
"""


@pytest.fixture(scope="module")
def program(emulator, tmp_path_factory):
    path = tmp_path_factory.mktemp("amx") / "instructions"
    return compiled("amx_instructions.cpp", path, None, "AMX")


@pytest.fixture(scope="module")
def library(emulator, tmp_path_factory):
    path = tmp_path_factory.mktemp("amx") / "instructions.so"
    return compiled("amx_instructions.cpp", path, None, "AMX", "-shared")


def run(tiles, *command):
    return subprocess.run(
        command, env=tiles.environment, capture_output=True, text=True, check=False, timeout=60
    )


def sentence_of(line):
    """Return the instruction and the reason in a line of the emulator, without addresses."""
    start, _, why = line.partition("): ")
    return f"{start.removeprefix('AMX emulator: ').split()[0]}: {why}"


def test_every_instruction_does_what_a_plain_loop_does(tiles, program):
    *wrong, checks = run(tiles, program).stdout.splitlines()
    assert not wrong
    assert int(checks) > 5000
    assert tiles.were_used(10_000)


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_processor_refuses_dies_with_the_reason(tiles, program, name):
    done = run(tiles, program, name)
    by_config = REFUSED[name].startswith("ldtilecfg")
    assert -done.returncode == (signal.SIGSEGV if by_config else signal.SIGILL)
    if not runs("AMX"):
        (line,) = done.stderr.splitlines()
        assert sentence_of(line) == REFUSED[name]


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_fault_of_tiles_dies_as_ever(tiles, program, name):
    done = run(tiles, program, name)
    assert -done.returncode == OTHERS[name]
    assert not done.stderr


def test_beside_pythons_fault_handler_tiles_are_executed(tiles, library):
    *wrong, checks = run(tiles, sys.executable, "-c", IN_PYTHON, library).stdout.splitlines()
    assert not wrong
    assert int(checks) > 5000
    assert tiles.were_used(10_000)


@pytest.mark.parametrize(
    ("name", "told", "number"),
    [
        ("rows", "Segmentation fault", signal.SIGSEGV),
        ("released", "Illegal instruction", signal.SIGILL),
        ("ud2", "Illegal instruction", signal.SIGILL),
    ],
)
def test_pythons_fault_handler_tells_of_what_is_refused(tiles, library, name, told, number):
    done = run(tiles, sys.executable, "-c", IN_PYTHON, library, name)
    assert -done.returncode == number
    assert f"Fatal Python error: {told}" in done.stderr
    assert runs("AMX") or REFUSED.get(name, "").partition(": ")[2] in done.stderr
