"""Items -> static features, text vectors and the codes that similarity reads.

Static features are log price, levels and numbers of category, brand, provider and attributes, the leading
text dimensions, and the leading dimensions of the items' own embedding. All come from the items table alone,
so that an item that is added later gets them too; what it lacks is missing (0).

Shapes: I items (one more row at the end: an unknown item), S static features, R text rank.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from actors.features.basis import Basis, fit_basis
from actors.features.columns import Reader, Table, attribute_table, fit_reader
from actors.features.dense import times
from actors.features.features import Floats, Ints
from actors.features.keys import key
from actors.features.lowrank import principal
from actors.features.text import TextMap, fit_text

SIMILARITY_RANK = 32
BLOCK = 10_000
"""Items whose embeddings are projected at a time, for bounded memory."""


@dataclass(frozen=True)
class ItemEncoder:
    """Fitted parameters; `static` and `text` apply them to any items table."""

    identity: tuple[str, ...]
    reader: Reader
    basis: Basis
    level_T: Ints
    text: TextMap
    text_scale: float
    text_rank: int
    embedding_mean_E: Floats
    embedding_ER: Floats

    @property
    def names(self) -> tuple[str, ...]:
        levels = self.reader.code_names
        return (
            *(f"item={name}" for name in self.identity),
            *self.basis.names(self.reader.number_names),
            *(levels[code] for code in self.level_T),
            *(f"text[{r}]" for r in range(self.text_rank)),
            *(f"embedding[{r}]" for r in range(self.embedding_ER.shape[1])),
        )

    def static(self, items: pa.Table, text_IR: Floats) -> Floats:
        """static_IS, with a row for an unknown item at the end."""
        numbers_IN, on_IL = self.reader.read_table(item_table(items), len(items) + 1)
        embedding_IR = np.append(self._embedded(items), np.zeros((1, self.embedding_ER.shape[1])), axis=0)
        place = {name: i for i, name in enumerate(self.identity)}
        own_I = np.append(row_numbers(place, items["item_id"].to_pylist()), -1)
        return np.concatenate(
            [
                own_I[:, None] == np.arange(len(self.identity)),
                self.basis.features(numbers_IN),
                on_IL[:, self.level_T],
                text_IR[:, : self.text_rank] * self.text_scale,
                embedding_IR,
            ],
            axis=1,
        )

    def _embedded(self, items: pa.Table) -> Floats:
        """The items' own embeddings, projected, in blocks; an item has the same bits alone as in a catalogue."""
        embedded_IR = np.zeros((len(items), self.embedding_ER.shape[1]))
        for start in range(0, len(items) if len(self.embedding_mean_E) else 0, BLOCK):
            vectors_IE, there_I = embeddings(items.slice(start, BLOCK), len(self.embedding_mean_E))
            away_IE = vectors_IE[there_I] - self.embedding_mean_E
            embedded_IR[start : start + BLOCK][there_I] = times(away_IE, self.embedding_ER)
        return embedded_IR

    def vectors(self, items: pa.Table) -> Floats:
        """Text vectors_IR, with the zero vector of an unknown item at the end."""
        return self.text.vectors([*item_texts(items), ""])


def item_table(items: pa.Table) -> Table:
    """Columns of an items table as named values; the row past its end has none."""
    table = {}
    for name, (index_I, values) in attribute_table(items["attributes"]).items():
        table[name] = (np.append(index_I, -1), values)
    for name in ("category", "brand", "provider_id"):
        coded = items[name].combine_chunks().dictionary_encode()
        index_I = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        table[name] = (np.append(index_I, -1), coded.dictionary.to_pylist())
    table["log price"] = (np.append(np.arange(len(items)), -1), log_price(items)[:-1].tolist())
    return table


def log_price(items: pa.Table) -> Floats:
    """log(1 + price) of each item, NaN for none or a negative one; the unknown item last."""
    price_I = items["price"].to_numpy(zero_copy_only=False).astype(np.float64)
    price_I = np.where((price_I >= 0) & np.isfinite(price_I), price_I, np.nan)
    return np.append(np.log1p(price_I), np.nan)


def has_embeddings(items: pa.Table) -> bool:
    return bool(len(items) - items["embedding"].null_count >= 2)


def item_texts(items: pa.Table) -> list[str]:
    """Title and description of each item."""
    pairs = zip(items["title"].to_pylist(), items["description"].to_pylist(), strict=True)
    return [" ".join(part for part in pair if part) for pair in pairs]


def embeddings(items: pa.Table, size: int) -> tuple[Floats, np.ndarray[tuple[int], np.dtype[np.bool_]]]:
    """vectors_IE of the items whose embedding has this size and is finite, and which those are."""
    vectors_IE = np.zeros((len(items), size))
    there_I = np.zeros(len(items), np.bool_)
    column = items["embedding"].combine_chunks()
    whole_I = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False) == size
    if size and whole_I.any():
        values = column.filter(pa.array(whole_I)).flatten().to_numpy(zero_copy_only=False)  # a null is NaN
        vectors_IE[whole_I] = values.reshape(-1, size)
        there_I = whole_I & np.isfinite(vectors_IE).all(axis=1)
        vectors_IE[~there_I] = 0.0
    return vectors_IE, there_I


def codes(items: pa.Table, first: int = 0) -> Ints:
    """codes_3I: row (from `first` on), category and brand of each item as integers, -1 for none; the unknown item last.

    Those of category and brand follow from their text alone, so that tables of items can be put one after another.
    """
    columns = [np.arange(first, first + len(items))]
    for name in ("category", "brand"):
        coded = items[name].combine_chunks().dictionary_encode()
        named = [key(level) >> 1 for level in coded.dictionary.to_pylist()]
        code_I = np.array([*named, -1], np.int64)[coded.indices.fill_null(-1).to_numpy(zero_copy_only=False)]
        columns.append(code_I)
    return np.append(np.stack(columns), [[-1], [-1], [-1]], axis=1)


def fit_items(
    items: pa.Table, levels: int, text_rank: int, embedding_rank: int, limit: int, identity: bool, seed: int
) -> ItemEncoder:
    """Encoders of this catalogue. Levels and numbers beyond `limit` features are dropped by variance."""
    table = item_table(items)
    rows = len(items)
    reader = fit_reader({n: (index[:-1], values) for n, (index, values) in table.items()}, rows, levels)
    numbers_IN, on_IL = reader.read_table(table, rows + 1)
    basis = fit_basis(numbers_IN[:-1], curved=False)
    plain_IF = np.concatenate([basis.features(numbers_IN), on_IL], axis=1)[:-1]
    variance_F = plain_IF.var(axis=0)
    keep_F = np.zeros(len(variance_F), np.bool_)
    keep_F[np.argsort(-np.round(variance_F, 9), kind="stable")[:limit]] = True
    keep_F &= variance_F > 1e-12
    split = sum(basis.sizes)
    texts = item_texts(items)
    text = fit_text(texts, max(text_rank, SIMILARITY_RANK), seed)
    rank = min(text_rank, text.basis_HR.shape[1])
    spread = float(np.sqrt((text.vectors(texts)[:, :rank] ** 2).mean())) if rank and rows else 1.0
    mean_E, embedding_ER = _fit_embedding(items, embedding_rank)
    return ItemEncoder(
        tuple(items["item_id"].to_pylist()) if identity else (),
        reader, basis.select(keep_F[:split]), np.flatnonzero(keep_F[split:]),
        text, 1.0 / spread if spread > 0 else 1.0, rank, mean_E, embedding_ER,
    )  # fmt: skip


def _fit_embedding(items: pa.Table, rank: int) -> tuple[Floats, Floats]:
    sizes = [len(vector) for vector in items["embedding"].to_pylist() if vector]
    size = max(set(sizes), key=lambda n: (sizes.count(n), n)) if sizes else 0
    vectors_IE, there_I = embeddings(items, size)
    if there_I.sum() < 2:
        return np.zeros(0), np.zeros((0, 0))
    return principal(vectors_IE[there_I], rank)


def unit(vectors: Floats, least: float = 1e-12) -> Floats:
    """Vectors scaled to length 1; one that is no longer than `least` is taken for rounding, and stays."""
    length = np.sqrt((vectors**2).sum(axis=-1, keepdims=True))
    return vectors / np.where(length > least, length, 1.0)


def row_numbers(index: Mapping[str, int], ids: Sequence[str]) -> Ints:
    """Row of each id, -1 for unknown."""
    return np.fromiter((index.get(name, -1) for name in ids), np.int64, len(ids))
