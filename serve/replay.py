"""A decision made again from what was logged of it, and compared with what was answered.

    python -m serve.replay DECISION_ID [--config settings.yaml] [--json]

Version, epoch, seed and request are in the journal. The learner's state at the epoch is rebuilt from the outcomes
that it had applied then, the client's catalogue from the changes that the decision knew. With --json, standard output
is {"same": true, "stored": {...}, "again": {...}, ...}; the exit code is 1 where the two differ.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from actors.bandits.version import Version
from cluster import config
from cluster.config import ClientMode, Settings
from cluster.errors import JournalError, MedleyError, StateError
from cluster.journal.journal import DecisionRecord, Reader, journal_url
from cluster.registry import DEFAULT_NAME, Registry
from serve.decide import Engine
from serve.decisions import evidence
from serve.decisions.asked import Asked, Code
from serve.decisions.current import load
from serve.decisions.rebuilt import Rebuilt, rebuilt
from serve.messages import DecisionRequest
from serve.releases import Releases


@dataclass(frozen=True)
class Replayed:
    """The stored answer and the one made again; `outcomes` had been learned, up to number `seq` of the journal.

    tried: states that were made; more than one where the publication was pruned and had to be found.
    """

    stored: dict[str, Any]
    again: dict[str, Any]
    epoch: int
    seq: int
    outcomes: int
    tried: int = 1

    @property
    def same(self) -> bool:
        return self.stored == self.again

    def facts(self) -> dict[str, Any]:
        about = {"epoch": self.epoch, "seq": self.seq, "outcomes": self.outcomes, "tried": self.tried}
        return {"same": self.same, **about, "stored": self.stored, "again": self.again}


def replay(settings: Settings, reader: Reader, version: Callable[[int], Version], decision_id: str) -> Replayed:
    """Decide again.

    Raises:
        JournalError: there is no such decision.
        StateError: what the learner had published then is not to be found.
    """
    record = reader.decision(decision_id)
    if record is None:
        raise JournalError(f"no decision {decision_id!r} in the journal; give the decision_id of an answer")
    engine, generator = Engine(settings.seed, settings.serve.max_items), None
    if record.version is not None:
        made = version(record.version)
        engine.install(load(record.version, made))
        generator = made.reader
    asked = asked_again(record, generator)
    _catalogue(engine, reader, record)
    states = rebuilt(settings, reader, version, record) if record.version and record.epoch > 1 else [_UNLEARNED]
    found = None
    for tried, state in enumerate(states, 1):
        for update in state.updates:
            engine.publish(update)
        again = engine.decide_many([asked])[0]
        found = Replayed(_whole(record), _whole(again), record.epoch, state.seq, state.outcomes, tried)
        if found.same:
            break
    if found is None:
        raise StateError(f"decision {decision_id}: the journal has no outcome that publication {record.epoch} learned")
    return found


_UNLEARNED = Rebuilt(0, 0, [])


def asked_again(record: DecisionRecord, generator: tuple[str, int] | None) -> Asked:
    """The request with what was known of it when it was decided; `generator` is that of its version, if one reads."""
    request = DecisionRequest.model_validate_json(record.request)
    mode = "live" if record.mode == "baseline" else cast(ClientMode, record.mode)
    beside = _beside(record)
    part, seen, forgotten, text = (beside.get(name) for name in ("part", "seen", "forgotten", "code"))
    if record.evidence is not None and mode == "live":
        known = evidence.unpack(record.evidence)
        part, seen, forgotten, text = known.part, known.seen, known.forgotten, known.code
    code = Code(generator, evidence.unpack_numbers(text)) if generator and text else None
    terms: dict[str, Any] = {"scored": part, "seen": seen or (), "forgotten": bool(forgotten), "code": code}
    return Asked(record.client, request, record.decision_id, mode=mode, reason=beside.get("reason"), **terms)


def _whole(record: DecisionRecord) -> dict[str, Any]:
    """The answer, and beside a baseline's what the engine chose."""
    answer: dict[str, Any] = json.loads(record.answer)
    return answer if record.shadow is None else {**answer, "shadow": _beside(record)}


def _beside(record: DecisionRecord) -> dict[str, Any]:
    """What is kept beside a baseline's answer."""
    return json.loads(record.shadow) if record.shadow is not None else {}


def _catalogue(engine: Engine, reader: Reader, record: DecisionRecord) -> None:
    """The client's items as the decision knew them."""
    known = _beside(record).get("revision", 0)
    if record.evidence is not None:
        known = evidence.unpack(record.evidence).revision
    for revision, change in reader.changes(0):
        if change.client == record.client and revision <= known:
            engine.change(change.client, change.item_id, change.body, revision)
    engine.rebuild(record.client)


def main() -> int:
    parser = argparse.ArgumentParser(prog="serve.replay", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("decision_id")
    parser.add_argument("--config", type=Path, help="settings in YAML")
    parser.add_argument("--json", action="store_true", help="print one JSON line")
    parser.add_argument("--name", default=DEFAULT_NAME, help="name of the versions in the registry")
    arguments = parser.parse_args()
    try:
        settings = config.load(arguments.config)
        releases = Releases(Registry(settings.registry_uri), arguments.name)
        found = replay(settings, Reader(journal_url(settings)), releases.load, arguments.decision_id)
    except MedleyError as error:
        print(f"replay: {error}", file=sys.stderr)
        return 2
    if arguments.json:
        print(json.dumps(found.facts()))
    else:
        show(found)
    return 0 if found.same else 1


def show(found: Replayed) -> None:
    """Both answers, slot by slot."""
    stored = found.stored
    title = f"decision {stored['decision_id']}: {stored['mode']}, version {stored['version']}, epoch {found.epoch}"
    table = Table("slot", "item", "propensity", "score", "again", "propensity", "score", title=title)
    for name, slots, again in _pairs(found):
        for number, (one, two) in enumerate(zip(slots, again, strict=True)):
            cells = [_cell(slot[key]) for slot in (one, two) for key in ("item_id", "propensity", "score")]
            table.add_row(f"{name}{number}", *cells, style="" if one == two else "bold red")
    console = Console()
    console.print(table)
    verdict = "[green]the same, to the bit[/]" if found.same else "[red]not the same[/]"
    console.print(f"{verdict}; {found.outcomes:,} outcomes had been learned, up to {found.seq} of the journal")
    if found.tried > 1:
        console.print(
            f"publication {found.epoch} was pruned from the ledger: {found.tried:,} states were made to find it"
        )


def _pairs(found: Replayed) -> list[tuple[str, list[dict[str, Any]], list[dict[str, Any]]]]:
    """Slots of the answer, and of the engine beside a baseline, as stored and as made again."""
    stored, again = found.stored, found.again
    pairs = [("", stored["slots"], again["slots"])]
    if "slots" in stored.get("shadow", {}):
        pairs.append(("beside ", stored["shadow"]["slots"], again["shadow"]["slots"]))
    return pairs


def _cell(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else escape(str(value))


if __name__ == "__main__":
    sys.exit(main())
