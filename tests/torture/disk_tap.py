"""Everything a process does to the files under one folder, seen before it happens.

`tap(folder, see)` puts itself between Python and the operating system, for good: it is for forked
children. `see` may kill the process, raise an error or write down what is about to be done. Each
write is two, so that `see` also comes in the middle of it. What safetensors writes from Rust is
done here in the same system calls, on the same bytes; `test_torture_power_cut.py` compares both
with what strace sees.
"""

import builtins
import io
import os
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch

import assay.train.checkpoint

CHANGES = ("create", "truncate", "write", "fsync", "rename", "mkdir", "unlink", "rmdir")


@dataclass(frozen=True)
class Operation:
    """One change of a file or folder, or one opening for reading.

    Attributes:
        kind: One of `CHANGES`; open or scan, for reading; failed, after one the system refused; or
            mark, which is no operation but what the run has told its user.
        path: Under the folder.
        to: The new name of a rename.
        data: What is written.
        at: Where it is written, or the size that a file is truncated to.
    """

    kind: str
    path: str
    to: str = ""
    data: bytes = b""
    at: int = 0

    def __str__(self):
        return " ".join(filter(None, (self.kind, self.path, self.to and f"-> {self.to}")))


class Tap:
    """Replaces the functions by which Python reaches the disk."""

    def __init__(self, folder, see):
        self.folder, self.see_all, self.paths = str(folder), see, {}
        self.real = {name: getattr(os, name) for name in ("open", "fsync", "scandir")}
        self.real_open = io.open

    def relative(self, path, dir_fd=None):
        """Return a path under the folder, or None for one that is elsewhere."""
        if isinstance(path, int):
            path = self.paths.get(path)
        if path is None:
            return None
        path = os.fsdecode(path)
        if dir_fd is not None:
            path = os.path.join(self.paths.get(dir_fd, "/elsewhere"), path)
        path = os.path.abspath(path)
        inside = f"{path}{os.sep}".startswith(self.folder + os.sep)
        return path[len(self.folder) + 1 :] if inside else None

    def see(self, kind, path, **details):
        if path is not None:
            self.see_all(Operation(kind, path, **details))

    def note(self, descriptor, path):
        """Remember the name of an open file, for fsync."""
        inside = self.relative(path)
        self.paths[descriptor] = None if inside is None else os.path.join(self.folder, inside)

    def install(self):
        io.open = builtins.open = self.open
        os.open, os.fsync, os.scandir = self.os_open, self.fsync, self.scandir
        os.rename, os.replace = self.moving(os.rename), self.moving(os.replace)
        for name, kind in (("mkdir", "mkdir"), ("rmdir", "rmdir"), ("unlink", "unlink")):
            setattr(os, name, self.watched(getattr(os, name), kind))
        os.remove = self.watched(os.remove, "unlink")
        os.ftruncate = self.truncating(os.ftruncate)
        assay.train.checkpoint.save_file = self.save_file

    def open(self, file, mode="r", *arguments, **keywords):
        path = None if isinstance(file, int) else self.relative(file)
        if path is None:
            return self.real_open(file, mode, *arguments, **keywords)
        if set(mode).isdisjoint("wax+"):
            self.see("open", path)
            opened = self.real_open(file, mode, *arguments, **keywords)
            self.note(opened.fileno(), file)
            return opened
        self.about_to_open(path, emptied="w" in mode)
        return self.stacked(TappedFile(self, file, mode), mode, *arguments, **keywords)

    def about_to_open(self, path, *, emptied):
        full = os.path.join(self.folder, path)
        if not os.path.exists(full):
            self.see("create", path)
        elif emptied:
            self.see("truncate", path)

    @staticmethod
    def stacked(raw, mode, buffering=-1, encoding=None, errors=None, newline=None):
        """Return what `open` would: buffers and text around a raw file."""
        if buffering == 0:
            return raw
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, errors, newline)

    def os_open(self, path, flags, mode=0o777, *, dir_fd=None):
        inside = self.relative(path, dir_fd)
        if inside is not None and flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR):
            self.about_to_open(inside, emptied=bool(flags & os.O_TRUNC))
        elif inside is not None:
            self.see("open", inside)
        descriptor = self.real["open"](path, flags, mode, dir_fd=dir_fd)
        self.paths[descriptor] = None if inside is None else os.path.join(self.folder, inside)
        return descriptor

    def fsync(self, descriptor):
        self.see("fsync", self.relative(descriptor))
        self.real["fsync"](descriptor)

    def scandir(self, path="."):
        self.see("scan", self.relative(path))
        return self.real["scandir"](path)

    def watched(self, real, kind):
        def call(path, *arguments, dir_fd=None, **keywords):
            inside = self.relative(path, dir_fd)
            self.see(kind, inside)
            try:
                return real(path, *arguments, dir_fd=dir_fd, **keywords)
            except OSError:
                self.see("failed", inside)
                raise

        return call

    def moving(self, real):
        def call(path, to, **keywords):
            self.see("rename", self.relative(path), to=self.relative(to))
            return real(path, to, **keywords)

        return call

    def truncating(self, real):
        def call(descriptor, size):
            self.see("truncate", self.relative(descriptor), at=size)
            real(descriptor, size)

        return call

    def save_file(self, tensors, path):
        """Do what safetensors 0.8 does: a temporary file, its size, its bytes, its name."""
        temporary = path.with_name(f".tmp-{path.name}")
        with io.open(temporary, "xb", buffering=0) as file:  # noqa: UP020  (the tapped one)
            data = safetensors.torch.save(tensors)
            os.ftruncate(file.fileno(), len(data))
            file.write(data)
        os.rename(temporary, path)


class TappedFile(io.FileIO):
    """A file whose every write is announced, in two halves."""

    def __init__(self, tap, path, mode):
        super().__init__(path, mode.replace("b", "").replace("t", ""))
        self.tap, self.inside = tap, tap.relative(path)
        tap.note(self.fileno(), path)

    def write(self, data):
        data = bytes(data)
        half = len(data) // 2
        for piece in filter(None, (data[:half], data[half:])):
            self.tap.see("write", self.inside, data=piece, at=self.tell())
            super().write(piece)
        return len(data)


def tap(folder: Path, see):
    """Show `see` every `Operation` under `folder` from now on; return the tap."""
    tapped = Tap(folder, see)
    tapped.install()
    return tapped
