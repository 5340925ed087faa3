"""Encoding on Ray: actors that hold an encoder each, and the pool that spreads parts over them."""

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
import ray
import torch

from actors.content.cache import Recent
from actors.content.contents import Content, Part
from actors.content.embedding import Embedded, Embedder, Encoded
from actors.content.encoder import Encoder
from cluster.config import ContentSettings
from cluster.errors import ClusterError
from cluster.registry import Registry

CPUS = 0.5
"""Reserved per actor: on two cores a job and Serve must find room beside it."""
REMEMBERED = 4_096
"""Parts whose vectors an actor keeps in memory for content that is sent inline."""


@dataclass(frozen=True)
class Source:
    """An encoder in a registry, to be fetched by every node for itself."""

    registry: str
    name: str
    version: int

    def load(self, settings: ContentSettings) -> Encoder:
        """The encoder, on this process's GPU where it has one.

        Raises:
            RegistryError, ModelError: it is not there, or cannot be read.
        """
        torch.set_num_threads(settings.threads)
        return Encoder.load(str(Registry(self.registry).fetch(self.name, self.version)), settings)


class EncodingActor:
    """An encoder of a registry."""

    def __init__(self, source: Source, settings: ContentSettings) -> None:
        own = self.encoder = source.load(settings)
        self.embedder = Embedder(own.embed, own.modalities, own.dimension, own.fingerprint, Recent(REMEMBERED))

    def encode(self, parts: Sequence[Part]) -> Encoded:
        """Unit vectors of the parts, (P, E)."""
        return self.encoder.embed(parts)

    def embed(self, contents: Sequence[Content]) -> Embedded:
        """Unit vectors of whole contents, (N, E), those seen lately from memory."""
        return self.embedder.embed(contents)


class Pool:
    """`settings.actors` encoding actors, each with `settings.gpus` of a GPU.

    They start with the first parts that are to be encoded, and end on exit.

        with Pool(source, settings) as pool:
            embedder = Embedder(pool.encode, ...)

    Raises:
        ClusterError: the cluster has less GPU than one actor wants.
    """

    def __init__(self, source: Source, settings: ContentSettings) -> None:
        self.source, self.settings = source, settings
        self._actors: list[Any] = []

    def __enter__(self) -> "Pool":
        check_gpus(self.settings)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for actor in self._actors:
            ray.kill(actor)
        self._actors = []

    def encode(self, parts: Sequence[Part]) -> Encoded:
        """Unit vectors of the parts in order, an even piece from each actor."""
        if not self._actors:
            remote = ray.remote(num_cpus=CPUS, num_gpus=self.settings.gpus)(EncodingActor)
            self._actors = [remote.remote(self.source, self.settings) for _ in range(self.settings.actors)]
        bounds = np.linspace(0, len(parts), len(self._actors) + 1).astype(int)
        pieces = [(a, s, e) for a, s, e in zip(self._actors, bounds[:-1], bounds[1:], strict=True) if e > s]
        found: list[Encoded] = ray.get([actor.encode.remote(list(parts[s:e])) for actor, s, e in pieces])
        problems: dict[int, str] = {}
        for (_, start, _), piece in zip(pieces, found, strict=True):
            problems |= {int(start) + i: reason for i, reason in piece.problems.items()}
        return Encoded(np.concatenate([piece.vectors_PE for piece in found]), problems)


def check_gpus(settings: ContentSettings) -> None:
    """Raises ClusterError where the cluster has less GPU than one actor wants."""
    there = ray.cluster_resources().get("GPU", 0.0)
    if settings.gpus > there:
        raise ClusterError(
            f"content.gpus = {settings.gpus} per actor, but the cluster has {there:g}; lower it, or add a GPU node"
        )
