"""Calls with many requests as an Arrow IPC stream: one row a request in, one row a slot (or a reward) out.

Columns are the fields of the JSON messages. A null is a field that was not sent. `context` is a struct (what pyarrow
makes of dictionaries) or a text that holds its JSON; any other field that is an object in JSON is such a text too.
Validation is that of JSON: each row becomes the same pydantic message.

A stream can stand for far more than its bytes: compressed buffers, dictionaries, columns of nulls. Such ones are
refused before anything is made of them, so that the body limit bounds the work.
"""

import struct
from collections.abc import Container, Sequence
from typing import Any, TypeVar

import pyarrow as pa
from pydantic_core import from_json

from cluster.errors import RequestError
from serve.http.rewards import Outcome
from serve.messages import MOST_KEYS, DecisionRequest, Decisions, Message, RewardEvent, Rewards

MEDIA_TYPE = "application/vnd.apache.arrow.stream"

_NESTED = ("context", "where")
_ROWS: dict[type[Message], type[Message]] = {Decisions: DecisionRequest, Rewards: RewardEvent}
_COMPRESSION = 3
"""Field of a RecordBatch in Arrow's Message.fbs; it is there only where buffers are compressed."""

_SLOTS = pa.schema(
    [
        ("row", pa.int32()),
        ("decision_id", pa.string()),
        ("version", pa.int64()),
        ("mode", pa.string()),
        ("slot", pa.int32()),
        ("item_id", pa.string()),
        ("score", pa.float64()),
        ("propensity", pa.float64()),
        ("explored", pa.bool_()),
    ]
)
_OUTCOMES = pa.schema([("row", pa.int32()), ("status", pa.string()), ("reason", pa.string())])

M = TypeVar("M", bound=Message)


def read(body: bytes, message: type[M], name: str, most: int) -> M:
    """A stream as the message that JSON would have been.

    Args:
        name: the message's one field, a list of what a row is.
        most: rows in one call.

    Raises:
        RequestError: no stream, one that may not be, or too many rows (413).
        ValidationError: a row is wrong.
    """
    try:
        table = _table(body, name, _ROWS[message].model_fields, most)
        rows = [_row(row, name, i) for i, row in enumerate(table.to_pylist())]
    except (pa.ArrowException, struct.error, ValueError, KeyError, OverflowError, OSError) as error:
        raise RequestError(("body",), f"no Arrow IPC stream that can be read: {error}") from error
    return message.model_validate({name: rows})


def decisions(answers: Sequence[str]) -> bytes:
    """Decisions, each the JSON of a `messages.Decision`, as a stream with a row for each slot."""
    rows = []
    for i, answer in enumerate(answers):
        decision = from_json(answer)
        own = {"row": i} | {name: decision[name] for name in ("decision_id", "version", "mode")}
        rows += [own | {"slot": n} | slot for n, slot in enumerate(decision["slots"])]
    return _stream(rows, _SLOTS)


def outcomes(found: Sequence[Outcome]) -> bytes:
    """What became of each reward: `accepted`, `duplicate`, or `rejected` with the reason."""
    return _stream([{"row": i, "status": one.answer, "reason": one.reason} for i, one in enumerate(found)], _OUTCOMES)


def _stream(rows: Sequence[dict[str, Any]], schema: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_table(pa.Table.from_pylist(rows, schema))
    return bytes(sink.getvalue())


def _table(body: bytes, name: str, fields: Container[str], most: int) -> Any:
    rows = 0
    for message in pa.ipc.MessageReader.open_stream(body):
        if message.type == "record batch":
            number, compressed = _batch(message.metadata.to_pybytes())
            rows += number
            if compressed:
                raise RequestError(("body",), "compressed buffers: write the stream without compression")
    if rows > most:
        raise RequestError(("body", name), f"{rows} in one call; at most {most} (serve.max_batch)", 413)
    reader = pa.ipc.open_stream(body)
    _check_columns(reader.schema, name, fields)
    table = reader.read_all()
    table.validate(full=True)
    if table.num_rows > most:
        raise RequestError(("body",), "its batches do not have the rows that they say")
    return table


def _batch(metadata: bytes) -> tuple[int, bool]:
    """Rows of a record batch, and whether its buffers are compressed, from its flatbuffer alone."""

    def place(table: int, field: int) -> int:
        """Where a field of a table lies; 0 where it is not there."""
        vtable = table - struct.unpack_from("<i", metadata, table)[0]
        (size,) = struct.unpack_from("<H", metadata, vtable)
        found = struct.unpack_from("<H", metadata, vtable + 4 + 2 * field)[0] if 4 + 2 * field < size else 0
        return table + found if found else 0

    header = place(struct.unpack_from("<I", metadata)[0], 2)
    batch = header + struct.unpack_from("<I", metadata, header)[0]
    length = place(batch, 0)
    return struct.unpack_from("<q", metadata, length)[0] if length else 0, place(batch, _COMPRESSION) != 0


def _check_columns(schema: Any, name: str, fields: Container[str]) -> None:
    seen = set()
    for field in schema:
        if field.name not in fields or field.name in seen:
            text = "the column is there twice" if field.name in seen else "no such field"
            raise RequestError(("body", name, field.name), text)
        seen.add(field.name)
        inner = list(field.type) if pa.types.is_struct(field.type) and field.name == "context" else [field]
        if len(inner) > MOST_KEYS:
            raise RequestError(("body", name, field.name), f"{len(inner)} keys; at most {MOST_KEYS}")
        wrong = next((one for one in inner if not (_plain(one.type) or pa.types.is_null(one.type))), None)
        if wrong is not None or not inner:
            kind = wrong.type if wrong is not None else field.type
            allowed = "numbers, texts, booleans, moments, lists of texts, and a struct of these as context"
            raise RequestError(("body", name, field.name), f"a column of {kind}; columns are {allowed}")


def _plain(kind: Any) -> bool:
    types = pa.types
    if types.is_list(kind) or types.is_large_list(kind):
        kind = kind.value_type
        return bool(types.is_string(kind) or types.is_large_string(kind))
    scalar = (types.is_integer, types.is_floating, types.is_boolean, types.is_timestamp)
    return types.is_string(kind) or types.is_large_string(kind) or any(is_kind(kind) for is_kind in scalar)


def _row(row: dict[str, Any], name: str, index: int) -> dict[str, Any]:
    """The fields that were sent."""
    sent = {field: value for field, value in row.items() if value is not None}
    for field in sent.keys() & _NESTED:
        if isinstance(sent[field], str):
            try:
                sent[field] = from_json(sent[field])
            except ValueError as error:
                raise RequestError(("body", name, index, field), f"no JSON: {error}") from error
        elif isinstance(sent[field], dict):
            sent[field] = {key: value for key, value in sent[field].items() if value is not None}
    return sent
