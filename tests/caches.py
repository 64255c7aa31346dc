"""Caches of tests' own."""

from pathlib import Path

from assay.data.cache import cache_folder

KERNELS = cache_folder(None) / "kernels"


def cache_in(folder: Path) -> str:
    """Return a cache in a test's folder that has the compiled kernels: half a minute of work."""
    cache = folder / "cache"
    if not cache.exists():
        cache.mkdir()
        KERNELS.mkdir(parents=True, exist_ok=True)
        (cache / "kernels").symlink_to(KERNELS, target_is_directory=True)
    return str(cache)
