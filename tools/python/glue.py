"""Readers of the GLUE tasks that the paper fine-tunes on, as the benchmark distributes them (train.tsv and dev.tsv of each).

The files are tab-separated and know no quoting: a quotation mark is a character like any other, often without its partner. Lines end
with LF or CRLF only; other separators of Unicode occur within sentences.
"""

import itertools
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Example:
    """One or two sentences, and a class or a number."""

    first: str
    second: str | None
    label: float


@dataclass(frozen=True)
class Format:
    """Where the columns are: by name where the file begins with its columns' names, by position where it does not."""

    header: bool
    first: str | int
    second: str | int | None
    label: str | int
    classes: int | None

    def read(self, path):
        """The examples of a file, in its order."""
        rows = _rows(path)
        number, columns = next(rows, (0, None))
        if columns is None:
            raise ValueError(f"{path}: is empty")
        wanted = [self.first, self.second, self.label]
        if self.header:
            wanted = [None if name is None else self._position(path, columns, name) for name in wanted]
        else:
            rows = itertools.chain([(number, columns)], rows)
        width = len(columns)
        return [self._example(f"{path}:{number}", row, width, wanted) for number, row in rows]

    @staticmethod
    def _position(path, columns, name):
        if name not in columns:
            raise ValueError(f"{path}: has no column '{name}', but {', '.join(columns)}")
        return columns.index(name)

    def _example(self, where, row, width, wanted):
        if len(row) != width:
            raise ValueError(f"{where}: has {len(row)} columns, and the first line {width}")
        first, second, label = (None if position is None else row[position] for position in wanted)
        return Example(first, second, self._label(where, label))

    def _label(self, where, text):
        if self.classes is None:
            try:
                return float(text)
            except ValueError:
                raise ValueError(f"{where}: the label '{text}' is no number") from None
        if text not in map(str, range(self.classes)):
            raise ValueError(f"{where}: the label '{text}' is not one of the classes 0 to {self.classes - 1}")
        return int(text)


# CoLA's files have no header: source, acceptable or not, the author's mark, sentence.
COLA = Format(header=False, first=3, second=None, label=1, classes=2)
MRPC = Format(header=True, first="#1 String", second="#2 String", label="Quality", classes=2)
STS_B = Format(header=True, first="sentence1", second="sentence2", label="score", classes=None)

TASKS = {"cola": COLA, "mrpc": MRPC, "sts-b": STS_B}


def _rows(path):
    """The lines that are not empty, with their numbers. MRPC's may begin with a byte order mark."""
    text = Path(path).read_bytes().decode("utf-8-sig")
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.removesuffix("\r")
        if line:
            yield number, line.split("\t")
