"""The journal as a data set: what `medley compose --data` and the refinement job learn from.

Events are the final outcomes of one reward kind (of all kinds where the metric needs them), the newest
`data.max_events`. `facts["watermark"]` is the last outcome that could be among them: a version composed from them
learns from the outcomes after it. Candidates are what was eligible: listed up to MOST_LISTED_ITEMS, above that null,
the whole catalogue. A row that left something out of a larger catalogue (`exclude`, a further slot) is left out, for
a policy could not be judged on it. Rows that a baseline answered have no propensity.

Shapes: N events.
"""

from collections import Counter, deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.config import Settings
from cluster.errors import RegistryError, SourceError
from cluster.importers.assemble import MOST_LISTED_ITEMS
from cluster.importers.catalogue import users_of
from cluster.journal.catalogue import Catalogues, Expired
from cluster.journal.events import FINALS, Choice, blocks
from cluster.journal.journal import Reader, journal_url
from cluster.journal.records import moment_us
from cluster.records import EVENTS, Dataset
from cluster.registry import DEFAULT_NAME, Registry

_UNKNOWN = "events left out: what was eligible is not known"
_LARGE = f"events left out: of a catalogue above {MOST_LISTED_ITEMS} items something was excluded, or taken before"
_FOREIGN = "events left out: of items that one of several clients put for itself"


def dataset(
    settings: Settings,
    reader: Reader,
    choice: Choice | None = None,
    name: str = DEFAULT_NAME,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """The journal's final outcomes as a data set.

    Args:
        choice: which decisions; all by default.
        name: registry name of the versions that decided.
        progress: called with (outcomes read, outcomes to read).

    Raises:
        SourceError: there is no final outcome of this choice.
        JournalError: the journal cannot be read.
    """
    choice = choice or Choice()
    kept, older, last = _newest(settings, reader, choice, progress)
    if not len(kept):
        raise SourceError(
            f"{journal_url(settings)}: no final outcome for {choice.facts()} yet; rewards are final when their window "
            f"(rewards.{settings.reward_kind}.window_s) has closed"
        )
    changes = reader.changes(0)
    catalogues = Catalogues(Registry(settings.registry_uri), name, changes, reader.clients())
    left_out: Counter[str] = Counter()
    listed = _listed(kept, catalogues, left_out)
    items = catalogues.items(_named(listed))
    events = _known(listed, items["item_id"], left_out).select(EVENTS.names).cast(EVENTS)
    events = events.take(pc.sort_indices(events["timestamp"]))
    watermark = last if choice.until is None else kept["outcome"][-1].as_py()
    facts = {
        "source": "journal",
        "fingerprint": sha256(f"{reader.identity()}/{choice.facts()}/{watermark}".encode()).hexdigest(),
        "watermark": watermark,
        "older_left_out": older,
        "notes": [f"{count:,} {what}" for what, count in left_out.items()],
    }
    return Dataset("feedback", events, items, users_of(events), None, facts)


def _newest(
    settings: Settings, reader: Reader, choice: Choice, progress: Callable[[int, int], None] | None
) -> tuple[pa.Table, int, int]:
    """The newest outcomes that are meant, how many older ones there are, and the journal's last outcome."""
    kinds = pa.array([settings.reward_kind] if settings.metric.kind == "reward" else list(settings.rewards))
    tables: deque[pa.Table] = deque()
    older, last = 0, reader.last_outcome()
    for seq, table in blocks(reader, 0, last):
        meant = choice.of(table)
        tables.append(meant.filter(pc.is_in(meant["reward_kind"], kinds)))
        while sum(map(len, tables)) - len(tables[0]) >= settings.data.max_events:
            older += len(tables.popleft())
        if progress is not None:
            progress(seq, last)
    kept = pa.concat_tables(tables) if tables else FINALS.empty_table()
    more = max(0, len(kept) - settings.data.max_events)
    return kept.slice(more), older + more, last


def _listed(finals: pa.Table, catalogues: Catalogues, left_out: Counter[str]) -> pa.Table:
    """Candidates written out where the whole of a small catalogue is meant, and rows left out that cannot be judged."""
    columns = ["candidates", "excluded", "mode", "catalogue", "version", "client_id", "event_id", "item_id"]
    candidates, kept = [], []
    for row, values in enumerate(finals.select(columns).to_pylist()):
        found, fault = _candidates(catalogues, **values)
        if fault is not None:
            left_out[fault] += 1
            continue
        candidates.append(found)
        kept.append(row)
    place = finals.schema.get_field_index("candidates")
    column = pa.array(candidates, pa.list_(pa.string()))
    return finals.take(pa.array(kept, pa.int64())).set_column(place, "candidates", column)


def _candidates(
    catalogues: Catalogues,
    candidates: list[str] | None,
    excluded: list[str] | None,
    mode: str,
    catalogue: int | None,
    version: int | None,
    client_id: str,
    event_id: str,
    item_id: str,
) -> tuple[list[str] | None, str | None]:
    """What was eligible, None for the whole of a large catalogue; and why the row must be left out."""
    if mode != "live":
        return candidates, None  # a baseline's row has no propensity: nobody asks what else there was
    expired = None
    if catalogue is not None:
        asked = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=moment_us(event_id.rpartition("/")[0]))
        expired = catalogues.expired(version, client_id, catalogue, asked)
    if candidates is not None:
        return _open(candidates, item_id, expired), None
    if version is None or catalogue is None or excluded is None:
        return None, _UNKNOWN
    try:
        ids = catalogues.ids(version, client_id, catalogue)
    except RegistryError:
        return None, _UNKNOWN
    if len(ids) > MOST_LISTED_ITEMS:
        return None, _LARGE if excluded or expired else None
    out = {*excluded}
    return _open([item for item in ids if item not in out], item_id, expired), None


def _open(items: Sequence[str], chosen: str, expired: Expired | None) -> list[str]:
    """The items that had not ended; what was chosen had not."""
    if not expired:
        return [*items]
    return [item for item in items if item == chosen or item not in expired]


def _named(finals: pa.Table) -> set[str]:
    """Items that are actions or candidates."""
    lists = finals["candidates"].combine_chunks().flatten()
    return {*finals["item_id"].unique().to_pylist(), *lists.unique().to_pylist()}


def _known(finals: pa.Table, known: pa.ChunkedArray, left_out: Counter[str]) -> pa.Table:
    """The rows all of whose items are in the data set."""
    lists = finals["candidates"].combine_chunks()
    foreign = pc.invert(pc.is_in(lists.flatten(), known))
    rows_N = np.bincount(pc.list_parent_indices(lists).filter(foreign), minlength=len(finals)) == 0
    rows_N &= np.asarray(pc.is_in(finals["item_id"], known))
    if not rows_N.all():
        left_out[_FOREIGN] = int((~rows_N).sum())
    return finals.filter(pa.array(rows_N))
