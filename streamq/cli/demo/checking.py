"""The plain walk of the folder, and the comparison of what tasks returned with what it finds."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from streamq.cli.demo.tasks import Contents, FileReport

# When any of it differs, the file is not the one that it was.
Stamp = tuple[int, int, int, int]


@dataclass(frozen=True)
class PlainFile:
    """A file as the plain walk found it; `contents` is None if it cannot be read."""

    stamp: Stamp
    contents: Contents | None


@dataclass
class Totals:
    """Sums over files."""

    files: int = 0
    size: int = 0
    lines: int = 0
    words: int = 0

    def add(self, contents: Contents | None) -> None:
        """Count one file; one that cannot be read has nothing to sum up."""
        self.files += 1
        if contents is not None:
            self.size += contents.size
            self.lines += contents.lines
            self.words += contents.words


@dataclass
class Comparison:
    """What came of a comparison.

    Attributes:
        tasks: totals of what tasks returned, over the files that did not change meanwhile.
        plain: totals of the plain walk over the same files.
        differences: a line for each file on which the two do not agree.
        changed: files that came, went or changed while the demo ran; they prove nothing.
    """

    tasks: Totals = field(default_factory=Totals)
    plain: Totals = field(default_factory=Totals)
    differences: list[str] = field(default_factory=list)
    changed: list[Path] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        """Both agree on every file, and so in total."""
        return not self.differences and self.tasks == self.plain


def walk(folder: Path, leave_out: Collection[str] = ()) -> Iterator[tuple[Path, Stamp]]:
    """Yield every file below `folder`, in order, except in folders of the names in `leave_out`.

    Links to files are files; links to folders are not followed; sockets, devices and the like are no files.
    """
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in leave_out)
        for name in sorted(names):
            path = Path(place, name)
            if (stamp := _stamp(path)) is not None:
                yield path, stamp


def _stamp(path: Path) -> Stamp | None:
    try:
        found = path.stat()
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def read_plainly(path: Path) -> PlainFile | None:
    """Read a file in another way than the task does; None if it is not there any more."""
    size = lines = words = 0
    contents = None
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
            file.seek(0)
            for line in file:
                size += len(line)
                lines += 1
                words += len(line.split())
        contents = Contents(size, digest.hexdigest(), lines, words)
    except OSError:
        pass
    stamp = _stamp(path)  # after the reading, so that it tells of a change before or during it
    return None if stamp is None else PlainFile(stamp, contents)


def compare(
    before: Mapping[Path, Stamp], reports: Mapping[Path, FileReport], after: Mapping[Path, PlainFile]
) -> Comparison:
    """Compare what tasks returned with the plain walk, file by file.

    Args:
        before: the files that became tasks.
        reports: what their tasks returned.
        after: the plain walk.
    """
    comparison = Comparison(changed=[path for path in after if path not in before])
    for path, stamp in before.items():
        found = after.get(path)
        if found is None or found.stamp != stamp:
            comparison.changed.append(path)
            continue
        comparison.plain.add(found.contents)
        report = reports.get(path)
        if report is None:
            comparison.differences.append(f"{path}: no result")
            continue
        comparison.tasks.add(report.contents)
        if report.contents != found.contents:
            comparison.differences.append(f"{path}: {_difference(report.contents, found.contents)}")
    return comparison


def _difference(returned: Contents | None, found: Contents | None) -> str:
    if returned is None or found is None:
        return f"the task {_could(returned)}, the plain walk {_could(found)}"
    parts = [
        f"{name} {mine} is {plain} in the plain walk"
        for name in Contents.__slots__
        if (mine := getattr(returned, name)) != (plain := getattr(found, name))
    ]
    return ", ".join(parts)


def _could(contents: Contents | None) -> str:
    return "could not read it" if contents is None else "could"
