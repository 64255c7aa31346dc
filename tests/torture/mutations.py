"""Random harm to JSON, to bytes and to safetensors files, drawn from a seeded generator."""

import json
import struct

NAMES = [
    "kind",
    "model",
    "eps",
    "d_model",
    "__class__",
    "../../x",
    "\x1b[2J",
    "",
    "step",
    "x" * 300,
]
DTYPES = ["F32", "F64", "F16", "BF16", "I64", "I8", "BOOL", "U8", "F8_E4M3", "C64", "X", ""]
SIZES = [0, 1, 2, 3, 7, -1, 2**31, 2**32, 2**40, 2**63 - 1, 2**63, 2**64, 10**30]
VALUES = [
    None, True, False, *SIZES, 0.5, -0.0, 1e308, 1e-320, float("nan"), float("inf"), "", "rms",
    "none", "x", "/etc/passwd", "../../../etc/passwd", "a\x00b", "\x1b]0;owned\x07", "\ud800",
    "9" * 400, "y" * 2000, [], {}, [[]], [0] * 50, {"kind": "rms"}, {"kind": ["rms"]}, {"a": {}},
    "__import__('os').system('touch marker')", "!!python/object/apply:os.system [touch marker]",
]  # fmt: skip


def deep(levels):
    tree = None
    for _ in range(levels):
        tree = [tree]
    return tree


def copied(tree):
    """Copy lists and dicts all the way down, so that no value is shared or holds itself."""
    if isinstance(tree, dict):
        return {name: copied(value) for name, value in tree.items()}
    return [copied(value) for value in tree] if isinstance(tree, list) else tree


def places(tree):
    """Yield (container, key) of every value inside `tree`."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        keys = node if isinstance(node, dict) else range(len(node))
        for key in keys:
            yield node, key
            if isinstance(node[key], dict | list):
                waiting.append(node[key])


def mutated_tree(tree, rng, values=VALUES):
    """Change one to three values of a JSON object, a copy of it: replaced, moved, lost, added."""
    tree = copied(tree)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        found = list(places(tree))
        if not found:
            break
        node, key = rng.choice(found)
        deed = rng.randrange(8)
        if deed == 0:
            del node[key]
        elif deed == 1 and isinstance(node, dict):
            node[rng.choice(NAMES)] = node.pop(key)
        elif deed == 2 and isinstance(node, dict):
            node[rng.choice(NAMES)] = copied(rng.choice(values))
        elif deed == 3:
            other, place = rng.choice(found)
            node[key] = copied(other.get(place) if isinstance(other, dict) else 0)
        elif deed == 4 and isinstance(node[key], int | float):
            node[key] = node[key] * rng.choice((-1, 2, 3, 10**6, 0.5)) + rng.choice((0, 1))
        elif deed == 5 and rng.random() < 0.05:
            node[key] = deep(rng.choice((5, 50, 300)))
        else:
            node[key] = copied(rng.choice(values))
    return tree


def as_json(tree, rng):
    """Spell a tree; now and then with a name twice, or harmed afterwards."""
    text = json.dumps(tree)
    deed = rng.randrange(20)
    if deed == 0:
        text = text.replace("{", '{"kind": 1, "kind": 2, ', 1)
    content = text.encode()
    return mutated_bytes(content, rng) if deed == 1 else content


def mutated_bytes(content, rng):
    """Flip, cut, repeat, insert or overwrite some bytes."""
    content = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.randrange(len(content) + 1)
        deed = rng.randrange(5)
        if deed == 0 and at < len(content):
            content[at] ^= 1 << rng.randrange(8)
        elif deed == 1:
            del content[at:]
        elif deed == 2:
            content[at:at] = content[at : at + rng.randrange(200)]
        elif deed == 3:
            content[at:at] = rng.randbytes(rng.randrange(20))
        else:
            content[at : at + 8] = struct.pack("<q", rng.choice((0, -1, 2**40, 7, 2**62)))
    return bytes(content)


def mutated_tensors(content, rng):
    """Harm the header of a safetensors file: its length, shapes, dtypes, offsets or names."""
    length = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    deed = rng.randrange(8)
    if deed < 5:
        names = [name for name in header if name != "__metadata__"]
        for _ in range(rng.choice((1, 1, 2))):
            _harm_entry(header, names, rng)
    elif deed == 5:
        header = mutated_tree(header, rng)
    text = as_json(header, rng)
    told = len(text)
    if deed == 6:
        told = rng.choice((0, 1, told - 1, told + 1, 2**20, 2**31, 2**63, 2**64 - 1, 10**8))
    if deed == 7:
        data = mutated_bytes(data, rng)
    return told.to_bytes(8, "little") + text + data


def _harm_entry(header, names, rng):
    name = rng.choice(names)
    entry = header[name] = copied(header[name])
    deed = rng.randrange(6)
    if deed == 0:
        entry["shape"] = [rng.choice(SIZES) for _ in range(rng.randrange(5))]
    elif deed == 1:
        entry["dtype"] = rng.choice(DTYPES)
    elif deed == 2:
        entry["data_offsets"] = [rng.choice(SIZES), rng.choice(SIZES)]
    elif deed == 3:  # two tensors over the same bytes
        entry["data_offsets"] = header[rng.choice(names)]["data_offsets"]
    elif deed == 4:  # as many numbers, of another shape
        entry["shape"] = [*entry["shape"][::-1], rng.choice((1, 2**40, 0))]
    else:
        header[rng.choice(NAMES)] = header.pop(name)
        names.remove(name)
        names.append(next(reversed(header)))
