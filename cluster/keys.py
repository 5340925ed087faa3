"""API keys: who is calling. A key is `medley_<id>_<secret>`; the secret has 256 random bits and is shown once.

Only salt and HMAC-SHA256(salt, secret) are kept. A slow hash would protect a guessable password; a random
256-bit secret needs none, so a key is checked in microseconds. Serving loads all keys as a `KeyRing`, checks
against it without a database call, and replaces it from time to time.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import cast

from sqlalchemy import select
from sqlalchemy.orm import Session

from cluster.config import ClientMode, Settings
from cluster.database import Database, upgrade, url_of
from cluster.errors import DatabaseError
from cluster.tables import Client, Key, now

_PLAIN = re.compile(r"medley_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")
_CLIENT = re.compile(r"[^\x00-\x1f\x7f]{1,128}")


@dataclass(frozen=True)
class Limits:
    """What a key may ask for; None is what the settings say.

    rate_per_s: requests inside calls, per second. burst: those that may come at once. max_body_bytes: of one call.
    """

    rate_per_s: float | None = None
    burst: int | None = None
    max_body_bytes: int | None = None


@dataclass(frozen=True)
class Principal:
    """Who holds a key: a client, or an operator when `client_id` is None; mode and version are the client's."""

    key_id: str
    client_id: str | None
    mode: ClientMode = "live"
    version: int | None = None
    limits: Limits = Limits()

    @property
    def role(self) -> str:
        return "operator" if self.client_id is None else "client"


@dataclass(frozen=True)
class ClientFacts:
    """A client; `version` is the one that it is held at, None where it follows the newest."""

    client_id: str
    mode: ClientMode
    version: int | None


@dataclass(frozen=True)
class KeyFacts:
    """A key without its secret."""

    key_id: str
    client_id: str | None
    created_at: datetime
    ends_at: datetime | None
    limits: Limits


@dataclass(frozen=True)
class _Entry:
    principal: Principal
    salt: bytes
    hash: bytes
    ends_at: datetime | None


class KeyRing:
    """All keys at one moment, in memory."""

    def __init__(self, entries: Iterable[_Entry] = ()) -> None:
        self._entries = {entry.principal.key_id: entry for entry in entries}

    def __len__(self) -> int:
        return len(self._entries)

    def verify(self, plain: str) -> Principal | None:
        """Who holds this key; None for a key that is malformed, unknown, wrong or ended."""
        match = _PLAIN.fullmatch(plain)
        entry = self._entries.get(match[1]) if match else None
        if match is None or entry is None or not hmac.compare_digest(_hash(entry.salt, match[2]), entry.hash):
            return None
        return None if entry.ends_at is not None and entry.ends_at <= now() else entry.principal


class Keys:
    """Clients and their keys in the database. Every method may raise DatabaseError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create_client(self, client_id: str) -> bool:
        """Add a client; False when it is there already."""
        if not _CLIENT.fullmatch(client_id):
            raise DatabaseError(f"{client_id!r} is no client id: 1 to 128 printable characters")
        with self._database.session() as session:
            if session.get(Client, client_id):
                return False
            session.add(Client(id=client_id))
            return True

    def held(self) -> dict[str, int]:
        """Clients that are held at a version, and which."""
        with self._database.session() as session:
            rows = session.execute(select(Client.id, Client.version).where(Client.version.is_not(None)))
            return {client: version for client, version in rows if version is not None}

    def clients(self) -> list[ClientFacts]:
        with self._database.session() as session:
            rows = session.scalars(select(Client).order_by(Client.id))
            return [_facts(row) for row in rows]

    def client(self, client_id: str) -> ClientFacts | None:
        with self._database.session() as session:
            row = session.get(Client, client_id)
            return None if row is None else _facts(row)

    def set_mode(self, client_id: str, mode: ClientMode) -> None:
        """Say who answers a client's calls; serving notices when it reloads its keys."""
        with self._database.session() as session:
            _client(session, client_id).mode = mode

    def set_version(self, client_id: str, version: int | None) -> None:
        """Hold a client at a version; None lets it follow the newest. Replicas notice when they look for versions."""
        with self._database.session() as session:
            _client(session, client_id).version = version

    def create_key(self, client_id: str | None) -> str:
        """A new key of a client, or of an operator for None; the returned text is kept nowhere."""
        with self._database.session() as session:
            if client_id is not None:
                _client(session, client_id)
            return _add(session, client_id)

    def rotate(self, key_id: str, grace_s: float = 0.0) -> str:
        """A new key for the same holder with the same limits; the old one ends after `grace_s` seconds."""
        with self._database.session() as session:
            old = _find(session, key_id)
            old.ends_at = now() + timedelta(seconds=grace_s)
            return _add(session, old.client_id, _limits(old))

    def limit(self, key_id: str, limits: Limits) -> None:
        """Replace a key's limits; serving notices when it reloads its keys."""
        wrong = [name for name, value in asdict(limits).items() if value is not None and not value > 0]
        if wrong:
            raise DatabaseError(f"{wrong[0]} = {getattr(limits, wrong[0])}: a limit is above zero")
        with self._database.session() as session:
            key = _find(session, key_id)
            key.rate_per_s, key.burst, key.max_body_bytes = limits.rate_per_s, limits.burst, limits.max_body_bytes

    def revoke(self, key_id: str, grace_s: float = 0.0) -> None:
        """End a key after `grace_s` seconds; serving notices at its next refresh."""
        with self._database.session() as session:
            _find(session, key_id).ends_at = now() + timedelta(seconds=grace_s)

    def all(self) -> list[KeyFacts]:
        with self._database.session() as session:
            rows = session.scalars(select(Key).order_by(Key.created_at))
            return [KeyFacts(row.id, row.client_id, row.created_at, row.ends_at, _limits(row)) for row in rows]

    def ring(self) -> KeyRing:
        """All keys that have not ended, for checks without a database."""
        with self._database.session() as session:
            holders = select(Key, Client).outerjoin(Client, Key.client_id == Client.id)
            rows = [(key, client) for key, client in session.execute(holders)]
        return KeyRing(
            _Entry(_principal(key, client), key.salt, key.hash, key.ends_at)
            for key, client in rows
            if key.ends_at is None or key.ends_at > now()
        )

    def verify(self, plain: str) -> Principal | None:
        """One check against the database, for tools; serving holds a KeyRing."""
        return self.ring().verify(plain)


@contextmanager
def opened(settings: Settings) -> Iterator[Keys]:
    """The keys of a home, its schema brought up to date."""
    upgrade(url_of(settings))
    with Database(url_of(settings)) as database:
        yield Keys(database)


def _add(session: Session, client_id: str | None, limits: Limits = Limits()) -> str:
    key_id, secret, salt = secrets.token_hex(8), secrets.token_urlsafe(32), secrets.token_bytes(16)
    session.add(Key(id=key_id, client_id=client_id, salt=salt, hash=_hash(salt, secret), **asdict(limits)))
    return f"medley_{key_id}_{secret}"


def _principal(key: Key, client: Client | None) -> Principal:
    if client is None:
        return Principal(key.id, None, limits=_limits(key))
    return Principal(key.id, client.id, cast(ClientMode, client.mode), client.version, _limits(key))


def _limits(key: Key) -> Limits:
    return Limits(key.rate_per_s, key.burst, key.max_body_bytes)


def _facts(row: Client) -> ClientFacts:
    return ClientFacts(row.id, cast(ClientMode, row.mode), row.version)


def _client(session: Session, client_id: str) -> Client:
    client = session.get(Client, client_id)
    if client is None:
        raise DatabaseError(f"no client {client_id!r}; add it with `medley client add {client_id}`")
    return client


def _find(session: Session, key_id: str) -> Key:
    key = session.get(Key, key_id)
    if key is None:
        raise DatabaseError(f"no key {key_id!r}; `medley key list` shows them")
    return key


def _hash(salt: bytes, secret: str) -> bytes:
    return hmac.digest(salt, secret.encode(), hashlib.sha256)
