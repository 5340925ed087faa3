"""Contents -> one unit vector each, through the cache.

The modalities of an item are encoded by themselves, so that a new title leaves the picture's vector as it is; their
unit vectors are averaged, and the mean is scaled to length 1.

Shapes: N contents, P parts, E size of the embedding.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from actors.content.cache import Known
from actors.content.contents import Content, Modality, Part
from actors.features import catalogue

Vectors: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True)
class Encoded:
    """vectors_PE: unit vectors, zero for each part in `problems`, which says why it has none."""

    vectors_PE: Vectors
    problems: dict[int, str]


Encode: TypeAlias = Callable[[Sequence[Part]], Encoded]
"""`Encoder.embed`, or a pool of actors."""


@dataclass(frozen=True)
class Embedded:
    """vectors_NE: unit vectors, zero where `there_N` is false.

    `problems` are (row, reason): parts that could not be read, and contents with nothing that the model reads.
    `encoded` parts went through the model; the others were in the cache.
    """

    vectors_NE: Vectors
    there_N: NDArray[np.bool_]
    problems: tuple[tuple[int, str], ...]
    encoded: int


class Embedder:
    """An encoder behind a cache.

    Args:
        encode: parts -> vectors.
        modalities: what the model reads of an item.
        dimension: E.
        cache: of this model.
        fingerprint: of this model.
    """

    def __init__(
        self, encode: Encode, modalities: Sequence[Modality], dimension: int, fingerprint: str, cache: Known
    ) -> None:
        self.encode, self.modalities, self.dimension = encode, tuple(modalities), dimension
        self.fingerprint, self.cache = fingerprint, cache

    def embed(self, contents: Sequence[Content]) -> Embedded:
        """Encode the parts that are new, each once, and combine."""
        parts = [[p for p in content.parts() if p.modality in self.modalities] for content in contents]
        keys = [[part.key(self.fingerprint) for part in own] for own in parts]
        distinct = {k: p for own, of in zip(parts, keys, strict=True) for p, k in zip(own, of, strict=True)}
        known = self.cache.find(list(distinct))
        missing = [key for key in distinct if key not in known]
        reasons: dict[bytes, str] = {}
        if missing:
            encoded = self.encode([distinct[key] for key in missing])
            reasons = {missing[i]: reason for i, reason in encoded.problems.items()}
            read = [i for i in range(len(missing)) if i not in encoded.problems]
            found = [missing[i] for i in read]
            self.cache.add(found, encoded.vectors_PE[read])
            known |= dict(zip(found, encoded.vectors_PE[read], strict=True))
        return self._combined(contents, keys, known, reasons, len(missing))

    def _combined(
        self,
        contents: Sequence[Content],
        keys: list[list[bytes]],
        known: dict[bytes, Vectors],
        reasons: dict[bytes, str],
        encoded: int,
    ) -> Embedded:
        sums_NE = np.zeros((len(contents), self.dimension))
        problems: list[tuple[int, str]] = []
        for n, of in enumerate(keys):
            for key in of:
                if key in known:
                    sums_NE[n] += known[key]
            problems += [(n, reasons[key]) for key in of if key in reasons]
            if not of:
                problems.append((n, self._nothing(contents[n])))
        vectors_NE, there_N = unit(sums_NE)
        return Embedded(vectors_NE, there_N, tuple(problems), encoded)

    def _nothing(self, content: Content) -> str:
        there = [part.modality for part in content.parts()]
        wanted = " or ".join(self.modalities)
        return f"nothing to encode: the model reads {wanted}, the item has {', '.join(there) or 'no content'}"


def unit(vectors_NE: NDArray[np.floating]) -> tuple[Vectors, NDArray[np.bool_]]:
    """The vectors scaled to length 1, and which of them have a direction; the others become zero."""
    length_N = np.linalg.norm(vectors_NE, axis=1)
    there_N = np.isfinite(length_N) & (length_N > 0)
    return catalogue.unit(np.where(there_N[:, None], vectors_NE, 0.0), least=0.0).astype(np.float32), there_N
