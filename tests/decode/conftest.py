import pytest

from assay.decode.build import kernels


@pytest.fixture(scope="session")
def native():
    """The kernels, or a skipped test where they cannot be built."""
    found = kernels()
    if found.library is None:
        pytest.skip(found.note)
    return found
