"""What there is to learn from traffic: the journal's final outcomes, after an earlier import where one is given."""

from collections.abc import Callable
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from cluster.config import Settings
from cluster.journal import data as journal_data
from cluster.journal.events import blocks
from cluster.journal.journal import Reader
from cluster.records import Dataset


def evidence(
    settings: Settings,
    reader: Reader,
    name: str,
    earlier: Dataset | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """The decisions of the versions of a name, with the journal's watermark.

    Args:
        earlier: an import, whose events and users come before; of an item in both the journal's row is the newer.

    Raises:
        SourceError: there is no final outcome yet.
        JournalError: the journal cannot be read.
    """
    journal = journal_data.dataset(settings, reader, name=name, progress=progress)
    if earlier is None:
        return journal
    new = pc.invert(pc.is_in(earlier.items["item_id"], journal.items["item_id"].combine_chunks()))
    return replace(
        journal,
        events=pa.concat_tables([earlier.events, journal.events]),
        items=pa.concat_tables([journal.items, earlier.items.filter(new)]),
        users=earlier.users,
    )


def after(reader: Reader, watermark: int) -> pa.Array:
    """Event ids of the final outcomes after this one. Raises JournalError where the journal cannot be read."""
    ids = [table["event_id"] for _, table in blocks(reader, watermark, reader.last_outcome())]
    return pa.concat_arrays([chunk for column in ids for chunk in column.chunks]) if ids else pa.array([], pa.string())
