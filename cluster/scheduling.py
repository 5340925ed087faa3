"""The scheduler wired: jobs as processes with a log each, rewards from the journal, errors said and survived."""

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from cluster import config_text, place, programs, session
from cluster.config import ScheduledJob, Settings
from cluster.database import Database, upgrade, url_of
from cluster.errors import ConfigError, MedleyError
from cluster.interrupts import terminable, wait
from cluster.jobs import MODULES
from cluster.journal.journal import Reader, journal_url
from cluster.running import Running
from cluster.schedule import Child, Scheduler, Schedules, check_name, next_at
from cluster.session import Session
from cluster.tables import now


@contextlib.contextmanager
def opened(settings: Settings) -> Iterator[Schedules]:
    """The schedules' states, in a database whose schema is up to date."""
    upgrade(url_of(settings))
    with Database(url_of(settings)) as database:
        yield Schedules(database)


@contextlib.contextmanager
def ticking(
    settings: Settings, console: Console, config: Path, holder: Running | None = None, ray: Session | None = None
) -> Iterator[Callable[[], None]]:
    """A function to be called once a second: it starts what is due.

    Args:
        config: the settings file that jobs get.
        holder, ray: of a `medley serve` on this machine, which its jobs join and end with; without them a job is
            submitted to the cluster.

    Raises:
        ConfigError: the schedule names a job that there is not.
    """
    if not settings.schedule:
        yield lambda: None  # no database to ask once a second
        return
    for name, job in settings.schedule.items():
        if job.job not in MODULES:
            raise ConfigError(f"schedule.{name}.job = {job.job!r}: expected one of {', '.join(MODULES)}")
    logs = settings.folder("schedule")

    def start(name: str, job: ScheduledJob) -> Child:
        own = [sys.executable, "-m", MODULES[job.job], *job.arguments, "--config", str(config)]
        submitted = [sys.executable, "-m", "cluster.cli", "submit", "--config", str(config), job.job, *job.arguments]
        with (logs / f"{name}.log").open("ab") as out:
            child = subprocess.Popen(
                own if holder else submitted,
                cwd=session.ROOT,
                env=programs.environment(settings, ray),
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        if holder:
            holder.adopt(child.pid)
        console.print(f"schedule: {name} started; its log: {logs / name}.log", highlight=False)
        return child

    with opened(settings) as schedules, _rewards(settings) as rewards:
        scheduler = Scheduler(settings.schedule, schedules, start, rewards)
        try:
            yield _said_once(scheduler.tick, console)
        finally:
            scheduler.stop()


def keep_running(settings: Settings, console: Console) -> None:
    """The scheduler in the foreground, until Ctrl-C; jobs go to the cluster."""
    place.check_home(settings.home)
    config = settings.folder("schedule") / "settings.yaml"
    config_text.write(settings, config)
    with contextlib.suppress(KeyboardInterrupt), terminable(), ticking(settings, console, config) as tick:
        console.print(f"scheduling {', '.join(settings.schedule) or 'nothing'} until Ctrl-C", highlight=False)
        wait(tick)


def steer(settings: Settings, name: str, **values: bool) -> None:
    """Pause, resume or want a job. Raises ConfigError for one that is not configured."""
    check_name(name, settings.schedule)
    with opened(settings) as schedules:
        schedules.states(settings.schedule)
        schedules.steer(name, **values)


def listed(settings: Settings) -> list[dict[str, Any]]:
    """Each configured job with when it last ran, how that ended, and when it is due."""
    with opened(settings) as schedules:
        states, moment = schedules.states(settings.schedule), now()
    rows = []
    for name, job in settings.schedule.items():
        state = states[name]
        when = f"every {job.every_rewards:,} rewards" if job.every_rewards else None
        rows.append(
            {
                "name": name,
                "job": " ".join([job.job, *job.arguments]),
                "when": when or (f"at {job.at} UTC" if job.at else f"every {job.every_s:g} s"),
                "state": "running" if state.running(moment) else "paused" if state.paused else "waiting",
                "started_at": state.started_at.isoformat(timespec="seconds") if state.started_at else None,
                "code": state.code,
                "next": None if when or state.paused else next_at(job, state).isoformat(timespec="seconds"),
            }
        )
    return rows


@contextlib.contextmanager
def _rewards(settings: Settings) -> Iterator[Callable[[], int]]:
    """Reads the final rewards so far; 0 where no journal is yet, or where no job counts them."""
    if not any(job.every_rewards for job in settings.schedule.values()):
        yield lambda: 0
        return
    url = journal_url(settings)

    def read() -> int:
        return reader.counts().get("outcomes", 0) if settings.postgres or Path(url).exists() else 0

    with contextlib.closing(Reader(url)) as reader:
        yield read


def _said_once(tick: Callable[[], object], console: Console) -> Callable[[], None]:
    """A database that is away for a while ends no server: its error is said once, and the next tick tries again."""
    said: list[str] = []

    def call() -> None:
        try:
            tick()
            said.clear()
        except MedleyError as error:
            if str(error) not in said:
                console.print(f"schedule: {error}", style="yellow", highlight=False)
                said.append(str(error))

    return call
