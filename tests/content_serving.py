"""A served version whose items have providers and embeddings, with an encoder that reads inline content or without.

Twelve items of three colours (`tests.serving`): those of a colour look alike. Red ones are of the providers p0 and p3,
green ones of p1 and p4, blue ones of p2 and p5; p0 and p1 are of the cluster "a", the others of "b".
"""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from actors.bandits.version import Version
from actors.content.cache import Recent
from actors.content.contents import Content, Part
from actors.content.embedding import Embedded, Embedder, Encoded
from actors.features.relations import Relations
from tests import serving

WIDTH, NEAREST, TEMPERATURE = 8, 3, 0.1
CLUSTER_OF = {f"p{n}": "a" if n < 2 else "b" for n in range(6)}


def direction(colour: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.eye(WIDTH)[serving.COLOURS.index(colour)]


@cache
def embeddings(items: int = 12) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Unit vectors about the colours' directions."""
    noise_IE = 0.2 * np.random.default_rng(3).normal(size=(items, WIDTH))
    found_IE = np.stack([direction(serving.COLOURS[n % 3]) for n in range(items)]) + noise_IE
    return (found_IE / np.linalg.norm(found_IE, axis=1, keepdims=True)).astype(np.float32)


def brute(vector_E: Any, among: Sequence[int], own: int | None = None) -> list[tuple[int, float]]:
    """The nearest of these items, by Python's own arithmetic."""
    vectors = embeddings()
    scored = [(sum(map(float.__mul__, map(float, vector_E), map(float, vectors[n]))), n) for n in among if n != own]
    return [(n, s) for s, n in sorted(scored, key=lambda pair: -pair[0])][:NEAREST]


def version(facts: dict[str, Any] | None = None, items: int = 12, source: str = "colours/1") -> Version:
    """Neighbours are sought among all."""
    made = serving.version(facts=facts, items=items)
    vectors_IE, ids = embeddings(items), list(made.feature_map.item_ids)
    order = [int(name[1:]) for name in ids]
    providers = [f"p{n % 6}" for n in order]
    cosine_II = (vectors_IE.astype(np.float64) @ vectors_IE.astype(np.float64).T)[np.ix_(order, order)]
    np.fill_diagonal(cosine_II, -np.inf)
    near_IJ = np.argsort(-cosine_II, axis=1)[:, :NEAREST]
    relations = Relations.of(
        providers,
        CLUSTER_OF,
        vectors_IE[order],
        near_IJ,
        np.take_along_axis(cosine_II, near_IJ, axis=1),
        np.full(items, 3),
        TEMPERATURE,
    )
    relations = replace(relations, source=source)
    names = made.items["item_id"].to_pylist()
    column = pa.array([f"p{int(name[1:]) % 6}" for name in names])
    table = made.items.set_column(made.items.column_names.index("provider_id"), "provider_id", column)
    return replace(made, feature_map=replace(made.feature_map, relations=relations), items=table)


def read(parts: Sequence[Part]) -> Encoded:
    """What a small encoder might: a text that names a colour points its way, a picture where its pixels do."""
    vectors_PE, problems = np.zeros((len(parts), WIDTH), np.float32), {}
    for n, part in enumerate(parts):
        try:
            vectors_PE[n] = _picture(part.payload[0]) if part.modality == "image" else _text(part.payload[0].decode())
        except ValueError as error:
            problems[n] = str(error)
    return Encoded(vectors_PE, problems)


def embedder() -> Embedder:
    return Embedder(read, ("text", "image"), WIDTH, "colours", Recent(100))


def png(colour: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 4), colour).save(file, "PNG")
    return file.getvalue()


def _text(text: str) -> Any:
    found = [direction(colour) for colour in serving.COLOURS if colour in text]
    if not found:
        digest = hashlib.sha256(text.encode()).digest()
        found = [np.frombuffer(digest[:WIDTH], np.int8).astype(np.float64)]
    return (found[0] / np.linalg.norm(found[0])).astype(np.float32)


def _picture(data: bytes) -> Any:
    try:
        pixel = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))[0, 0]
    except Exception as error:
        raise ValueError("no whole image") from error
    return direction(("red", "green", "blue")[int(pixel.argmax())]).astype(np.float32)


class Reader:
    """The content process, in this one."""

    def __init__(self) -> None:
        self.embedder, self.asked = embedder(), list[tuple[int, int]]()

    async def embed(self, version: int, contents: Sequence[Content]) -> Embedded | None:
        self.asked.append((version, len(contents)))
        return self.embedder.embed(contents)
