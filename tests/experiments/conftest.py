import pytest
from small_study import TEXT, base_on

from caches import cache_in


@pytest.fixture
def base(tmp_path, monkeypatch):
    """The config of a run of a moment, with a cache of its own."""
    monkeypatch.setenv("ASSAY_CACHE", cache_in(tmp_path))
    monkeypatch.setattr("assay.engine.device._TIMED_S", 1e-9)
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    return base_on(tmp_path / "text.txt")
