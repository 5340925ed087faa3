"""The formats that can be imported, by name."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from cluster.config import DataSettings
from cluster.importers.imported import Imported, Options, Progress
from cluster.importers.marketplace import read_marketplace
from cluster.importers.native import read_native
from cluster.importers.open_bandit import read_open_bandit
from cluster.importers.table import read_table
from cluster.importers.transactions import read_transactions


class Reader(Protocol):
    def __call__(
        self,
        paths: Sequence[Path],
        options: Options,
        settings: DataSettings,
        seed: int,
        progress: Progress | None = None,
    ) -> Imported: ...


FORMATS: dict[str, Reader] = {
    "native": read_native,
    "open-bandit": read_open_bandit,
    "table": read_table,
    "transactions": read_transactions,
    "marketplace": read_marketplace,
}
