import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from cluster import scheduling
from cluster.cli import main
from cluster.config import ScheduledJob, Settings, load
from cluster.database import Database, upgrade
from cluster.errors import ConfigError
from cluster.schedule import LEASE, Child, Scheduler, Schedules, State, due, next_at

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)


class Done:
    """A job that ends when told to."""

    def __init__(self) -> None:
        self.code: int | None = None
        self.ended = False

    def poll(self) -> int | None:
        return self.code

    def terminate(self) -> None:
        self.ended = True


@pytest.fixture(params=["sqlite", "postgres"])
def schedules(request: pytest.FixtureRequest, tmp_path: Path):
    url = (
        str(request.getfixturevalue("postgres_url"))
        if request.param == "postgres"
        else f"sqlite:///{tmp_path / 'metadata.db'}"
    )
    upgrade(url)
    with Database(url) as database:
        yield Schedules(database)


def scheduler(schedules: Schedules, jobs: dict[str, ScheduledJob], started: list[Done], rewards=lambda: 0) -> Scheduler:
    def start(name: str, job: ScheduledJob) -> Child:
        started.append(Done())
        return started[-1]

    return Scheduler(jobs, schedules, start, rewards)


def test_when_a_job_is_due() -> None:
    every, daily, counted = ScheduledJob(every_s=3600), ScheduledJob(at="03:30"), ScheduledJob(every_rewards=100)
    state = State("x", since=START)
    assert not due(every, state, START + HOUR - timedelta(seconds=1), 0)
    assert due(every, state, START + HOUR, 0)
    assert next_at(daily, state) == datetime(2026, 3, 2, 3, 30, tzinfo=UTC)
    before_dawn = State("x", since=START, started_at=datetime(2026, 3, 2, 2, 0, tzinfo=UTC))
    assert next_at(daily, before_dawn) == datetime(2026, 3, 2, 3, 30, tzinfo=UTC)
    assert not due(counted, State("x", since=START, rewards=50), START, 149)
    assert due(counted, State("x", since=START, rewards=50), START, 150)


def test_paused_running_and_wanted() -> None:
    job, late = ScheduledJob(every_s=1), START + HOUR
    assert not due(job, State("x", since=START, paused=True), late, 0)
    assert due(job, State("x", since=START, paused=True, wanted=True), late, 0)
    assert not due(job, State("x", since=START, wanted=True, lease_until=late + HOUR), late, 0)
    assert due(job, State("x", since=START, lease_until=late), late, 0)  # a lease that ran out is nobody's


@given(st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)), st.integers(0, 23), st.integers(0, 59))
def test_the_time_of_day_comes_within_a_day_of_the_last_start(last: datetime, hour: int, minute: int) -> None:
    found = next_at(ScheduledJob(at=f"{hour:02}:{minute:02}"), State("x", since=last.replace(tzinfo=UTC)))
    assert timedelta(0) < found - last.replace(tzinfo=UTC) <= timedelta(days=1)
    assert (found.hour, found.minute, found.second) == (hour, minute, 0)


def test_one_run_at_a_time_whoever_looks(schedules: Schedules) -> None:
    jobs, started = {"nightly": ScheduledJob(every_s=3600)}, []
    one, two = (scheduler(schedules, jobs, started) for _ in range(2))
    now = datetime.now(UTC)
    assert one.tick(now) == []
    now += HOUR + timedelta(seconds=1)
    assert one.tick(now) == ["nightly"]
    assert two.tick(now) == []
    for _ in range(10):  # ten minutes, far longer than a lease, and looked after all the time
        now += LEASE / 2
        assert one.tick(now) == two.tick(now) == []
    started[0].code = 3
    one.tick(now)
    state = schedules.states(jobs)["nightly"]
    assert (state.code, state.owner, state.lease_until) == (3, None, None)
    assert sorted(one.tick(now + HOUR) + two.tick(now + HOUR)) == ["nightly"]
    assert len(started) == 2


def test_two_that_read_the_same_state_cannot_both_take_it(schedules: Schedules) -> None:
    jobs, now = {"x": ScheduledJob(every_s=1)}, datetime.now(UTC)
    state = schedules.states(jobs)["x"]
    assert schedules.take(state, "one", now, 0)
    assert schedules.end("x", "one", now, 0)  # over before the other gets to it
    assert not schedules.take(state, "two", now, 0)


def test_after_a_crash_another_goes_on_and_the_first_gives_up(schedules: Schedules) -> None:
    jobs, started = {"x": ScheduledJob(every_s=60)}, []
    lost, other = (scheduler(schedules, jobs, started) for _ in range(2))
    now = datetime.now(UTC)
    lost.tick(now)
    now += timedelta(seconds=61)
    assert lost.tick(now) == ["x"]
    assert other.tick(now + LEASE - timedelta(seconds=1)) == []
    now += LEASE + timedelta(seconds=1)
    assert other.tick(now) == ["x"]
    lost.tick(now)  # it was only asleep: its run ends, the other's goes on
    assert [child.ended for child in started] == [True, False]
    assert schedules.states(jobs)["x"].lease_until == now + LEASE


def test_every_n_rewards_counts_from_the_last_start(schedules: Schedules) -> None:
    count, started = [1_000], []
    jobs = {"fine-tune": ScheduledJob(every_rewards=100)}
    only = scheduler(schedules, jobs, started, lambda: count[0])
    now = datetime.now(UTC)
    assert only.tick(now) == []  # what was there before the schedule does not count
    count[0] = 1_100
    assert only.tick(now) == ["fine-tune"]
    started[0].code = 0
    count[0] = 1_199
    assert only.tick(now) == []
    count[0] = 1_200
    assert only.tick(now) == ["fine-tune"]


def test_a_job_that_cannot_start_is_noted_and_the_others_run(schedules: Schedules) -> None:
    started: list[str] = []

    def start(name: str, job: ScheduledJob) -> Child:
        if name == "a":
            raise OSError("no such program")
        started.append(name)
        return Done()

    jobs = {"a": ScheduledJob(every_s=1), "b": ScheduledJob(every_s=1)}
    only = Scheduler(jobs, schedules, start, lambda: 0)
    now = datetime.now(UTC)
    only.tick(now)
    assert only.tick(now + HOUR) == ["a", "b"]
    assert started == ["b"]
    assert schedules.states(jobs)["a"].code == 127


def test_configuration_says_when_once(tmp_path: Path) -> None:
    for text in ("{}", "{every_s: 5, at: '03:00'}", "{at: '24:00'}", "{every_rewards: 0}"):
        path = tmp_path / "settings.yaml"
        path.write_text(f"schedule: {{nightly: {text}}}")
        with pytest.raises(ConfigError, match=r"schedule\.nightly"):
            load(path)


def test_commands_list_pause_and_want(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setenv("MEDLEY_HOME", str(tmp_path))
    path = tmp_path / "settings.yaml"
    path.write_text("schedule: {nightly: {job: compose, arguments: [--data, shop], at: '03:00'}}")

    def say(*words: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main(["schedule", *words, "--config", str(path)])
        out = capsys.readouterr()
        return f"{ended.value.code} {out.out}{out.err}"

    assert "compose --data shop" in say("list", "--json")
    assert say("pause", "nightly").startswith("0")
    assert '"paused"' in say("list", "--json")
    assert say("resume", "nightly").startswith("0")
    assert say("run", "nightly").startswith("0")
    assert "no scheduled job 'other'; configured: nightly" in say("pause", "other")


def test_a_job_runs_as_a_process_with_a_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(scheduling.MODULES, "hello", "this")  # the standard library's, it prints a poem
    settings = Settings.model_validate({"home": tmp_path, "schedule": {"poem": {"job": "hello", "every_s": 3600}}})

    class Holder:
        def adopt(self, pid: int) -> None:
            self.pid = pid

    holder = Holder()
    scheduling.steer(settings, "poem", wanted=True)
    with scheduling.ticking(settings, Console(quiet=True), tmp_path / "settings.yaml", holder) as tick:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and scheduling.listed(settings)[0]["code"] != 0:
            tick()
            time.sleep(0.05)
    assert "Zen of Python" in (tmp_path / "schedule" / "poem.log").read_text()
    wrong = settings.model_copy(update={"schedule": {"x": ScheduledJob(job="dance", every_s=1)}})
    with (
        pytest.raises(ConfigError, match=r"schedule\.x\.job = 'dance'"),
        scheduling.ticking(wrong, Console(quiet=True), tmp_path / "s.yaml"),
    ):
        pass


def test_the_scheduler_runs_in_the_foreground_until_it_is_told_to_end(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cluster.cli", "schedule", "run"]
    with subprocess.Popen(command, env={"MEDLEY_HOME": str(tmp_path), "PATH": ""}, stderr=subprocess.PIPE) as child:
        assert child.stderr is not None
        assert b"scheduling nothing" in child.stderr.readline()
        child.terminate()
        assert child.wait(timeout=30) == 0
