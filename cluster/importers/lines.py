"""Delimited text, record by record, in bounded memory.

A record that cannot be used is given back as a `Reject`; the ones after it go on. No more than
`max_line_bytes` of a record are ever held.
"""

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

SHOWN_BYTES = 300
_SAID = re.compile(rb"(?:\xef\xbb\xbf)?sep=([,;\t|])")
"""What a spreadsheet may write before the header."""


@dataclass(frozen=True)
class Reject:
    """A row that cannot be used: its number (1 is the first after the header), why, and what it held."""

    row: int
    reason: str
    raw: str


class Lines:
    """Records of a delimited file.

    Args:
        file: opened for binary reading.
        delimiter: the character between fields; empty to take it from the first record. A blank stands for any
            number of them, at the ends of a line for none.
        max_line_bytes: longest record accepted.
    """

    def __init__(self, file: BinaryIO, delimiter: str, max_line_bytes: int) -> None:
        self.file, self.delimiter, self.limit = file, delimiter, max_line_bytes
        self._pending: list[bytes] = []
        self._row = -1

    def __iter__(self) -> Iterator[list[str] | Reject]:
        """The header (row 0), then every record that is not blank."""
        csv.field_size_limit(max(self.limit, csv.field_size_limit()))
        while line := self._line():
            if not line.strip(b"\r\n"):
                continue
            if self._row < 0 and (said := _SAID.fullmatch(line.strip())):
                self.delimiter = said[1].decode()
                continue
            self._row += 1
            yield self._record(line)

    def _line(self) -> bytes:
        """The next physical line; one that is too long comes back cut at limit + 1 bytes, the rest skipped."""
        if self._pending:
            return self._pending.pop()
        line = self.file.readline(self.limit + 1)
        if len(line) > self.limit and not line.endswith(b"\n"):
            while (rest := self.file.readline(self.limit)) and not rest.endswith(b"\n"):
                pass
        return line

    def _record(self, line: bytes) -> list[str] | Reject:
        if len(line) > self.limit:
            return self._reject(f"line: expected at most {self.limit} bytes (max_line_bytes), found more", line)
        if b"\0" in line:
            return self._reject("line: expected text, found a null byte", line)
        try:
            text = line.decode("utf-8-sig" if self._row == 0 else "utf-8")
        except UnicodeDecodeError as error:
            return self._reject(f"line: expected UTF-8, found byte {line[error.start]:#04x} at {error.start}", line)
        if not self.delimiter:
            best = max(",;\t|", key=text.count)
            self.delimiter = " " if best not in text and " " in text.strip() else best
        if self.delimiter == " ":
            text = text.strip()
        if '"' not in text:
            return text.split() if self.delimiter == " " else text.rstrip("\r\n").split(self.delimiter)
        return self._quoted(text, line)

    def _quoted(self, text: str, line: bytes) -> list[str] | Reject:
        """A record with quotes, which may go on over several lines."""
        taken: list[bytes] = []
        while True:
            try:
                return next(
                    csv.reader([text], strict=True, delimiter=self.delimiter, skipinitialspace=self.delimiter == " ")
                )
            except csv.Error as error:
                if "unexpected end of data" not in str(error):
                    return self._reject(f"line: cannot read the quotes: {error}", line)
            more = b""
            while b'"' not in more:  # only a quote can end the field
                more = self._line() if len(text) < self.limit else b""
                if not _fit(more, self.limit):
                    self._pending += [b for b in [more, *reversed(taken)] if b]
                    return self._reject("line: expected a closing quote, found none in what follows", line)
                taken.append(more)
                text += more.decode("utf-8")

    def _reject(self, reason: str, line: bytes) -> Reject:
        return Reject(self._row, reason, line[:SHOWN_BYTES].decode("utf-8", errors="backslashreplace").rstrip())


def _fit(line: bytes, limit: int) -> bool:
    """Whether a line can go on a record."""
    try:
        return 0 < len(line) <= limit and b"\0" not in line and bool(line.decode("utf-8"))
    except UnicodeDecodeError:
        return False
