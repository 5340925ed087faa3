"""What a name's content process does: it reads content that is sent inline, and keeps the clients' vector stores.

Plain Python and threads; `serve.processes` makes it an actor. The encoder, and torch with it, is loaded when something
is first to be read.

Shapes: N contents, E size of the embedding, Q queries.
"""

import logging
import threading
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial

import numpy as np

from actors.bandits.version import Version
from actors.content.cache import Cache, Known, Recent
from actors.content.contents import Content
from actors.content.embedding import Embedded, Embedder
from actors.content.library import Library
from actors.content.origin import Origin
from actors.content.published import encoder_of
from actors.content.served import Served
from actors.content.vectors.entry import Entry, Neighbours, Vectors
from cluster.config import Settings
from cluster.errors import ModelError, RegistryError
from cluster.journal.journal import Reader, journal_url
from cluster.registry import Registry

logger = logging.getLogger(__name__)

REMEMBERED = 4_096
"""Parts of inline content whose vectors stay in memory: a caller who did not wait finds them when it asks again."""
KEPT = 2
"""Versions, and encoders, in memory."""


class ContentService:
    """Threads may share it.

    Args:
        settings: as resolved by the CLI.
        name: registry name of the versions.
    """

    def __init__(self, settings: Settings, name: str) -> None:
        self._settings, self._name = settings, name
        self._registry = Registry(settings.registry_uri)
        self._origins: OrderedDict[int, tuple[Origin | None, str]] = OrderedDict()
        self._encoders: OrderedDict[str, tuple[Embedder, Embedder] | None] = OrderedDict()
        self._loading, self._encoding = threading.RLock(), threading.Lock()
        self._journal = Reader(journal_url(settings))
        folder = settings.folder("content") / name
        self._library = Library(folder, lambda n: self._known(n)[0], self._journal.changes, settings.reward_kind)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="content", daemon=True)
        self._thread.start()

    def embed(self, version: int, contents: Sequence[Content]) -> Embedded | None:
        """Unit vectors of contents, (N, E), as the version's embeddings were made; those seen lately from memory. None
        where nobody can read content for it: it has no embeddings, or its items came with their own.

        Raises:
            RegistryError, ModelError: the version or its encoder cannot be had.
        """
        source = self._known(version)[1]
        return self._read(source, contents, inline=True) if source else None

    def apply(self, client: str, version: int, served: Sequence[Served]) -> str | None:
        """As `Library.apply`. Raises RegistryError too, where the version cannot be had."""
        return self._library.apply(client, version, served)

    def neighbours(
        self, client: str, version: int, query_QE: Vectors, provider_id: str | None, k: int
    ) -> tuple[list[Neighbours], dict[str, Entry]]:
        """As `Library.neighbours`. Raises RegistryError too, where the version cannot be had."""
        return self._library.neighbours(client, version, query_QE, provider_id, k)

    def get(self, client: str, version: int, item_ids: Sequence[str]) -> dict[str, Entry]:
        """A client's entries of those items that are there."""
        return self._library.get(client, version, item_ids)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        self._library.close()
        self._journal.close()

    def _run(self) -> None:
        """Follow the clients' catalogues; a failure is told once and tried again."""
        last = ""
        while not self._stop.wait(self._settings.serve.versions_refresh_s):
            try:
                self._library.follow()
                last = ""
            except Exception as error:  # the databases' errors have no common base, and the thread must live
                if str(error) != last:
                    logger.warning("catalogue changes do not reach the vector store: %s; it is tried again", error)
                last = str(error)

    def _known(self, number: int) -> tuple[Origin | None, str]:
        """A version's items, and the source of their embeddings (`Relations`)."""
        with self._loading:
            if number not in self._origins:
                version = Version.load(self._registry.fetch(self._name, number))
                relations = version.feature_map.relations
                source = relations.source if relations else ""
                self._origins[number] = Origin.of(version, partial(self._of_items, source)), source
                if len(self._origins) > KEPT:
                    self._origins.popitem(last=False)
            self._origins.move_to_end(number)
            return self._origins[number]

    def _of_items(self, source: str, contents: Sequence[Content]) -> Embedded:
        """Of items that clients put, kept on disk. None is there where the encoder cannot be had: what else changed in
        the catalogue must not wait for it."""
        nothing = Embedded(np.zeros((len(contents), 0), np.float32), np.zeros(len(contents), np.bool_), (), 0)
        try:
            return (self._read(source, contents, inline=False) if source else None) or nothing
        except (ModelError, RegistryError) as error:
            logger.warning("items that came without an embedding are not in the vector store: %s", error)
            return nothing

    def _read(self, source: str, contents: Sequence[Content], *, inline: bool) -> Embedded | None:
        with self._encoding:
            embedders = self._embedders(source)
            return None if embedders is None else embedders[0 if inline else 1].embed(contents)

    def _embedders(self, source: str) -> tuple[Embedder, Embedder] | None:
        """For inline content and for items: one model, behind a memory and behind the cache on disk. None where items
        came with their embeddings."""
        if source not in self._encoders:
            self._encoders[source] = self._loaded(source)
            if len(self._encoders) > KEPT:
                self._encoders.popitem(last=False)
        self._encoders.move_to_end(source)
        return self._encoders[source]

    def _loaded(self, source: str) -> tuple[Embedder, Embedder] | None:
        name, _, number = source.rpartition("/")
        encoder = encoder_of(self._registry.fetch(name, int(number)))
        if encoder is None:
            return None
        import torch  # seconds and 200 MB, which a process that reads nothing does without

        from actors.content.encoder import Encoder

        torch.set_num_threads(self._settings.content.threads)
        own = Encoder.load(str(self._registry.fetch(*encoder)), self._settings.content)
        caches: list[Known] = [Recent(REMEMBERED), Cache(self._settings.folder("embeddings"), own.fingerprint)]
        made = [Embedder(own.embed, own.modalities, own.dimension, own.fingerprint, cache) for cache in caches]
        return made[0], made[1]
