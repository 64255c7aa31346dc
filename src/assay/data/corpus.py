"""A corpus: documents that can be read again and again, and what one scan found in them."""

import hashlib
import itertools
import os
import time
import weakref
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from assay.data.config import DataConfig
from assay.data.readers import read_pieces
from assay.data.sources import BUNDLED, Origin, find_origins
from assay.errors import DataError

# Of the file that ships with the package; bundled/build.py makes it, bundled/SOURCES.md explains.
BUNDLED_SHA256 = "a7c97baee971de11572266b64d47cd4a719fa1f897850dc4838bf5bb57159896"

_SETTLED_S = 2.0  # a file changed later than this may change again and show the same times
_MOST_SCANS = 4

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Document:
    """One document, its text handed on in pieces so that a long one need not fit in memory.

    Attributes:
        name: Where it comes from, for people; part of no hash.
        pieces: Its text, once; a document's pieces end when the next document is asked for.
    """

    name: str
    pieces: Iterator[str]

    def text(self) -> str:
        """Join what is left of the pieces."""
        return "".join(self.pieces)


@dataclass(frozen=True, slots=True)
class Scan:
    """What reading every document once found; entry i of each table is document i.

    Attributes:
        digests: SHA-256 of each document's UTF-8 text, 32 bytes after 32 bytes.
        sizes: Bytes of UTF-8 of each document.
        lengths: Characters (code points) of each document.
        alphabet: The distinct characters, sorted; empty unless asked for.
    """

    digests: bytes
    sizes: "array[int]"
    lengths: "array[int]"
    alphabet: str

    def digest(self, document: int) -> bytes:
        """Return the SHA-256 of one document's text."""
        return self.digests[32 * document : 32 * document + 32]


@dataclass(frozen=True)
class Corpus:
    """Text from files, in the order they were named; empty documents are left out.

    Attributes:
        origins: The files, resolved.
        document_start: The pattern that begins a document inside a plain file, if any.
        skipped: Files in the named folders that are not text by their suffix.
        scan: What the documents hold.
        sha256: Of the documents' own SHA-256s, in order, each 32 raw bytes: a renamed file leaves
            it alone; another text, another order or a moved boundary does not.
    """

    origins: tuple[Origin, ...]
    document_start: str | None
    skipped: tuple[str, ...]
    scan: Scan = field(repr=False)
    sha256: str

    @classmethod
    def open(cls, config: DataConfig, progress: Progress | None = None) -> "Corpus":
        """Find the text `config` names and read it once, for all calls while it stays as it is.

        Args:
            config: `text`, `json_field` and `document_start` are used; the alphabet is collected
                only for a character tokenizer.
            progress: Called with ("read", bytes so far, 0): the total is not known yet.

        Raises:
            DataError: For text that is missing, unreadable, broken or empty.
        """
        found = find_origins(config)
        spools = [origin.path for origin in found.origins if origin.name == "standard input"]
        try:
            _check_bundled(found.origins)
            collect = config.tokenizer.kind == "char"
            scan = _scan_once(found.origins, config.document_start, collect, progress)
            if not scan.sizes:
                raise DataError(
                    f"data.text: no text in {', '.join(config.text)}; expected at least one "
                    "character. Name another file or folder."
                )
        except BaseException:
            _remove(spools)
            raise
        sha256 = hashlib.sha256(scan.digests).hexdigest()
        corpus = cls(found.origins, config.document_start, found.skipped, scan, sha256)
        weakref.finalize(corpus, _remove, spools)
        return corpus

    def documents(self) -> Iterator[Document]:
        """Yield the documents in order; may be called again, and reads the files again."""
        yield from _documents(self.origins, self.document_start)  # holds self: it owns the spool

    @property
    def n_documents(self) -> int:
        """Documents that hold at least one character."""
        return len(self.scan.sizes)

    @property
    def n_bytes(self) -> int:
        """Bytes of UTF-8, decompressed."""
        return sum(self.scan.sizes)

    @property
    def n_chars(self) -> int:
        """Characters, that is code points."""
        return sum(self.scan.lengths)

    @property
    def alphabet(self) -> str:
        """The distinct characters, sorted; empty unless the tokenizer is one of characters."""
        return self.scan.alphabet


def _documents(origins: tuple[Origin, ...], document_start: str | None) -> Iterator[Document]:
    for origin in origins:
        pieces = read_pieces(origin, document_start)
        for name, group in itertools.groupby(pieces, key=lambda piece: piece[0]):
            yield Document(name, (text for _, text in group))


_scans: dict[tuple[object, ...], Scan] = {}  # of this process, the latest of them


def _scan_once(
    origins: tuple[Origin, ...],
    document_start: str | None,
    collect: bool,
    progress: Progress | None,
) -> Scan:
    """Scan, or return what was found when the files were what they are now."""
    states = _states(origins)
    key = (states, document_start, collect)
    if states is not None and key in _scans:
        return _scans[key]
    scan = _scan(_documents(origins, document_start), collect, progress)
    if states is not None:
        while len(_scans) >= _MOST_SCANS:
            del _scans[next(iter(_scans))]
        _scans[key] = scan
    return scan


def _states(origins: tuple[Origin, ...]) -> tuple[object, ...] | None:
    """Return what tells whether a file was changed; None where nothing does, or not yet."""
    states: list[object] = []
    for origin in origins:
        if origin.format == "hub":
            return None
        if origin.format == "task":
            states.append(origin)
            continue
        try:
            about = os.stat(origin.path)
        except OSError:  # told by who reads it
            return None
        if time.time() - max(about.st_mtime, about.st_ctime) < _SETTLED_S:
            return None
        times = (about.st_mtime_ns, about.st_ctime_ns)
        states.append((origin, about.st_dev, about.st_ino, about.st_size, times))
    return tuple(states)


def _scan(documents: Iterator[Document], collect: bool, progress: Progress | None) -> Scan:
    digests, sizes, lengths = bytearray(), array("q"), array("q")
    alphabet: set[str] = set()
    total = 0
    for document in documents:
        digest, size, length = hashlib.sha256(), 0, 0
        for piece in document.pieces:
            raw = piece.encode()
            digest.update(raw)
            size, length = size + len(raw), length + len(piece)
            if collect:
                alphabet.update(piece)
            if progress:
                progress("read", total + size, 0)
        digests += digest.digest()
        sizes.append(size)
        lengths.append(length)
        total += size
    return Scan(bytes(digests), sizes, lengths, "".join(sorted(alphabet)))


def _check_bundled(origins: tuple[Origin, ...]) -> None:
    """Raise DataError if the file that ships with the package is not the one that was packed."""
    if not any(origin.path == str(BUNDLED) for origin in origins):
        return
    found = hashlib.sha256(BUNDLED.read_bytes()).hexdigest() if BUNDLED.exists() else "no file"
    if found != BUNDLED_SHA256:
        raise DataError(
            f"{BUNDLED.name}: SHA-256 {found[:12]} found; expected {BUNDLED_SHA256[:12]}. "
            "The installation is damaged: install assay again."
        )


def _remove(paths: list[str]) -> None:
    for path in paths:
        if os.path.exists(path):
            os.unlink(path)
