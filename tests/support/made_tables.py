"""Tables as anybody might hand them in, made with the truth about them: no second reader decides what is right.

`made` draws how a table is written, what of it is wrong, and which settings it is opened with. `Made.put` writes it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import pandas as pd
from hypothesis import strategies as st

STEMS: Final[dict[str, Callable[[int], str]]] = {
    "padded": lambda n: f"{n + 1:06d}",
    "words": lambda n: f"face-{'abcdefghijklmnopqrstuvwxyz'[n]}",
    "spaces": lambda n: f"my face, no. {n}",
    "umlauts": lambda n: f"gesicht_ä{n}",
}
NAMED: Final[dict[str, Callable[[str], str]]] = {
    "as it is": lambda name: name,
    "in capitals": str.upper,
    "with another suffix": lambda name: name.rpartition(".")[0] + ".png",
    "without a suffix": lambda name: name.rpartition(".")[0],
    "in a folder": lambda name: f"images/{name}",
    "with a whole path": lambda name: f"/home/me/faces/{name}",
    "with backslashes": lambda name: f".\\faces\\{name}",
    "as a number": lambda name: str(int(name.rpartition(".")[0])),
}
PAIRS: Final = (
    ("-1", "1"), ("0", "1"), ("0.0", "1.0"), ("9", "10"), ("no", "yes"), ("False", "True"),
    ("None", "Some"), ("NA", "ok"), ("-", "x"), ("?", "yes"), ("female", "male"), ("a,b", 'c"d'),
)  # fmt: skip
FAULTS: Final = (
    "", "", "", "", "", "", "short row", "long row", "header twice", "no header", "open quote", "latin-1", "zero bytes",
    "file twice", "image missing", "label missing", "third value", "missing word", "identity missing", "no such target",
)  # fmt: skip
NO_FAULT_OF: Final = {
    "celeba": ("open quote",),
    "parquet": (
        "short row",
        "long row",
        "header twice",
        "no header",
        "open quote",
        "latin-1",
        "zero bytes",
    ),
}
"""What can't be wrong with a table of that kind."""
ENDS: Final = ("nowhere", "rows", "first row", "everywhere")


@dataclass(frozen=True)
class Made:
    """A table on paper."""

    kind: str
    stems: str
    named: str
    labels: tuple[bool, ...]
    pair: tuple[str, str]
    delimiter: str
    quoted: bool
    padded: bool
    line_end: str
    encoding: str
    says_delimiter: bool
    ends: str
    index: bool
    extra: bool
    blank_lines: bool
    inner: bool
    identities: bool
    fault: str
    drop: bool

    @property
    def stem(self) -> str:
        if self.named == "as a number" or (self.kind == "celeba" and self.stems == "spaces"):
            return "padded"
        return self.stems

    @property
    def files(self) -> list[str]:
        return [f"{STEMS[self.stem](n)}.jpg" for n in range(len(self.labels))]

    @property
    def settings(self) -> dict[str, Any]:
        """Of `data`, beside images and target."""
        return {"missing": "drop"} if self.drop else {}

    @property
    def target(self) -> str:
        return "Smilling" if self.fault == "no such target" else "Smiling"

    @property
    def left_out(self) -> list[int]:
        """Rows that `missing: drop` goes on without."""
        return [3] if self.drop and self.fault in ("image missing", "label missing") else []

    @property
    def is_right(self) -> bool:
        """Is it to be read, and not refused?"""
        if self.named == "as a number" and self.fault == "image missing":
            return False  # numbers might be shifted by one
        suffixless = self.named in ("without a suffix", "as a number")
        if self.kind == "csv" and self.ends == "rows" and suffixless:
            return False  # the first field might be the one that the header does not name
        if self.fault == "identity missing" and self.stem != "padded":
            return True  # that file is not written
        if self.fault in NO_FAULT_OF.get(self.kind, ()):
            return True
        may_be_short = self.fault == "label missing" and (
            self.kind == "celeba"
            or (self.kind == "csv" and self.ends == "first row" and not self.extra)
        )
        return self.fault == "" or (bool(self.left_out) and not may_be_short)

    def truth(self) -> dict[str, int]:
        """The label of each file."""
        pairs = enumerate(zip(self.files, self.labels, strict=True))
        return {file: int(label) for n, (file, label) in pairs if n not in self.left_out}

    def put(self, root: Path, image: Callable[[Path], object]) -> Path:
        """Write it to `root`, and every image by `image`; what is to be given as `data.images`."""
        images = root / "faces"
        folder = images / "inner" if self.inner else images
        folder.mkdir(parents=True)
        for n, file in enumerate(self.files):
            if not (self.fault == "image missing" and n == 3):
                image(folder / file)
        name = {"csv": "faces.csv", "celeba": "list_attr_celeba.txt", "parquet": "faces.parquet"}[
            self.kind
        ]
        (root / name).write_bytes(self._bytes())
        if self.identities or self.fault == "identity missing":
            lines = [f"{STEMS['padded'](n)}.png {n // 3}" for n in range(len(self.files))]
            if self.fault == "identity missing":
                lines.pop(4)
            if self.stem == "padded":
                (root / "identity_CelebA.txt").write_text("\n".join(lines) + "\n")
        return images

    def _bytes(self) -> bytes:
        if self.kind == "parquet":
            header, rows = self._cells()
            file = BytesIO()
            pd.DataFrame(rows, columns=header).to_parquet(file, index=False)
            return file.getvalue()
        text = self.line_end.join(self._lines())
        if self.fault == "latin-1":
            return text.encode("latin-1", "replace") + "é".encode("latin-1")
        if self.fault == "zero bytes":
            return text.encode("utf-16-le")
        return text.encode(self.encoding)

    def _lines(self) -> list[str]:
        header, rows = self._cells()
        if self.kind == "celeba":
            some = [" ".join(header[1:])] if self.fault != "no header" else []
            return [str(len(rows)), *some, *("  ".join(row) for row in rows), ""]
        lines = [self._line(row) for row in rows]
        if self.fault == "open quote":
            lines[2] = f'"{lines[2]}' if not self.quoted else lines[2][:-1]
        head = self._line(header)
        if self.ends in ("rows", "everywhere"):
            lines = [line + self.delimiter for line in lines]
        if self.ends == "everywhere":
            head += self.delimiter
        if self.ends == "first row":
            lines[0] += self.delimiter
        if self.blank_lines:
            lines[5:5] = ["", self.delimiter * 2]
        above = [f"sep={self.delimiter}"] if self.says_delimiter else []
        return [*above, *([head] if self.fault != "no header" else []), *lines, ""]

    def _cells(self) -> tuple[list[str], list[list[str]]]:
        header = ["filename", "Smiling"]
        rows = [
            [NAMED[self.named](file), self.pair[label]]
            for file, label in zip(self.files, self.labels, strict=True)
        ]
        if self.fault == "file twice":
            rows[3][0] = rows[1][0]
        if self.fault == "label missing":
            rows[3][1] = ""
        if self.fault == "third value":
            rows[3][1] = "perhaps"
        if self.fault == "missing word":
            rows[3][1] = "null"
        if self.extra:
            note = "a; b, c\td" if self.quoted and self.kind == "csv" else "n"
            header = (
                [*header, "Male", "note"] if self.kind == "celeba" else ["note", *header, "Male"]
            )
            rows = [
                [*row, "-1", note] if self.kind == "celeba" else [note, *row, "-1"] for row in rows
            ]
        if self.kind == "parquet":
            return header, rows
        if self.fault == "header twice":
            header = [*header, "Smiling"]
            rows = [[*row, "1"] for row in rows]
        if self.index and self.kind == "csv":
            header = ["", *header]
            rows = [[str(n), *row] for n, row in enumerate(rows)]
        if self.fault == "short row":
            rows[3] = rows[3][:-1]
        if self.fault == "long row":
            rows[3] = [*rows[3], "1"]
        return header, rows

    def _line(self, cells: Sequence[str]) -> str:
        return self.delimiter.join(map(self._cell, cells))

    def _cell(self, text: str) -> str:
        padding = " " if self.padded else ""
        special = any(sign in text for sign in (*',;\t"\n', self.delimiter))
        if self.quoted or special:
            doubled = text.replace('"', '""')
            return f'{padding}"{padding}{doubled}{padding}"'
        return f"{padding}{text}{padding}"


@st.composite
def made(draw: st.DrawFn) -> Made:
    """Any of them; at least two rows of each label."""
    labels = draw(st.lists(st.booleans(), min_size=8, max_size=16))
    labels[:4] = [False, True, False, True]
    labels[-2:] = [False, True]
    pick = st.sampled_from
    return Made(
        kind=draw(pick(["csv", "csv", "csv", "celeba", "parquet"])),
        stems=draw(pick(sorted(STEMS))),
        named=draw(pick(sorted(NAMED))),
        labels=tuple(labels),
        pair=draw(pick(PAIRS)),
        delimiter=draw(pick(",;\t")),
        quoted=draw(st.booleans()),
        padded=draw(st.booleans()),
        line_end=draw(pick(["\n", "\r\n", "\r"])),
        encoding=draw(pick(["utf-8", "utf-8-sig", "utf-16", "utf-32"])),
        says_delimiter=draw(st.booleans()),
        ends=draw(pick(ENDS)),
        index=draw(st.booleans()),
        extra=draw(st.booleans()),
        blank_lines=draw(st.booleans()),
        inner=draw(st.booleans()),
        identities=draw(st.booleans()),
        fault=draw(pick(FAULTS)),
        drop=draw(st.booleans()),
    )
