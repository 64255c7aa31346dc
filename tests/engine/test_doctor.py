import shutil
from pathlib import Path

import pytest
import torch

from assay.engine import doctor
from assay.engine.doctor import examine
from assay.native.build import at_hand

DISK = shutil.disk_usage("/")


@pytest.fixture(scope="module")
def findings(tmp_path_factory):
    torch.set_num_threads(1)
    return {found.name: found for found in examine(tmp_path_factory.mktemp("work") / "runs")}


def test_everything_a_training_leans_on_is_looked_at(findings):
    looked_at = {"versions", "device", "threads", "bf16", "kernels", "compiler", "memory"}
    assert findings.keys() >= looked_at
    assert torch.__version__ in findings["versions"].found
    assert findings["threads"].value > 1e6
    assert 0 < findings["bf16"].value < 100
    assert findings["kernels"].value == (at_hand() is not None)
    assert all(bool(finding.mend) != finding.fine for finding in findings.values())


def test_a_folder_that_is_not_there_yet_is_looked_at_where_it_would_be(findings):
    assert findings["runs_folder"].fine
    assert findings["runs_folder"].value <= DISK.total


def test_more_threads_than_cores_are_to_be_mended(monkeypatch):
    monkeypatch.setattr(doctor, "_usable_cores", lambda: {0})
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        threads, _ = doctor._cores()
    finally:
        torch.set_num_threads(before)
    assert not threads.fine
    assert threads.mend == "set OMP_NUM_THREADS=1, or fewer."


def test_a_machine_without_a_compiler_is_told_what_that_costs(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    finding = doctor._compiler()
    assert not finding.fine
    assert "torch.compile" in finding.found


def test_a_file_in_the_place_of_a_folder_is_said(tmp_path):
    (tmp_path / "runs").write_text("")
    finding = doctor._room("runs", Path(tmp_path / "runs" / "deep"))
    assert not finding.fine
    assert "cannot be written" in finding.found


def test_a_disk_that_is_nearly_full_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "_ROOM", DISK.total + 1)
    finding = doctor._room("cache", tmp_path)
    assert (finding.name, finding.fine) == ("cache_folder", False)
    assert "make room" in finding.mend
