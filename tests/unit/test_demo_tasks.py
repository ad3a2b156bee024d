"""What the demo's task reports of a file, and how reports are compared with a plain walk."""

import hashlib
import os

import pytest

from streamq.cli.demo import tasks
from streamq.cli.demo.checking import PlainFile, compare, read_plainly, walk
from streamq.cli.demo.tasks import Contents, Definitions, FileReport, examine

SOURCE = b"""
class Outer:
    class Inner:
        def method(self): return [lambda: 0 for _ in ()]

async def first():
    def nested(): ...

if True:
    try:
        def second(): ...
    except* OSError:
        def third(): ...
    else:
        class Late: ...
    finally:
        def fourth(): ...
match 0:
    case 0:
        with open("") as file:
            def fifth(): ...
"""


@pytest.mark.parametrize(
    ("data", "lines", "words"),
    [
        (b"", 0, 0),
        (b"\n", 1, 0),
        (b"one two\nthree", 2, 3),
        (b"one  two\r\n\x0bthree\n", 2, 3),
        (b"ends with a space ", 1, 4),
        (b"\xff\xfe\x00 \x85\xa0", 1, 2),
        (b"several pieces long\n" * 3, 3, 9),
    ],
)
def test_contents_are_the_same_in_pieces_and_in_the_plain_walk(data, lines, words, tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(data)
    expected = Contents(len(data), hashlib.sha256(data).hexdigest(), lines, words)
    assert read_plainly(path).contents == expected
    for size in (1, 2, 3, 7, 1024):
        monkeypatch.setattr(tasks, "_CHUNK_BYTES", size)
        assert examine(path) == (expected, None, "")


def test_definitions_are_counted_at_every_depth(tmp_path):
    path = tmp_path / "module.py"
    path.write_bytes(SOURCE)
    assert examine(path)[1:] == (Definitions(functions=7, classes=3), "")


@pytest.mark.parametrize(
    ("source", "problems"),
    [
        (b"def f(:", {"SyntaxError"}),
        (b"'\xe9'", {"SyntaxError"}),
        (b"\x00", {"SyntaxError", "ValueError"}),
        (b"(" * 5000, {"SyntaxError", "RecursionError", "MemoryError"}),
        (b"-" * 50_000 + b"1", {"RecursionError", "MemoryError", "SyntaxError"}),
    ],
)
def test_what_cannot_be_parsed_is_still_measured(source, problems, tmp_path):
    path = tmp_path / "module.py"
    path.write_bytes(source)
    contents, definitions, problem = examine(path)
    assert contents.size == len(source)
    assert definitions is None
    assert problem in problems


def test_what_cannot_be_read_is_reported(tmp_path):
    assert examine(tmp_path / "missing.py") == (None, None, "FileNotFoundError")


def test_any_file_name_travels(tmp_path):
    path = tmp_path / os.fsdecode(b"n\xff\nme")
    assert tasks.report.s(os.fsencode(path)).message.args
    assert tasks.report(os.fsencode(path)).problem in ("FileNotFoundError", "OSError")


@pytest.fixture
def folder(tmp_path):
    for name in ("one", "two", "three"):
        (tmp_path / name).write_text(name)
    return tmp_path


def reports_of(files):
    return {path: FileReport(*examine(path)) for path in files}


def plain_walk(folder):
    return {path: read_plainly(path) for path, _ in walk(folder)}


def test_equal_when_nothing_differs(folder):
    files = dict(walk(folder))
    comparison = compare(files, reports_of(files), plain_walk(folder))
    assert comparison.equal
    assert comparison.tasks == comparison.plain
    assert comparison.plain.files == 3
    assert comparison.plain.size == 11
    assert comparison.changed == []


def test_a_result_that_is_wrong_or_missing_is_a_difference(folder):
    files = dict(walk(folder))
    reports = reports_of(files)
    wrong = Contents(4, "0", 1, 1)
    reports[folder / "one"] = FileReport(wrong, None, "")
    reports[folder / "two"] = FileReport(None, None, "PermissionError")
    del reports[folder / "three"]
    comparison = compare(files, reports, plain_walk(folder))
    assert not comparison.equal
    digest = hashlib.sha256(b"one").hexdigest()
    assert comparison.differences == [
        f"{folder / 'one'}: size 4 is 3 in the plain walk, sha256 0 is {digest} in the plain walk",
        f"{folder / 'three'}: no result",
        f"{folder / 'two'}: the task could not read it, the plain walk could",
    ]


def test_files_that_come_go_or_change_meanwhile_are_named_and_not_compared(folder):
    files = dict(walk(folder))
    reports = reports_of(files)
    (folder / "one").write_text("another")
    (folder / "two").unlink()
    (folder / "four").touch()
    comparison = compare(files, reports, plain_walk(folder))
    assert comparison.equal
    assert comparison.plain.files == 1
    assert {path.name for path in comparison.changed} == {"one", "two", "four"}


def test_a_file_that_nobody_can_read_is_no_difference(folder):
    files = dict(walk(folder))
    reports = {path: FileReport(None, None, "PermissionError") for path in files}
    after = {path: PlainFile(stamp, None) for path, stamp in files.items()}
    assert compare(files, reports, after).equal


def test_a_walk_leaves_out_what_it_is_told_and_what_is_no_file(folder):
    (folder / "site-packages").mkdir()
    (folder / "site-packages" / "four").touch()
    (folder / "link").symlink_to("one")
    (folder / "broken").symlink_to("nothing")
    (folder / "loop").symlink_to(folder)
    os.mkfifo(folder / "pipe")
    assert [path.name for path, _ in walk(folder, ["site-packages"])] == ["link", "one", "three", "two"]
    assert len(dict(walk(folder))) == 5
