"""A world's situations sent as decisions at their times, and the rewards that the answers earn after their delays.

Each situation is asked once, in time order, evenly over the time that there is. Where the server cannot keep
up, calls grow to batches and it is asked as fast as it answers; what is left when time is over stays unasked.
"""

import asyncio
import heapq
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from cluster.config import RewardKind
from tune.caller import Caller
from tune.worlds.base import Situation, Situations, World

TICK_S = 0.02
"""Situations of one client that fall due within a tick share a call."""
BATCH = 16
"""More at a time does not make a busy server faster, only its answers, and the rewards after them, later."""
SPREAD = 0.95
"""Share of the time over which situations fall due: the rest is for catching up."""
LATEST = 0.75
"""Share of the wait window into which delays are scaled: the rest is for the way to the server."""


class Delays:
    """The delays of a world, scaled so that the longest takes `LATEST` of the wait window.

    The longest is looked up among some situations spread over the world; a longer one is cut to it.
    """

    def __init__(self, world: World, items: Sequence[str], window_s: float, looked_at: int = 200):
        self._world = world
        self._longest_s = LATEST * window_s
        rows = range(0, len(world.events), max(1, len(world.events) // looked_at))
        situations = Situations(world.events)
        found = (world.delay_s(row, item) for row in rows for item in (situations[row].candidates or items)[:10])
        longest = max(found, default=0.0)
        self._scale = self._longest_s / longest if longest > 0 else 0.0

    def __call__(self, row: int, item_id: str) -> float:
        """Seconds from the decision in situation `row` to the reward of this item."""
        return min(self._longest_s, self._scale * self._world.delay_s(row, item_id))


@dataclass(frozen=True)
class Plan:
    """When what is asked.

    span_s: nothing is asked after it; situations are spread over its first `SPREAD`.
    window_s: the wait window of rewards. kind_name, kind: the reward kind that models learn from.
    label: makes this run's request ids its own. slots: items asked for in each situation, as far as it has them.
    """

    span_s: float
    kind_name: str
    kind: RewardKind
    label: str
    connections: int = 4
    slots: int = 1

    def due(self, number: int, total: int) -> float:
        return SPREAD * self.span_s * number / max(total, 1)


@dataclass(frozen=True)
class Answer:
    """One slot of a decision: the item, what the server said of it, and when (seconds since the start)."""

    row: int
    position: int
    client: str
    item_id: str
    propensity: float
    models: dict[str, float]
    reward: float
    seconds: float
    version: int | None
    mode: str


@dataclass
class Traffic:
    """What came of it. `left_out`: situations that time did not suffice for."""

    answers: list[Answer] = field(default_factory=list)
    left_out: int = 0
    rewards: int = 0
    duplicates: int = 0
    late: int = 0
    rejected: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def decisions(self) -> int:
        return sum(answer.position == 0 for answer in self.answers)


class Driver:
    """Sends the traffic of one world.

    Args:
        delays: seconds from a decision to its reward, by row and item.
        progress: told the number of answers and of situations.
    """

    def __init__(
        self,
        world: World,
        delays: Callable[[int, str], float],
        plan: Plan,
        caller: Caller,
        progress: Callable[[int, int], None],
    ):
        self._world, self._delays, self._plan, self._caller = world, delays, plan, caller
        self._progress = progress
        self._traffic = Traffic()
        self._waiting: list[_Reward] = []
        self._asking = True
        self._started = 0.0

    async def run(self) -> Traffic:
        """Ask, reward, and wait until the last window has closed.

        Raises ClusterError where the server refuses a request or stops answering.
        """
        self._started = time.monotonic()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._reward_all())
                await self._ask_all()
        except ExceptionGroup as errors:
            raise _first(errors) from errors
        self._traffic.answers.sort(key=lambda answer: answer.row)
        await asyncio.sleep(self._plan.kind.window_s)
        self._traffic.seconds = self._now()
        return self._traffic

    def _now(self) -> float:
        return time.monotonic() - self._started

    async def _ask_all(self) -> None:
        situations, plan = Situations(self._world.events), self._plan
        total, asked = len(situations), 0
        free = asyncio.Semaphore(plan.connections)
        try:
            async with asyncio.TaskGroup() as group:
                while asked < total and self._now() < plan.span_s:
                    ready: list[Situation] = []
                    while asked < total and len(ready) < BATCH and plan.due(asked, total) <= self._now():
                        ready.append(situations[asked])
                        asked += 1
                    for batch in by_client(ready):
                        await _start(group, free, self._ask(batch))
                    if asked < total and len(ready) < BATCH:
                        await asyncio.sleep(max(TICK_S, plan.due(asked, total) - self._now()))
        finally:
            self._asking = False
            self._traffic.left_out = total - asked

    async def _ask(self, batch: Sequence[Situation]) -> None:
        requests = [request(situation, self._plan.label, self._plan.slots) for situation in batch]
        asked = self._now()
        found = await self._caller.post("/v1/decisions", batch[0].client_id, {"requests": requests})
        for situation, decision in zip(batch, found["decisions"], strict=True):
            self._take(situation, decision, asked)
        self._progress(self._traffic.decisions, len(self._world.events))

    def _take(self, situation: Situation, decision: Mapping[str, Any], asked: float) -> None:
        """Note the answers, and when the rewards that they earn are due: delay and window count from the question."""
        now, row = self._now(), situation.row
        for position, slot in enumerate(decision["slots"]):
            reward = self._world.reward(row, slot["item_id"], position)
            self._traffic.answers.append(
                Answer(
                    row=row,
                    position=position,
                    client=situation.client_id,
                    item_id=slot["item_id"],
                    propensity=slot["propensity"],
                    models=slot["models"],
                    reward=reward,
                    seconds=now,
                    version=decision["version"],
                    mode=decision["mode"],
                )
            )
            if reward != self._plan.kind.default:
                due = asked + self._delays(row, slot["item_id"])
                event = self._event(decision["decision_id"], row, position, reward)
                closes = asked + self._plan.kind.window_s
                heapq.heappush(self._waiting, _Reward(due, row, position, situation.client_id, event, closes))

    def _event(self, decision_id: str, row: int, position: int, reward: float) -> dict[str, Any]:
        return {
            "decision_id": decision_id,
            "slot": position,
            "kind": self._plan.kind_name,
            "value": reward,
            "reward_id": f"{self._plan.label}-{row}-{position}",
        }

    async def _reward_all(self) -> None:
        free = asyncio.Semaphore(self._plan.connections)
        async with asyncio.TaskGroup() as group:
            while self._asking or self._waiting:
                due: list[_Reward] = []
                while self._waiting and self._waiting[0].due < self._now() and len(due) < BATCH:
                    due.append(heapq.heappop(self._waiting))
                for batch in by_client(due):
                    await _start(group, free, self._reward(batch))
                if len(due) < BATCH:
                    await asyncio.sleep(TICK_S)

    async def _reward(self, batch: Sequence["_Reward"]) -> None:
        body = {"rewards": [reward.event for reward in batch]}
        found = await self._caller.post("/v1/rewards", batch[0].client_id, body)
        self._traffic.rewards += found["accepted"]
        self._traffic.duplicates += found["duplicates"]
        self._traffic.rejected += [fault["reason"] for fault in found["rejected"]]
        self._traffic.late += sum(reward.closes < self._now() for reward in batch)


@dataclass(frozen=True, order=True)
class _Reward:
    """A reward on its way: when it is to be sent, and when the window of its decision closes."""

    due: float
    row: int
    position: int
    client_id: str = field(compare=False)
    event: dict[str, Any] = field(compare=False)
    closes: float = field(compare=False)


def request(situation: Situation, label: str, slots: int) -> dict[str, Any]:
    """A situation as the body of a decision request."""
    listed = situation.candidates
    found: dict[str, Any] = {
        "context": situation.context,
        "items": None if listed is None else list(listed),
        "slots": slots if listed is None else min(slots, len(listed)),
        "request_id": f"{label}-{situation.row}",
    }
    named = {"user_id": situation.user_id, "session_id": situation.session_id}
    return found | {name: value for name, value in named.items() if value is not None}


class _OfClient(Protocol):
    @property
    def client_id(self) -> str: ...


C = TypeVar("C", bound=_OfClient)


def by_client(entries: Iterable[C]) -> list[list[C]]:
    """The entries of each client in one list, in order of first appearance."""
    found: dict[str, list[C]] = {}
    for entry in entries:
        found.setdefault(entry.client_id, []).append(entry)
    return list(found.values())


async def _start(group: asyncio.TaskGroup, free: asyncio.Semaphore, call: Coroutine[Any, Any, None]) -> None:
    """Start a call as soon as a connection is free."""
    try:
        await free.acquire()
    except BaseException:
        call.close()
        raise
    group.create_task(call).add_done_callback(lambda _: free.release())


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error that is not itself a group."""
    error = errors.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
