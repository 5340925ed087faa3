"""Logged feedback under our own or usual column names, Parquet or delimited text.

A file whose name begins with `items` or `users` is that table; all others hold events. Anything else is said
by mapping. A survey of coupons, in which consecutive rows with the same personal columns are one respondent:

    medley import --format native --data coupon.parquet --map item_id=coupon --map reward=Y \\
        --map "user_id=run(gender,age,income)" --map "timestamp=row()" --map "candidates=all()"
"""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from cluster.config import DataSettings
from cluster.errors import SourceError
from cluster.importers.catalogue import read_items, read_users
from cluster.importers.feedback import Beside, feedback
from cluster.importers.imported import Imported, Options, Progress
from cluster.importers.roles import Role, resolve
from cluster.importers.source import find, read
from cluster.records import QUARANTINE

_KINDS = ("movie", "video", "track", "song", "news", "content", "book", "offer", "ad", "place", "restaurant", "recipe")
ROLES = (
    Role("event_id", ("id", "impression_id", "log_id", "uuid")),
    Role("timestamp", ("time", "datetime", "date", "event_time", "ts", "created_at", "at"), required=True),
    Role("client_id", ("client", "tenant", "tenant_id")),
    Role(
        "user_id",
        ("user", "customer", "customer_id", "visitor_id", "member_id", "account_id", "reader_id", "device_id", "uid"),
    ),
    Role("session_id", ("session", "visit_id")),
    Role("context"),
    Role("candidates", ("slate", "candidate_items", "action_set")),
    Role(
        "item_id",
        ("item", "action", "arm", "product_id", "article_id", *(f"{kind}_id" for kind in _KINDS)),
        required=True,
    ),
    Role("position", ("rank", "slot")),
    Role("propensity", ("propensity_score", "pscore", "probability", "prob", "action_probability")),
    Role("reward", ("click", "clicked", "conversion", "rating", "outcome", "label"), required=True),
    Role("reward_kind", ("kind",)),
    Role("version", ("model_version",)),
)


def read_native(
    paths: Sequence[Path], options: Options, settings: DataSettings, seed: int, progress: Progress | None = None
) -> Imported:
    """Import feedback; see the module.

    Raises:
        SourceError: a file is missing, empty or corrupt, or no row can be used.
        SchemaError: a required column is missing or misspelt, or is of a type that cannot be read.
    """
    files = find(paths)
    items = [path for path in files if path.name.lower().startswith("item")]
    users = [path for path in files if path.name.lower().startswith("user")]
    events = [path for path in files if path not in items and path not in users]
    if not events:
        raise SourceError(f"{files[0]}: only items or users; name the file of events as well")
    source = read(events, settings, progress)
    roles = resolve(source, ROLES, options)
    item_table = read_items(items, settings) if items else None
    user_table = read_users(users, settings) if users else None
    found = [table for table in (item_table, user_table) if table]
    beside = Beside(
        item_table.table if item_table else None,
        user_table.table if user_table else None,
        pa.concat_tables([QUARANTINE.empty_table(), *(table.quarantine for table in found)]),
        notes=tuple(note for table in found for note in table.notes),
    )
    return feedback(source, roles, options, settings, seed, beside)
