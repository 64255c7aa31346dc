"""A disk that forgets: what a power cut may leave of operations that were traced.

What POSIX promises and no more: `fsync` of a file puts its data on the disk, and `fsync` of a
folder the names in it, each without the other. Until then every write of a file and every change of
a folder may be there or not, whatever came before or after it; a rename is there whole or not at
all; data that is not there reads as nothing or as zeros.

Source: Pillai et al., All File Systems Are Not Created Equal, OSDI 2014.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field

from disk_tap import Operation

VARIANTS = ("lost", "kept", "zeros", "names alone", "data alone")


@dataclass(eq=False)
class File:
    """Bytes on the disk, and the writes (offset, data) and truncations (size, None) since."""

    durable: bytes = b""
    pending: list = field(default_factory=list)

    def after(self, changes):
        content = bytearray(self.durable)
        for at, data in changes:
            content.extend(bytes(max(0, at - len(content))))
            content[at : None if data is None else at + len(data)] = data or b""
        return bytes(content)

    def sync(self):
        self.durable, self.pending = self.after(self.pending), []


@dataclass(eq=False)
class Folder:
    """Names on the disk, and the changes of names since; `live` is what the process sees."""

    live: dict = field(default_factory=dict)
    durable: dict = field(default_factory=dict)
    pending: list = field(default_factory=list)

    def change(self, **names):
        self.live = self.after(self.live, [names])
        self.pending.append(names)

    @staticmethod
    def after(names, changes):
        for change in changes:
            names = {k: v for k, v in (names | change).items() if v is not None}
        return names

    def sync(self):
        self.durable, self.pending = self.live, []


class Disk:
    """Takes operations in the order of a trace; `left` is what a cut leaves at that moment."""

    def __init__(self):
        self.root = Folder()

    def take(self, operation):
        if operation.kind == "fsync":
            self.find(operation.path).sync()
        elif operation.kind == "write":
            self.find(operation.path).pending.append((operation.at, operation.data))
        elif operation.kind == "truncate":
            self.find(operation.path).pending.append((operation.at, None))
        else:
            self.take_name(operation)

    def take_name(self, operation):
        folder, name = self.place(operation.path)
        if operation.kind == "rename":
            other, new = self.place(operation.to)
            assert other is folder  # else the two folders could disagree
            folder.change(**{name: None, new: folder.live[name]})
        else:
            made = {"create": File, "mkdir": Folder}.get(operation.kind, lambda: None)()
            folder.change(**{name: made})

    def place(self, path):
        parent, _, name = path.rpartition("/")
        return self.find(parent), name

    def find(self, path):
        node = self.root
        for name in filter(None, path.split("/")):
            node = node.live[name]
        return node

    def left(self, variant, chance):
        """Return {path: bytes, or None for a folder}, as `variant` or else chance has it."""
        found = {}
        self._walk(self.root, "", variant, chance, found)
        return found

    def _walk(self, folder, prefix, variant, chance, found):
        changes = _names_left(folder.pending, variant, chance)
        for name, node in Folder.after(folder.durable, changes).items():
            path = prefix + name
            if isinstance(node, Folder):
                found[path] = None
                self._walk(node, f"{path}/", variant, chance, found)
            else:
                found[path] = node.after(_data_left(node.pending, variant, chance))


def _names_left(pending, variant, chance):
    if variant in VARIANTS:
        return pending if variant in ("kept", "zeros", "names alone") else []
    return [change for change in pending if chance.random() < 0.5]


def _data_left(pending, variant, chance):
    """Return the changes of a file that are on the disk: all, none, zeros, some, or half of one."""
    how = variant if variant in VARIANTS else chance.choice(("lost", "kept", "zeros", "some"))
    if how in ("lost", "names alone"):
        return []
    if how == "zeros":
        return [(at, data and bytes(len(data))) for at, data in pending]
    if how == "some":
        return [_torn(*change, chance) for change in pending[: chance.randint(0, len(pending))]]
    return pending


def _torn(at, data, chance):
    """Return a write that reached the disk in part; truncations are whole."""
    return at, data and chance.choice((data, bytes(len(data)), data[: chance.randrange(len(data))]))


def name_of(state):
    """Return a hash by which equal states are tried once."""
    digest = hashlib.sha256()
    for path, content in sorted(state.items()):
        digest.update(repr((path, content)).encode())
    return digest.hexdigest()


def build(state, folder):
    """Make the folder that the state describes."""
    folder.mkdir()
    for path, content in sorted(state.items()):  # a folder comes before what is in it
        if content is None:
            (folder / path).mkdir()
        else:
            (folder / path).write_bytes(content)


def as_line(operation):
    """Return an operation as a line of a trace file."""
    return json.dumps(asdict(operation) | {"data": operation.data.decode("latin-1")}) + "\n"


def from_line(line):
    """Return the operation in a line of a trace file."""
    fields = json.loads(line)
    return Operation(**fields | {"data": fields["data"].encode("latin-1")})
