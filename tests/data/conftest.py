import os
from pathlib import Path

import pytest


@pytest.fixture
def real_data():
    """The folder of real texts that ASSAY_DATA names; tests that need it skip without."""
    folder = os.environ.get("ASSAY_DATA")
    if not folder:
        pytest.skip("ASSAY_DATA does not name a folder with real texts")
    return Path(folder)
