"""Ray jobs: submit, follow, stop. A job runs on the cluster in its own copy of this repository.

`medley submit compose ARGS` and `ray job submit --working-dir . -- python -m tune.compose ARGS` are the same
job; this one also carries one BLAS thread, MEDLEY_HOME and the database URL along.
"""

import asyncio
import logging
import shlex
import time
from collections.abc import Callable, Sequence
from typing import Any

from cluster import session
from cluster.config import Settings
from cluster.errors import JobError

MODULES = {
    "compose": "tune.compose",
    "embed": "tune.embed",
    "ppo": "tune.ppo",
    "refine": "tune.refine",
    "regroup": "tune.regroup",
    "rehearse": "tune.rehearse",
    "sweep": "tune.sweep",
    "what-if": "tune.what_if",
    "drive": "tune.drive",
    "export": "cluster.export",
    "report": "tune.report",
}
"""What can be submitted by name, as the module that `python -m` starts."""

_AGENT_TIMEOUT_S = 60.0
_RECONNECT_S = 1.0


class Jobs:
    """The job server of a Ray cluster.

    Args:
        address: http://host:8265, host:port of the cluster, or None for the configured one, RAY_ADDRESS, or
            the one that runs on this machine.

    Raises:
        JobError: no job server answers there, or it refuses the token.
    """

    def __init__(self, settings: Settings, address: str | None = None) -> None:
        self._settings = settings
        where = address or settings.cluster.address
        session.prepare(settings)
        from ray.exceptions import AuthenticationError
        from ray.job_submission import JobSubmissionClient

        for name in ("ray", JobSubmissionClient.__module__):  # their notes would mix with the job's log
            logging.getLogger(name).setLevel(logging.WARNING)
        try:
            self._client: Any = JobSubmissionClient(None if where == "auto" else where)
        except AuthenticationError as error:
            raise JobError(
                f"the job server refuses the token ({_first(error)}): put the head node's token in "
                f"{session.token_path()} or RAY_AUTH_TOKEN"
            ) from error
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise JobError(
                f"no job server at {where or 'this machine'}: {_line(error)}; start one with "
                "`RAY_AUTH_MODE=token ray start --head`, or give its address with --address"
            ) from error

    def submit(self, name: str, arguments: Sequence[str], runtime_env: dict[str, Any] | None = None) -> str:
        """Start `python -m <module of name> ARGUMENTS` on the cluster; returns the job's id.

        Raises:
            JobError: the name is none of MODULES, or the cluster takes no job within a minute.
        """
        if name not in MODULES:
            raise JobError(f"no job {name!r}; there are {', '.join(MODULES)}")
        entrypoint = shlex.join(["python", "-m", MODULES[name], *arguments])
        environment = runtime_env or session.runtime_env(self._settings, local=False)
        return self._patiently(lambda: str(self._client.submit_job(entrypoint=entrypoint, runtime_env=environment)))

    def follow(self, job_id: str, write: Callable[[str], object]) -> int:
        """Hand the log to `write` as it grows; returns the exit code of the job's process at its end."""
        asyncio.run(self._tail(job_id, write))
        return self.exit_code(job_id)

    def status(self, job_id: str) -> str:
        """PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED."""
        return str(self._info(job_id).status.value)

    def exit_code(self, job_id: str) -> int:
        """The exit code of a job's process; 1 where it never had one."""
        info = self._info(job_id)
        if info.driver_exit_code is not None:
            return int(info.driver_exit_code)
        return 0 if info.status.value == "SUCCEEDED" else 1

    def stop(self, job_id: str, timeout_s: float = 30.0) -> str:
        """Ask a job to end and wait for it; returns its status then."""
        self._info(job_id)
        self._client.stop_job(job_id)
        deadline = time.monotonic() + timeout_s
        while not self._info(job_id).status.is_terminal() and time.monotonic() < deadline:
            time.sleep(0.2)
        return self.status(job_id)

    def _info(self, job_id: str) -> Any:
        try:
            return self._client.get_job_info(job_id)
        except RuntimeError as error:
            raise JobError(f"job {job_id!r}: {_line(error)}; `ray job list` shows what there is") from error

    def _patiently(self, action: Callable[[], str]) -> str:
        """A node's agent needs some seconds after the node itself; until then no job is taken."""
        deadline = time.monotonic() + _AGENT_TIMEOUT_S
        while True:
            try:
                return action()
            except (RuntimeError, ConnectionError) as error:
                missing = "No available agent" in str(error)
                if not missing or time.monotonic() > deadline:
                    hint = "; two Rays on one machine need their own --dashboard-agent-listen-port" if missing else ""
                    raise JobError(f"the cluster did not take the job: {_line(error)}{hint}") from error
                time.sleep(_RECONNECT_S)

    async def _tail(self, job_id: str, write: Callable[[str], object]) -> None:
        """Follow by web socket; after a broken connection go on behind what was written already."""
        written = 0
        while True:
            skip = written
            try:
                async for text in self._client.tail_job_logs(job_id):
                    write(text[skip:])
                    written += max(0, len(text) - skip)
                    skip = max(0, skip - len(text))
            except (RuntimeError, OSError) as error:
                if not self._info(job_id).status.is_terminal() and "does not exist" in str(error):
                    raise JobError(f"job {job_id!r}: {_line(error)}") from error
            if self._info(job_id).status.is_terminal():
                write(str(self._client.get_job_logs(job_id))[written:])
                return
            await asyncio.sleep(_RECONNECT_S)


def _first(error: Exception) -> str:
    return str(error).strip().partition(". ")[0].partition("\n")[0]


def _line(error: Exception) -> str:
    """The last line that says something: Ray puts a remote traceback before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
