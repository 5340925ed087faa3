"""Recurring jobs: by interval, by time of day, or every n final rewards; one run of a job at a time.

A row of the database keeps when a job last started, and a lease while it runs. A scheduler that finds a job due takes
its lease in one statement, which only one of several can, renews it while the job runs, and ends the job where it
finds the lease lost. After a crash the lease runs out, and the job is due by the same rule as before: what was missed
meanwhile runs once.
"""

import logging
import os
import secrets
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from sqlalchemy import CursorResult, or_, select, update

from cluster.config import ScheduledJob
from cluster.database import Database
from cluster.errors import ConfigError, MedleyError
from cluster.tables import Schedule, now

log = logging.getLogger(__name__)

LEASE = timedelta(seconds=60)


@dataclass(frozen=True)
class State:
    """What is known of a job's runs; `since` is when the schedule was first seen."""

    name: str
    since: datetime
    paused: bool = False
    wanted: bool = False
    started_at: datetime | None = None
    ended_at: datetime | None = None
    code: int | None = None
    rewards: int = 0
    owner: str | None = None
    lease_until: datetime | None = None

    def running(self, moment: datetime) -> bool:
        return self.lease_until is not None and self.lease_until > moment


def due(job: ScheduledJob, state: State, moment: datetime, rewards: int) -> bool:
    """Whether a job should start now.

    Args:
        rewards: final rewards in the journal.
    """
    if state.running(moment):
        return False
    if state.wanted:
        return True
    if state.paused:
        return False
    if job.every_rewards is not None:
        return rewards - state.rewards >= job.every_rewards
    return next_at(job, state) <= moment


def next_at(job: ScheduledJob, state: State) -> datetime:
    """The moment from which a job by interval or time of day is due: the first after its last start."""
    last = state.started_at or state.since
    if job.every_s is not None:
        return last + timedelta(seconds=job.every_s)
    hour, minute = map(int, (job.at or "").split(":"))
    today = last.replace(hour=hour, minute=minute, second=0, microsecond=0)
    return today if today > last else today + timedelta(days=1)


class Child(Protocol):
    """A job that was started; a `subprocess.Popen` is one."""

    def poll(self) -> int | None: ...

    def terminate(self) -> None: ...


class Schedules:
    """The states in the database. Every method may raise DatabaseError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def states(self, names: Mapping[str, ScheduledJob], rewards: int = 0) -> dict[str, State]:
        """The state of each configured job; one that is new starts counting now."""
        with self._database.session() as session:
            rows = {row.name: row for row in session.scalars(select(Schedule))}
            for name in names.keys() - rows.keys():
                rows[name] = session.merge(Schedule(name=name, paused=False, wanted=False, rewards=rewards))
            session.flush()
            return {name: _state(rows[name]) for name in names}

    def take(self, state: State, owner: str, moment: datetime, rewards: int) -> bool:
        """Take the lease and note the start, if nobody has since `state` was read."""
        free = or_(Schedule.lease_until.is_(None), Schedule.lease_until <= moment)
        same = Schedule.started_at.is_(None) if state.started_at is None else Schedule.started_at == state.started_at
        values = {"owner": owner, "lease_until": moment + LEASE, "started_at": moment, "rewards": rewards}
        ends = {"ended_at": None, "code": None, "wanted": False}
        return self._change(update(Schedule).where(Schedule.name == state.name, free, same).values(**values, **ends))

    def renew(self, name: str, owner: str, moment: datetime) -> bool:
        """Keep the lease; False where it is another's."""
        return self._change(_owned(name, owner).values(lease_until=moment + LEASE))

    def end(self, name: str, owner: str, moment: datetime, code: int) -> bool:
        """Note the end and give the lease back."""
        return self._change(_owned(name, owner).values(ended_at=moment, code=code, owner=None, lease_until=None))

    def steer(self, name: str, **values: bool) -> None:
        """Set `paused` or `wanted` (run once, as soon as a scheduler sees it)."""
        self._change(update(Schedule).where(Schedule.name == name).values(**values))

    def _change(self, statement: Any) -> bool:
        with self._database.session() as session:
            result = session.execute(statement)
            assert isinstance(result, CursorResult)
            return result.rowcount == 1


def _owned(name: str, owner: str) -> Any:
    return update(Schedule).where(Schedule.name == name, Schedule.owner == owner)


def _state(row: Schedule) -> State:
    names = ("paused", "wanted", "started_at", "ended_at", "code", "rewards", "owner", "lease_until")
    return State(row.name, row.created_at, **{name: getattr(row, name) for name in names})


def check_name(name: str, jobs: Mapping[str, ScheduledJob]) -> None:
    """Raises ConfigError for a job that the configuration does not have."""
    if name not in jobs:
        known = ", ".join(jobs) or "none"
        raise ConfigError(f"no scheduled job {name!r}; configured: {known} (the section `schedule` of the settings)")


class Scheduler:
    """Starts what is due. `tick` is called again and again, from one thread.

    Args:
        start: starts a job by the name of its schedule.
        rewards: reads the number of final rewards.
    """

    def __init__(
        self,
        jobs: Mapping[str, ScheduledJob],
        schedules: Schedules,
        start: Callable[[str, ScheduledJob], Child],
        rewards: Callable[[], int],
    ) -> None:
        self._jobs, self._schedules, self._start, self._rewards = jobs, schedules, start, rewards
        self._owner = f"{socket.gethostname()[:32]}:{os.getpid()}:{secrets.token_hex(4)}"
        self._children: dict[str, Child] = {}

    def tick(self, moment: datetime | None = None) -> list[str]:
        """Note what has ended, keep the leases of what runs, start what is due; returns the names started."""
        moment = moment or now()
        self._look_after(moment)
        rewards = self._rewards()
        started = []
        for name, state in self._schedules.states(self._jobs, rewards).items():
            if name in self._children or not due(self._jobs[name], state, moment, rewards):
                continue
            if self._schedules.take(state, self._owner, moment, rewards):
                self._begin(name, moment)
                started.append(name)
        return started

    def _begin(self, name: str, moment: datetime) -> None:
        try:
            self._children[name] = self._start(name, self._jobs[name])
        except (MedleyError, OSError):
            log.exception("scheduled job %r could not be started", name)
            self._schedules.end(name, self._owner, moment, 127)

    def _look_after(self, moment: datetime) -> None:
        for name, child in list(self._children.items()):
            code = child.poll()
            if code is not None:
                self._schedules.end(name, self._owner, moment, code)
                del self._children[name]
            elif not self._schedules.renew(name, self._owner, moment):
                child.terminate()  # another took it over: two runs of a job would undo each other
                del self._children[name]

    def stop(self) -> None:
        """End what runs. It is due again by its own rule."""
        for name, child in self._children.items():
            child.terminate()
            self._schedules.end(name, self._owner, now(), -15)
        self._children.clear()
