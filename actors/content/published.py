"""The embeddings of a catalogue as they are published: a table by item, and which encoder made them.

Shapes: I items, E size of the embedding.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cluster.errors import ModelError

Vectors: TypeAlias = NDArray[np.float32]
ENCODER, CONTENT = "{}-encoder", "{}-content"
"""Names in the registry of the encoders and of the embeddings that belong to versions of a name."""
Rejected: TypeAlias = tuple[str, str]
"""item_id, reason."""


QUARANTINE = pa.schema([pa.field("item_id", pa.string(), nullable=False), pa.field("reason", pa.string())])


@dataclass(frozen=True)
class Published:
    """Unit vectors of I items, sorted by item_id.

    Args:
        item_ids: I different ids.
        provider_ids: I; none where the item names none.
        vectors_IE: float32.
        rejected: what could not be read or embedded, and why; an item may be rejected in part only.
        facts: the encoder's fingerprint and version in the registry, its training, counts.
    """

    item_ids: tuple[str, ...]
    provider_ids: tuple[str | None, ...]
    vectors_IE: Vectors
    rejected: tuple[Rejected, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        item_ids: Sequence[str],
        provider_ids: Sequence[str | None],
        vectors_IE: Vectors,
        rejected: Sequence[Rejected],
        facts: dict[str, Any],
    ) -> "Published":
        """In the order of ids, whatever order they come in."""
        order = sorted(range(len(item_ids)), key=lambda i: item_ids[i])
        ids, providers = tuple(item_ids[i] for i in order), tuple(provider_ids[i] for i in order)
        return cls(ids, providers, vectors_IE[order], tuple(sorted(rejected)), facts)

    def save(self, folder: Path) -> None:
        """Write `embeddings.parquet`, `quarantine.parquet` and `content.json`."""
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(self.vectors_IE.ravel()), self.vectors_IE.shape[1])
        columns = {
            "item_id": pa.array(self.item_ids, pa.string()),
            "provider_id": pa.array(self.provider_ids, pa.string()),
        }
        pq.write_table(pa.table({**columns, "embedding": vectors}), folder / "embeddings.parquet", compression="zstd")
        rows = [{"item_id": item_id, "reason": reason} for item_id, reason in self.rejected]
        pq.write_table(pa.Table.from_pylist(rows, QUARANTINE), folder / "quarantine.parquet", compression="zstd")
        (folder / "content.json").write_text(json.dumps(self.facts, indent=1))

    @classmethod
    def load(cls, folder: Path) -> "Published":
        """Raises ModelError where the folder holds none, or one that cannot be read."""
        try:
            table = pq.read_table(folder / "embeddings.parquet")
            rejected = pq.read_table(folder / "quarantine.parquet").to_pylist()
            facts = json.loads((folder / "content.json").read_text())
        except (OSError, ValueError, pa.ArrowException) as error:
            raise _unreadable(folder, error) from error
        column = table["embedding"].combine_chunks()
        vectors_IE = column.flatten().to_numpy().reshape(len(table), column.type.list_size)
        found = tuple((row["item_id"], row["reason"]) for row in rejected)
        return cls(
            tuple(table["item_id"].to_pylist()), tuple(table["provider_id"].to_pylist()), vectors_IE, found, facts
        )


def encoder_of(folder: Path) -> tuple[str, int] | None:
    """Name and number in the registry of the encoder that made published embeddings; None where items came with them.

    Raises ModelError as `Published.load`.
    """
    try:
        found = json.loads((folder / "content.json").read_text())["encoder"]
        return (str(found["name"]), int(found["version"])) if found else None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _unreadable(folder, error) from error


def _unreadable(folder: Path, error: Exception) -> ModelError:
    return ModelError(f"{folder}: no embeddings here ({error}); run `python -m tune.embed` again")
