"""The clients as operators see them: who answers, at which version, and how far the engine agrees with a baseline."""

from dataclasses import asdict
from typing import Any

from cluster.errors import JournalError
from cluster.journal.journal import Agreement, Reader
from cluster.keys import Keys


def tenants(keys: Keys, journal_url: str) -> list[dict[str, Any]]:
    """Each client's id, mode, version, and agreement: decisions compared, the share with the baseline's first item,
    and the mean probability of that item. None where nothing was compared."""
    found = _agreements(journal_url)
    return [{**asdict(client), "agreement": _shares(found.get(client.client_id))} for client in keys.clients()]


def _agreements(url: str) -> dict[str, Agreement]:
    reader = Reader(url)
    try:
        return reader.agreements()
    except JournalError:
        return {}  # a home that never served has no journal
    finally:
        reader.close()


def _shares(agreement: Agreement | None) -> dict[str, float] | None:
    if agreement is None:
        return None
    compared = agreement.compared
    return {
        "compared": compared,
        "agreed": agreement.agreed / compared,
        "propensity": agreement.propensity / compared,
    }
