"""The clients as operators see them: who answers, at which version, and how far the engine agrees with a baseline."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, TypeVar

from cluster.errors import JournalError
from cluster.journal.journal import Agreement, Reader
from cluster.keys import ClientFacts, Keys

T = TypeVar("T")


def tenants(keys: Keys, journal_url: str) -> list[dict[str, Any]]:
    """Each client's id, mode, version, and agreement: decisions compared, the share with the baseline's first item,
    and the mean probability of that item. None where nothing was compared."""
    found: dict[str, Agreement] = _read(journal_url, Reader.agreements) or {}
    return [_told(client, found.get(client.client_id)) for client in keys.clients()]


def tenant(keys: Keys, journal_url: str, client_id: str) -> dict[str, Any] | None:
    """The same of one client; None where there is no such client."""
    client = keys.client(client_id)
    if client is None:
        return None
    return _told(client, _read(journal_url, lambda reader: reader.agreement(client_id)))


def _read(url: str, look: Callable[[Reader], T]) -> T | None:
    reader = Reader(url)
    try:
        return look(reader)
    except JournalError:
        return None  # a home that never served has no journal
    finally:
        reader.close()


def _told(client: ClientFacts, agreement: Agreement | None) -> dict[str, Any]:
    return {**asdict(client), "agreement": _shares(agreement)}


def _shares(agreement: Agreement | None) -> dict[str, float] | None:
    if agreement is None:
        return None
    compared = agreement.compared
    return {
        "compared": compared,
        "agreed": agreement.agreed / compared,
        "propensity": agreement.propensity / compared,
    }
