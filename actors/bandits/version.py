"""A version as an artifact: `arrays.safetensors`, `items.parquet`, `version.json`. No pickle anywhere."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.numpy
from numpy.typing import NDArray

from actors.bandits.ensemble import Ensemble, Prior
from actors.bandits.members import SHARING
from actors.features.catalogue import BLOCK, embeddings, row_numbers
from actors.features.feature_map import FeatureMap
from actors.features.features import Ints
from cluster.errors import ModelError, RegistryError

FORMAT = 1
_UNREADABLE = (
    *(OSError, ValueError, LookupError, TypeError, AttributeError),  # files and JSON that are cut or altered
    *(ModelError, pa.ArrowException, safetensors.SafetensorError),
)


@dataclass(frozen=True)
class Version:
    """A feature map, the ensemble on it, the catalogue, and where it comes from.

    facts: name, parents, seed, journal watermark, data fingerprint, metrics, library versions.
    """

    feature_map: FeatureMap
    ensemble: Ensemble
    items: pa.Table
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.ensemble.fingerprint != self.feature_map.fingerprint:
            raise ModelError(
                f"ensemble of feature map {self.ensemble.fingerprint[:12]} does not fit feature map "
                f"{self.feature_map.fingerprint[:12]}; compose again"
            )
        relations = self.feature_map.relations
        rows = {} if relations is None else {"cluster": relations.cluster_rows, "provider": relations.provider_rows}
        for member in self.ensemble.members:
            if isinstance(member, Prior) and member.view in SHARING and len(member.shift_AD) != rows.get(member.view):
                raise ModelError(
                    f"member {member.name!r} with parameters of {len(member.shift_AD)} rows does not fit items related "
                    f"by {rows or 'nothing'}; compose again"
                )

    @property
    def generator(self) -> tuple[str, int] | None:
        """Name and number in the registry of what its generated member comes from; None where there is none."""
        about = self.facts.get("generator")
        return (about["name"], about["version"]) if about else None

    @property
    def reader(self) -> tuple[str, int] | None:
        """The generator where a language model reads contexts for it, None where nobody reads."""
        return self.generator if (self.facts.get("generator") or {}).get("reader") == "language" else None

    def over(self, items: pa.Table, encoder: str | None = None) -> FeatureMap:
        """Its features over another catalogue (ITEMS schema), as they would be if those items were put that changed.

        Args:
            encoder: fingerprint of the model that made the items' embeddings, None where nobody knows. Where the
                version's are of another, they cannot be compared, and items keep those that they have here.
        """
        place = {item_id: row for row, item_id in enumerate(self.items["item_id"].to_pylist())}
        before = row_numbers(place, items["item_id"].to_pylist())
        relations = self.feature_map.relations
        if relations is None or not relations.width:
            return self.feature_map.with_items(items)
        if encoder and relations.encoder and encoder != relations.encoder:
            kept = self.items["embedding"].combine_chunks().take(pa.array(before, mask=before < 0))
            at = items.schema.get_field_index("embedding")
            return self.feature_map.with_items(items.set_column(at, items.schema.field(at), kept))
        return self.feature_map.with_items(items, self._replaced(items, before, relations.width))

    def _replaced(self, items: pa.Table, before: Ints, width: int) -> NDArray[np.bool_]:
        """Which items have another embedding of this size than in the version, in whose rows `before` they are."""
        replaced = np.zeros(len(items), np.bool_)
        for start in range(0, len(items), BLOCK):
            rows = before[start : start + BLOCK]
            there = rows >= 0
            now_NE, _ = embeddings(items.slice(start, BLOCK).filter(pa.array(there)), width)
            was_NE, _ = embeddings(self.items.take(pa.array(rows[there])), width)
            replaced[start : start + BLOCK][there] = (now_NE != was_NE).any(axis=1)
        return replaced

    def save(self, folder: Path) -> None:
        arrays = {f"features/{name}": np.ascontiguousarray(a) for name, a in self.feature_map.arrays().items()}
        arrays |= {f"ensemble/{name}": a for name, a in self.ensemble.arrays().items()}
        facts = {
            "format": FORMAT,
            "facts": self.facts,
            "features": self.feature_map.facts(),
            "ensemble": self.ensemble.facts(),
        }
        safetensors.numpy.save_file(arrays, folder / "arrays.safetensors")
        pq.write_table(self.items, folder / "items.parquet", compression="zstd")
        (folder / "version.json").write_text(json.dumps(facts, indent=1))

    @classmethod
    def load(cls, folder: Path) -> "Version":
        """Raises RegistryError where the folder is no version that this release can read."""
        try:
            facts = json.loads((folder / "version.json").read_text())
            if facts["format"] > FORMAT:
                raise RegistryError(f"{folder}: format {facts['format']} is newer than {FORMAT}; update Medley")
            arrays = safetensors.numpy.load_file(folder / "arrays.safetensors")
            items = pq.read_table(folder / "items.parquet")
            parts = {kind: _under(f"{kind}/", arrays) for kind in ("features", "ensemble")}
            return cls(
                FeatureMap.load(parts["features"], facts["features"]),
                Ensemble.load(parts["ensemble"], facts["ensemble"]),
                items,
                facts["facts"],
            )
        except _UNREADABLE as error:
            raise RegistryError(f"{folder}: not a readable version ({error}); publish it again") from error


def _under(prefix: str, arrays: dict[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)}
