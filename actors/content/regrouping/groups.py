"""Which cluster a provider is in, and every move that led there: logged, explained, reversible.

The log is all there is: a provider is where its last standing move put it. Nothing is ever taken out of the log; a
move that is undone stays in it, marked by the number of the one that undid it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from cluster.errors import RequestError, StateError

CURRENT = 1
"""Of the file's format."""


@dataclass(frozen=True)
class Move:
    """A provider comes to a cluster.

    Args:
        number: 1, 2, ... in the order of moves.
        before: where it was; none where it is new.
        day: ISO date.
        reason: one sentence for a person; facts: the numbers behind it.
        undoes: the number of the move that it takes back.
    """

    number: int
    provider: str
    before: str | None
    after: str
    day: str
    reason: str
    facts: Mapping[str, float]
    undoes: int | None = None


@dataclass(frozen=True)
class Groups:
    moves: tuple[Move, ...] = ()

    @cached_property
    def cluster_of(self) -> Mapping[str, str]:
        """The cluster of each provider."""
        return {move.provider: move.after for move in self.moves}

    @cached_property
    def clusters(self) -> tuple[str, ...]:
        """Every cluster there ever was, sorted: one that lost its last provider may be come back to."""
        return tuple(sorted({move.after for move in self.moves}))

    def move(self, provider: str, to: str, day: str, reason: str, facts: Mapping[str, float]) -> "Groups":
        """With a provider placed or moved. Raises RequestError where it is there already."""
        if (before := self.cluster_of.get(provider)) == to:
            raise RequestError(("provider",), f"{provider!r} is in cluster {to!r} already", 409)
        return self._with(Move(len(self.moves) + 1, provider, before, to, day, reason, dict(facts)))

    def undo(self, number: int, day: str) -> "Groups":
        """With a move taken back: its provider is where it was before.

        Raises:
            RequestError: no such move, one that placed a new provider or took back another, or one that is undone
                or was followed by another move of the provider.
        """
        if not 1 <= number <= len(self.moves):
            raise RequestError(("move",), f"there is no move {number}; there are {len(self.moves)}", 404)
        move = self.moves[number - 1]
        if move.before is None or move.undoes is not None:
            raise RequestError(("move",), f"move {number} cannot be undone: it {_kind(move)}", 409)
        if (last := self.standing(move.provider)) != number:
            which = "has been undone" if any(m.undoes == number for m in self.moves) else f"undo move {last} first"
            raise RequestError(("move",), f"move {number} of {move.provider!r} is not its last: {which}", 409)
        reason = f"move {number} is undone"
        return self._with(
            Move(len(self.moves) + 1, move.provider, move.after, move.before, day, reason, {}, undoes=number)
        )

    def standing(self, provider: str) -> int | None:
        """The number of a provider's last move that is not undone."""
        undone = {move.undoes for move in self.moves}
        own = (m.number for m in self.moves if m.provider == provider and m.undoes is None and m.number not in undone)
        return max(own, default=None)

    def members(self, cluster: str) -> tuple[str, ...]:
        return tuple(sorted(name for name, own in self.cluster_of.items() if own == cluster))

    def _with(self, move: Move) -> "Groups":
        return Groups((*self.moves, move))

    def facts(self) -> dict[str, Any]:
        return {"format": CURRENT, "moves": [asdict(move) for move in self.moves]}

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> "Groups":
        """The inverse of `facts`, replayed move by move.

        Raises:
            StateError: moves that do not follow one another.
        """
        try:
            if facts["format"] != CURRENT:
                raise ValueError(f"format {facts['format']}, expected {CURRENT}")
            groups = cls()
            for row in facts["moves"]:
                move = Move(**row)
                if (move.number, move.before) != (len(groups.moves) + 1, groups.cluster_of.get(move.provider)):
                    raise ValueError(f"move {move.number} of {move.provider!r} does not follow the one before")
                groups = groups._with(move)
        except (KeyError, TypeError, ValueError) as error:
            raise StateError(f"not a log of moves ({error}); take an earlier version") from error
        return groups

    def before(self, provider: str, day: str) -> str:
        """The cluster that a provider was in when this day (ISO) began; its first one before it was placed."""
        own = [move for move in self.moves if move.provider == provider]
        earlier = [move for move in own if move.day < day]
        return (earlier[-1] if earlier else own[0]).after


def _kind(move: Move) -> str:
    return "placed a new provider" if move.before is None else f"took back move {move.undoes}"
