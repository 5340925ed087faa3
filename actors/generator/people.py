"""What a language model is told of users beside contexts, kept with the generator: what serves has no such table."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from actors.generator.serialise import attributes_of
from cluster.records import Value

FILE = "users.parquet"


@dataclass(frozen=True)
class People:
    """table: user_id, attributes and description of `records.USERS`."""

    table: pa.Table

    @classmethod
    def of(cls, users: pa.Table) -> "People":
        return cls(users.select(["user_id", "attributes", "description"]))

    def attributes(self, user_id: str | None) -> Mapping[str, Value]:
        """As `Serialiser.text` takes them; none of a user that is not there."""
        row = self._rows.get(user_id)
        if row is None:
            return {}
        return attributes_of(self.table["attributes"][row].as_py(), self.table["description"][row].as_py())

    @cached_property
    def _rows(self) -> dict[str | None, int]:
        return {user: row for row, user in enumerate(self.table["user_id"].to_pylist())}

    def save(self, folder: Path) -> None:
        pq.write_table(self.table, folder / FILE, compression="zstd")

    @classmethod
    def load(cls, folder: Path) -> "People":
        return cls(pq.read_table(folder / FILE))
