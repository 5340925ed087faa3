"""One connection to a journal, and what is read from it, the same on SQLite and on PostgreSQL."""

import json
from pathlib import Path

from pydantic_core import from_json

from cluster.errors import JournalError
from cluster.journal import schema as journal_schema
from cluster.journal.records import Agreement, DecisionRecord, Final, ItemRecord, OutcomeRow, Repeat, Shown
from cluster.journal.schema import FORMAT
from cluster.sql import FAILURES, Sql

LOCK = 0x6D65646C6579  # "medley": PostgreSQL's advisory lock of the journal's one order


class Connection:
    """Used by one thread at a time. Readers may raise one of FAILURES, of which `failure` makes an error."""

    def __init__(self, url: str, make: bool = True) -> None:
        """Connect, and make the tables where they are not.

        Args:
            url: path of a SQLite file, or `postgresql://...` (`postgresql+psycopg://...` too).
            make: whether to make what is missing; a reader does not, so that it never waits for a writer.

        Raises:
            JournalError: the file or the server cannot be used, or the tables are of a newer format.
        """
        self._where = url if not url.startswith("postgresql") else "the journal's PostgreSQL database"
        if not (make or url.startswith("postgresql") or Path(url).exists()):
            raise JournalError(f"{url}: nothing has been logged here yet; `medley serve` begins a journal")
        try:
            self.sql = Sql(url)
            if make:
                self.sql.begin(LOCK)
                journal_schema.make(self.sql)
                self.sql.commit()
            self._check_format()
        except FAILURES as error:
            raise self.failure(error) from error

    def _check_format(self) -> None:
        found = int(self.fact("format"))
        if found != FORMAT:
            remedy = (
                "upgrade Medley, or set another MEDLEY_HOME"
                if found > FORMAT
                else "`medley serve` brings it up to date"
            )
            raise JournalError(
                f"{self._where}: the journal has format {found}, this version of Medley reads {FORMAT}: {remedy}"
            )

    def failure(self, error: BaseException) -> JournalError:
        return JournalError(
            f"{self._where}: the journal cannot be read or written: {str(error).strip()}; check that the "
            "disk has space, that the place can be written and that the database runs"
        )

    def fact(self, name: str) -> str:
        return journal_schema.fact(self.sql, name)

    def close(self) -> None:
        self.sql.close()

    def counts(self) -> dict[str, int]:
        return dict(self.sql.rows("SELECT name, value FROM journal_counters"))

    def outcomes(self, after: int, limit: int, kind: str) -> list[OutcomeRow]:
        """Outcomes of one kind with seq > after, in order."""
        query = (
            "SELECT o.seq, d.decision_id, d.client, d.user_key, d.version, d.epoch, o.slot, o.kind, o.reward, "
            "o.events, d.request, d.evidence, d.mode FROM journal_outcomes o JOIN journal_decisions d "
            "ON d.seq = o.decision WHERE o.seq > ? AND o.kind = ? ORDER BY o.seq LIMIT ?"
        )
        return [OutcomeRow(*row) for row in self.sql.rows(query, (after, kind, limit))]

    def finals(self, after: int, through: int, limit: int) -> list[Final]:
        """Outcomes of all kinds with after < seq <= through and their decisions, in order."""
        query = (
            "SELECT o.seq, d.decision_id, d.client, d.at, d.mode, o.slot, o.kind, o.reward, o.events, "
            "d.request, d.answer, d.evidence FROM journal_outcomes o JOIN journal_decisions d "
            "ON d.seq = o.decision WHERE o.seq > ? AND o.seq <= ? ORDER BY o.seq LIMIT ?"
        )
        return [Final(*row) for row in self.sql.rows(query, (after, through, limit))]

    def last_outcome(self) -> int:
        """The greatest seq of an outcome, 0 where there is none."""
        return int(self.sql.one("SELECT max(seq) FROM journal_outcomes") or 0)

    def decision(self, decision_id: str) -> DecisionRecord | None:
        """A decision as it was kept, None where there is none of this id."""
        query = (
            "SELECT decision_id, client, user_key, request_id, version, epoch, slots, request, answer, evidence, "
            "mode, shadow FROM journal_decisions WHERE decision_id = ?"
        )
        rows = self.sql.rows(query, (decision_id,))
        return DecisionRecord(*rows[0]) if rows else None

    def answer(self, client: str, request_id: str, request: str) -> Repeat | None:
        """The stored answer to a request_id, and whether its request was `request`; None where it is new."""
        query = "SELECT request, answer FROM journal_decisions WHERE client = ? AND request_id = ?"
        rows = self.sql.rows(query, (client, request_id))
        return Repeat(rows[0][1], json.loads(rows[0][0]) == json.loads(request)) if rows else None

    def shown(self, client: str, user: str, since_s: float, after_seq: int) -> list[Shown]:
        """What a user was shown at or after `since_s` (server time) by decisions with seq > after_seq, in order."""
        query = (
            "SELECT seq, at, answer FROM journal_decisions "
            "WHERE client = ? AND user_key = ? AND seq > ? AND at >= ? ORDER BY seq"
        )
        rows = self.sql.rows(query, (client, user, after_seq, since_s))
        return [Shown(seq, at, tuple(s["item_id"] for s in from_json(answer)["slots"])) for seq, at, answer in rows]

    def clients(self) -> list[str]:
        """All for whom anything was ever decided."""
        return [client for (client,) in self.sql.rows("SELECT DISTINCT client FROM journal_decisions ORDER BY client")]

    def agreements(self) -> dict[str, Agreement]:
        """By client, over all decisions that an engine made beside a baseline."""
        rows = self.sql.rows("SELECT client, compared, agreed, propensity FROM journal_agreements ORDER BY client")
        return {row[0]: Agreement(*row[1:]) for row in rows}

    def agreement(self, client: str) -> Agreement | None:
        """As `agreements`, of one client."""
        rows = self.sql.rows("SELECT compared, agreed, propensity FROM journal_agreements WHERE client = ?", (client,))
        return Agreement(*rows[0]) if rows else None

    def changes(self, after: int) -> list[tuple[int, ItemRecord]]:
        """Catalogue changes with revision > after, in order."""
        query = "SELECT revision, client, item_id, body FROM journal_items WHERE revision > ? ORDER BY revision"
        return [(row[0], ItemRecord(*row[1:])) for row in self.sql.rows(query, (after,))]
