"""The only `ray.init`: a local Ray, or a cluster that is there; token authentication on; loopback only.

Ray is imported here after its environment is set, because it reads RAY_AUTH_MODE and its address rules
while it is imported. So call `start` (or `prepare`) before the first `import ray` of a process.
"""

import contextlib
import json
import os
import secrets
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster import ingress
from cluster.config import Settings
from cluster.errors import ClusterError

NAMESPACE = "medley"
ROOT = Path(__file__).resolve().parents[1]
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""One BLAS thread: equal bits from equal steps, and no contention between actors."""
_CLUSTER_SWITCH = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Ray's own switch between one machine ("0": every port of a local Ray binds 127.0.0.1) and a cluster."""


@dataclass(frozen=True)
class Session:
    """A connected Ray: where it is, whether it was started here, and what it has."""

    address: str
    local: bool
    cpus: float
    gpus: float


def prepare(settings: Settings) -> str | None:
    """Set Ray's environment and token for this process and its children; returns the address to join.

    Raises:
        ClusterError: there is a cluster to join but no token for it.
    """
    address = settings.cluster.address or os.environ.get("RAY_ADDRESS") or None
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # .rayignore says what a job does not get; Ray's own list of the same would warn at every upload.
    os.environ.setdefault("RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES", "__pycache__")
    if address is None:
        os.environ.setdefault(_CLUSTER_SWITCH, "0")
    if os.environ["RAY_AUTH_MODE"] == "token":
        ensure_token(create=address is None)
    return address


def token_path() -> Path:
    """Where Ray looks for the token when RAY_AUTH_TOKEN is not set."""
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")


def ensure_token(create: bool) -> None:
    """See that Ray finds a token that only this user can read; make one where `create`.

    Raises:
        ClusterError: there is none and none may be made (a remote cluster has its own).
    """
    if os.environ.get("RAY_AUTH_TOKEN"):
        return
    path = token_path()
    if path.exists():
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
    elif create:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        aside = path.with_name(f"{path.name}.{os.getpid()}")
        aside.touch(mode=0o600)
        aside.write_text(secrets.token_hex(32))
        with contextlib.suppress(FileExistsError):  # the first of two writers wins
            os.link(aside, path)
        aside.unlink()
    else:
        raise ClusterError(
            f"no token for the Ray cluster at {path}: copy the head node's ~/.ray/auth_token there, set "
            "RAY_AUTH_TOKEN, or set RAY_AUTH_MODE=disabled for a cluster without authentication"
        )


def environment(settings: Settings) -> dict[str, str]:
    """Variables of every job, actor and replica: one BLAS thread, absolute paths, authentication."""
    variables = {
        **THREADS,
        "MEDLEY_HOME": str(settings.home),
        "RAY_AUTH_MODE": os.environ.get("RAY_AUTH_MODE", "token"),
        "TOKENIZERS_PARALLELISM": "false",
    }
    if settings.database_url:
        variables["MEDLEY_DATABASE_URL"] = settings.database_url
    return variables


def joining(found: Session) -> dict[str, str]:
    """Variables with which a program joins this Ray."""
    return {"RAY_ADDRESS": found.address, **({_CLUSTER_SWITCH: "0"} if found.local else {})}


def start(settings: Settings) -> Session:
    """Connect this process to Ray: to the configured address or RAY_ADDRESS, else start a local one.

    A second call in the same process returns what is there.

    Raises:
        ClusterError: nothing answers at the address, it refuses the token, or no local Ray will start.
    """
    address = prepare(settings)
    import ray
    from ray.exceptions import RayError

    if not ray.is_initialized():
        common: dict[str, Any] = {
            "namespace": NAMESPACE,
            "runtime_env": runtime_env(settings, local=address is None or os.environ.get(_CLUSTER_SWITCH) == "0"),
            "log_to_driver": settings.cluster.log_to_driver,
            "logging_level": "WARNING",
        }
        try:
            if address is None:
                settings.folder("ingress")
                ingress.end_left_behind(settings.home)
                ray.init(
                    address="local",
                    num_cpus=settings.cluster.cpus,
                    object_store_memory=settings.cluster.object_store_bytes,
                    include_dashboard=settings.cluster.dashboard,
                    dashboard_host="127.0.0.1",
                    _metrics_export_port=settings.cluster.metrics_port,
                    **common,
                )
            else:
                _reachable(address)
                ray.init(address=address, **common)
        except (RayError, ConnectionError, RuntimeError, ValueError, OSError) as error:
            where = f"the Ray cluster at {address}" if address else "a local Ray"
            raise ClusterError(f"cannot reach {where}: {_first_line(error)}") from error
    resources = ray.cluster_resources()
    return Session(
        address=ray.get_runtime_context().gcs_address,
        local=address is None,
        cpus=float(resources.get("CPU", 0)),
        gpus=float(resources.get("GPU", 0)),
    )


def stop() -> None:
    """Leave Ray; a local one that `start` started ends with it."""
    if "ray" in sys.modules:
        sys.modules["ray"].shutdown()


@contextmanager
def opened(settings: Settings) -> Iterator[Session]:
    """`start` on the way in, `stop` on the way out."""
    try:
        yield start(settings)
    finally:
        stop()


def runtime_env(settings: Settings, *, local: bool) -> dict[str, Any]:
    """What workers get: the packages (by path here, as an uploaded copy elsewhere) and `environment`.

    Inside a Ray job the job's own runtime_env already carries the packages; Ray refuses a key given twice.
    """
    variables = environment(settings)
    job = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR") or "{}").get("runtime_env")
    if job is not None:
        given = job.get("env_vars") or {}
        return {"env_vars": {key: value for key, value in variables.items() if key not in given}}
    if local:
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {"env_vars": variables | {"PYTHONPATH": os.pathsep.join(paths)}}
    return {"working_dir": str(ROOT), "env_vars": variables}


def _reachable(address: str) -> None:
    """Fail at once where nothing listens; ray.init alone would try for a minute."""
    host, _, port = address.rpartition(":")
    if address == "auto" or "://" in address or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        raise ConnectionError(
            f"nothing answers ({error}); start it with `ray start --head`, or unset RAY_ADDRESS and "
            "cluster.address for a local one"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
