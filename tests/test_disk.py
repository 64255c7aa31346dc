import gzip
import json
import os
import re
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.disk import (
    HEADER_BYTES,
    MARKS,
    check_header,
    files_in,
    leads_out,
    open_ordinary,
    parse_json,
    read_bytes,
    read_json,
    sha256_of,
    unzipped_lines,
)

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(st.dictionaries(st.text(), json_values))
def test_an_object_that_json_writes_is_read_back(tree):
    content = json.dumps(tree).encode("utf-8", "surrogatepass")
    try:
        json.dumps(tree, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # half a surrogate pair
        with pytest.raises(ValueError, match="no UTF-8"):
            parse_json(content, marks=MARKS)
        return
    if "Infinity" in json.dumps(tree):
        assert parse_json(content, marks=MARKS, finite=False) == tree
    else:
        assert parse_json(content, marks=MARKS) == tree


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "Expecting value"),
        (b"[]", "list found; expected a JSON object"),
        (b"\xff{}", "no UTF-8 at place 0"),
        (b'{"a": 1, "b": {"c": 1, "c": 1}}', "'c' found twice in one object"),
        (b'{"a": NaN}', "NaN found; expected a finite number"),
        (b'{"a": -Infinity}', "-Infinity found; expected a finite number"),
        (b'{"a": 1e999}', "1e999 found; expected a finite number"),
        (b'{"a": "\\ud800"}', "no UTF-8"),
        (b'{"a": ' + b"[" * 100_000, "nested without end"),
        (b'{"a": ' + b"9" * 5000 + b"}", "limit"),
        (b'{"a": [' + b"0," * MARKS + b"0]}", f"expected at most {MARKS}"),
    ],
)
def test_what_is_no_honest_json_object_is_refused_in_words(content, said):
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        parse_json(content, marks=MARKS)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("item", [b"[]", b'{"a":0}', b"1.5", b'"ab"', b'["\\ud83d\\ude00"]'])
def test_the_densest_json_taken_costs_less_than_the_bound_promises(item):
    """Twice the file and 50 MB, where `read_json` is given files of 8 MiB."""
    count = MARKS // (1 + sum(map(item.count, (b",", b":", b"[", b"{")))) - 2
    content = b'{"a":[' + b",".join([item] * count) + b"]}"
    tracemalloc.start()
    parse_json(content, marks=MARKS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < len(content) + (50 << 20)  # the file itself was there before


def test_a_file_over_its_limit_is_refused_unread(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b'{"a":1}')
    assert read_json(path, 7) == {"a": 1}
    with pytest.raises(ValueError, match="7 bytes found; expected at most 6"):
        read_json(path, 6)
    with path.open("wb") as file:
        file.truncate(1 << 40)  # a terabyte of nothing
    with pytest.raises(ValueError, match="1099511627776 bytes found"):
        read_bytes(path, 1 << 20)


def test_a_pipe_a_device_and_a_folder_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, "/dev/zero"):
        with pytest.raises(ValueError, match="expected an ordinary file"):
            read_bytes(tmp_path / path, 10)


def test_what_is_no_ordinary_file_has_no_hash_and_no_header(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    for name in ("pipe", "link", ".", "/dev/zero"):
        for read in (sha256_of, check_header, open_ordinary):
            with pytest.raises(ValueError, match="expected an ordinary file"):
                read(tmp_path / name)


def test_a_pipe_that_takes_a_file_s_name_at_the_last_moment_is_not_waited_for(
    tmp_path, monkeypatch
):
    """It was a file when it was looked at, and is a pipe when it is opened."""
    path, opened = tmp_path / "a", os.open
    path.write_bytes(b"x")

    def swapped(name, flags):
        path.unlink()
        os.mkfifo(path)
        return opened(name, flags)

    monkeypatch.setattr("assay.disk.os.open", swapped)
    with pytest.raises(ValueError, match="expected an ordinary file"):
        read_bytes(path, 9)


def test_a_hash_is_that_of_the_content_and_of_no_larger_file(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_of(tmp_path / "a", 3).startswith("ba7816bf8f01cfea")
    with pytest.raises(ValueError, match="3 bytes found; expected at most 2"):
        sha256_of(tmp_path / "a", 2)


LIMITS = {"packed": 1 << 20, "unpacked": 100, "line": 10}


@given(st.lists(st.binary(max_size=10).map(lambda b: b.translate(None, b"\r\n")), max_size=9))
def test_lines_come_out_of_gzip_as_they_went_in(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("zipped") / "a.gz"
    path.write_bytes(gzip.compress(b"".join(line + b"\n" for line in lines)))
    assert list(unzipped_lines(path, **LIMITS | {"unpacked": 200})) == lines


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (gzip.compress(b"0" * 11), "a line of over 10 bytes"),
        (gzip.compress(b"0" * 10 + b"\n") * 10, "over 100 bytes come out of it"),
        (gzip.compress(bytes(1 << 24)), "a line of over 10 bytes|over 100 bytes"),
        (gzip.compress(b"\n" * (1 << 24)), "over 100 bytes come out of it"),
        (gzip.compress(b"0\n")[:-1], "expected a whole gzip file"),
        (gzip.compress(b"0\n")[:-5] + b"12345", "expected a whole gzip file"),
        (b"0\n", "expected a whole gzip file"),
        (b"\x1f\x8b", "expected a whole gzip file"),
        (gzip.compress(b"0\n") + b"more", "expected a whole gzip file"),
        (b"0" * ((1 << 20) + 1), "bytes found; expected at most 1048576"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{len(value)} bytes",
)
def test_what_is_no_small_whole_gzip_file_is_refused_before_it_takes_memory(
    tmp_path, content, said
):
    (tmp_path / "a.gz").write_bytes(content)
    tracemalloc.start()
    with pytest.raises(ValueError, match=said):
        list(unzipped_lines(tmp_path / "a.gz", **LIMITS))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_files_are_named_by_where_they_are_and_nothing_leads_out(folder):
    (folder / "a").write_text("")
    (folder / "inner").symlink_to("sub/file")
    assert set(files_in(folder, 3)) == {"a", "inner", "sub/file"}
    with pytest.raises(ValueError, match="over 2 files found"):
        files_in(folder, 2)
    (folder / "sub" / "out").symlink_to("/etc/passwd")
    with pytest.raises(ValueError, match="'sub/out': a link that leads out"):
        files_in(folder, 9)


@pytest.mark.parametrize(
    ("content", "fine"),
    [
        (b"", False),
        (b"\x02\0\0\0\0\0\0", False),
        (b"\x02\0\0\0\0\0\0\0{}", True),
        (b"\x03\0\0\0\0\0\0\0{}", False),
        (b"\xff" * 8 + b"{}", False),
    ],
)
def test_a_header_longer_than_its_file_is_refused(tmp_path, content, fine):
    (tmp_path / "a.safetensors").write_bytes(content)
    if fine:
        assert check_header(tmp_path / "a.safetensors") == 2
        return
    with pytest.raises(ValueError, match="a header of"):
        check_header(tmp_path / "a.safetensors")


def test_a_header_that_fits_but_is_huge_is_refused(tmp_path):
    with (tmp_path / "a.safetensors").open("wb") as file:
        file.write((HEADER_BYTES + 1).to_bytes(8, "little"))
        file.truncate(1 << 30)
    with pytest.raises(ValueError, match=f"of at most {HEADER_BYTES}"):
        check_header(tmp_path / "a.safetensors")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "own" / "sub").mkdir(parents=True)
    (tmp_path / "own" / "sub" / "file").write_text("")
    (tmp_path / "own-too").mkdir()
    return tmp_path / "own"


def test_files_folders_and_links_inside_stay(folder):
    (folder / "link").symlink_to("sub/file")
    (folder / "later").symlink_to("sub/not-there-yet")
    (folder / "self").symlink_to("self")
    assert leads_out(folder) is None


OUT = ["..", "../..", "../../own-too", "/", "/etc/passwd", "../sub/../../own-too", "../../none"]


@pytest.mark.parametrize("target", OUT)
def test_a_link_out_is_found_at_any_depth(folder, target):
    (folder / "sub" / "link").symlink_to(target)
    assert leads_out(folder) == folder / "sub" / "link"


def test_a_link_to_a_link_out_is_found(folder):
    (folder / "one").symlink_to("two")
    assert leads_out(folder) is None
    (folder / "two").symlink_to("/etc")
    assert leads_out(folder) in (folder / "one", folder / "two")


def test_a_link_may_lead_to_a_folder_that_is_named(folder):
    (folder / "blob").symlink_to("../own-too/blob")
    assert leads_out(folder) == folder / "blob"
    assert leads_out(folder, also=[folder.parent / "own-too"]) is None


def test_a_pipe_is_neither_file_nor_folder(folder):
    os.mkfifo(folder / "sub" / "pipe")
    assert leads_out(folder) == folder / "sub" / "pipe"
