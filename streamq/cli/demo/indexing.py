"""What the agents of the demo know: an inverted index of their share of the files; and what they tell each other."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import BaseModel

_WORD = re.compile(r"[a-z_]+")
TEXTS = (".py", ".txt", ".md", ".rst", ".toml", ".cfg", ".html", ".css", ".js", ".c", ".h")


class Share(BaseModel):
    """An assignment: read these files and index them."""

    number: int
    files: list[Path]


class Indexed(BaseModel):
    """What came of it."""

    share: int
    agent: str
    pid: int
    files: int
    words: int


class Began(BaseModel):
    """News of an agent: it has begun with a share."""

    share: int
    agent: str


class Ask(BaseModel):
    """A question: how often are these words in these shares?"""

    words: list[str]
    shares: list[int]


class Answer(BaseModel):
    """What an agent knows of it: how many files and words it has read, how often each word is there, in which files."""

    files: int
    words: int
    counts: dict[str, int]
    most: dict[str, tuple[Path, int]]


class Notice(BaseModel):
    """Something that all are to know."""

    text: str


def words_of(path: Path) -> Counter[str]:
    """Count the words of a file; none if it cannot be read."""
    try:
        text = path.read_text("utf-8", errors="replace")
    except OSError:
        return Counter()
    return Counter(_WORD.findall(text.lower()))


def texts_below(folder: Path, leave_out: Iterable[str]) -> Iterator[Path]:
    """Give the text files below a folder, in order; names that are no text themselves are passed over."""
    without = set(leave_out)
    for path in sorted(folder.rglob("*")):
        if path.suffix in TEXTS and path.is_file() and not without.intersection(path.relative_to(folder).parts):
            try:
                str(path).encode()
            except UnicodeEncodeError:
                continue
            yield path


class Index:
    """An inverted index: for each word the files that have it, and how often."""

    def __init__(self) -> None:
        self._files: dict[int, dict[Path, int]] = {}
        self._postings: dict[str, dict[Path, int]] = {}

    def add(self, share: Share) -> tuple[int, int]:
        """Index a share; returns how many files and words it has. One that is here already is not counted twice."""
        files = {path: words_of(path) for path in share.files}
        self._files[share.number] = {path: found.total() for path, found in files.items()}
        for path, found in files.items():
            for word, count in found.items():
                self._postings.setdefault(word, {})[path] = count
        return len(files), sum(self._files[share.number].values())

    def answer(self, ask: Ask) -> Answer:
        """Answer a question from the index."""
        files = {path: words for share in ask.shares for path, words in self._files.get(share, {}).items()}
        found = {word: {p: n for p, n in self._postings.get(word, {}).items() if p in files} for word in ask.words}
        return Answer(
            files=len(files),
            words=sum(files.values()),
            counts={word: sum(counts.values()) for word, counts in found.items()},
            most={
                word: max(counts.items(), key=lambda one: (one[1], str(one[0])))
                for word, counts in found.items()
                if counts
            },
        )
