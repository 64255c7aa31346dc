"""Caches of tests' own."""

from pathlib import Path

from assay.data.cache import cache_folder

SHARED = [cache_folder(None) / name for name in ("kernels", "figures")]


def cache_in(folder: Path) -> str:
    """Return a cache in a test's folder that shares what takes long to make with the user's."""
    cache = folder / "cache"
    if not cache.exists():
        cache.mkdir()
        for shared in SHARED:
            shared.mkdir(parents=True, exist_ok=True)
            (cache / shared.name).symlink_to(shared, target_is_directory=True)
    return str(cache)
