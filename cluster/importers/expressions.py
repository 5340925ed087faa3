"""What the right side of `--map ours=theirs` may say.

COLUMN          the values of a column
run(a,b)        a new value whenever a or b differs from the row before: one user's consecutive rows
join(a,b)       the values of a and b with a blank between: a date and a clock, a shop and its article
first(a,n)      the first n characters of a: the department in an article's number, say
row()           the row's place in the file: row order as time
all()           every item of the data: the candidates where the log does not list them
'text'          the same text in every row
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.errors import SchemaError
from cluster.importers.columns import texts
from cluster.importers.names import nearest

MOST_SHOWN = 40
_CALL = re.compile(r"(run|row|all|join)\((.*)\)")
_FIRST = re.compile(r"first\((.*),\s*([1-9][0-9]*)\s*\)")
_TEXT = re.compile(r"'(.*)'|\"(.*)\"")


@dataclass(frozen=True)
class Expression:
    kind: Literal["column", "run", "join", "first", "row", "all", "text"]
    columns: tuple[str, ...] = ()
    value: str = ""
    length: int = 0

    @classmethod
    def parse(cls, text: str, columns: Sequence[str], ours: str) -> "Expression":
        """Raises SchemaError where the text names a column that is not there, and says which is nearest."""
        text = text.strip()
        if text in columns:
            return cls("column", (text,))
        if literal := _TEXT.fullmatch(text):
            return cls("text", value=literal[1] if literal[1] is not None else literal[2])
        if beginning := _FIRST.fullmatch(text):
            name = beginning[1].strip()
            if name not in columns:
                raise SchemaError(f"--map {ours}={text}: {unknown_column(name, columns)}")
            return cls("first", (name,), length=int(beginning[2]))
        call = _CALL.fullmatch(text)
        if call is None:
            raise SchemaError(f"--map {ours}={text}: {unknown_column(text, columns)}")
        names = tuple(name.strip() for name in call[2].split(",") if name.strip())
        for name in names:
            if name not in columns:
                raise SchemaError(f"--map {ours}={text}: {unknown_column(name, columns)}")
        kind = cast(Literal["run", "join", "row", "all"], call[1])
        if bool(names) != (kind in ("run", "join")):
            raise SchemaError(
                f"--map {ours}={text}: run() and join() take columns, as in run(a,b); row() and all() take none"
            )
        return cls(kind, names)

    def __str__(self) -> str:
        if self.kind == "column":
            return self.columns[0]
        if self.kind == "first":
            return f"first({self.columns[0]},{self.length})"
        return f"'{self.value}'" if self.kind == "text" else f"{self.kind}({','.join(self.columns)})"

    def evaluate(self, table: pa.Table) -> pa.ChunkedArray:
        """The N values; `all()` has none of its own. `row()` counts from 0, `run()` gives run-1, run-2 and so on."""
        n = len(table)
        if self.kind == "column":
            return table[self.columns[0]]
        if self.kind == "text":
            return pa.chunked_array([pa.repeat(self.value, n)])
        if self.kind == "first":
            whole = texts(self.columns[0], table[self.columns[0]])
            return pa.chunked_array([pc.utf8_slice_codeunits(whole, 0, self.length)])
        if self.kind == "row":
            return pa.chunked_array([pa.array(np.arange(n))])
        if self.kind == "join":
            parts = [texts(name, table[name]) for name in self.columns]
            return pa.chunked_array([pc.binary_join_element_wise(*parts, " ")])
        changed_N = np.zeros(n, bool)
        for name in self.columns:
            codes_N = np.asarray(_plain(table[name]).dictionary_encode().indices.fill_null(-1))
            changed_N[1:] |= codes_N[1:] != codes_N[:-1]
        numbers = (1 + np.cumsum(changed_N)).astype(str)
        return pa.chunked_array([pa.array(np.char.add("run-", numbers), pa.string())])


def _plain(column: pa.ChunkedArray) -> pa.Array:
    """One array without a dictionary, whose codes might differ from chunk to chunk."""
    whole = pa.concat_arrays(column.chunks) if not pa.types.is_dictionary(column.type) else column.combine_chunks()
    return whole.dictionary_decode() if isinstance(whole, pa.DictionaryArray) else whole


def unknown_column(name: str, columns: Sequence[str]) -> str:
    near = nearest(name, columns)
    hint = f"did you mean {near!r}?" if near else f"columns: {listed(columns)}"
    return f"no column {name!r}; {hint}"


def listed(columns: Sequence[str]) -> str:
    """Names of columns, of very many the first ones."""
    shown = ", ".join(columns[:MOST_SHOWN]) or "none"
    return shown if len(columns) <= MOST_SHOWN else f"{shown} and {len(columns) - MOST_SHOWN} more"
