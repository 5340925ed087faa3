import contextlib
import os
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from cluster import config, session
from cluster.config import Settings
from cluster.errors import ClusterError

ROOT = Path(__file__).parents[1]


def join(extra: dict[str, str], home: Path) -> "subprocess.CompletedProcess[str]":
    """Another process, as a job or a second terminal is one."""
    program = (
        "from cluster import config, session\n"
        "from cluster.errors import MedleyError\n"
        "try: print(session.start(config.load()))\n"
        "except MedleyError as error: print('error:', error)\n"
    )
    environment = {**os.environ, "MEDLEY_HOME": str(home), **extra}
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )


@pytest.mark.ray
def test_a_local_ray_listens_on_loopback_only_and_asks_for_a_token(ray_session: session.Session) -> None:
    import ray

    assert ray_session.local
    assert ray_session.cpus == 2
    assert ray_session.address.startswith("127.0.0.1:")
    assert ray.cluster_resources()["object_store_memory"] == Settings().cluster.object_store_bytes
    listening = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # a worker that ends meanwhile
            found = child.net_connections("tcp")
            listening += [one.laddr[0] for one in found if one.status == psutil.CONN_LISTEN]
    assert len(listening) > 5
    assert {address.removeprefix("::ffff:") for address in listening} == {"127.0.0.1"}


@pytest.mark.ray
def test_workers_get_our_packages_one_thread_and_the_home(ray_session: session.Session) -> None:
    import ray

    @ray.remote
    def look() -> tuple[str, str, str, str]:
        from cluster import errors

        keys = ("OMP_NUM_THREADS", "MEDLEY_HOME", "RAY_AUTH_MODE")
        return (str(errors.__file__), *(os.environ[key] for key in keys))

    place, threads, home, mode = ray.get(look.remote())
    assert Path(place).parents[1] == ROOT
    assert (threads, mode) == ("1", "token")
    assert "ray-home" in home


@pytest.mark.ray
def test_a_second_start_returns_the_first(ray_session: session.Session) -> None:
    assert session.start(Settings()).address == ray_session.address


@pytest.mark.ray
def test_another_process_joins_with_the_token_and_not_with_another(ray_session: session.Session, home: Path) -> None:
    own = session.joining(ray_session)
    with ThreadPoolExecutor() as pool:
        joined, refused = pool.map(join, [own, {**own, "RAY_AUTH_TOKEN": "0" * 64}], [home, home])
    assert f"address='{ray_session.address}', local=False" in joined.stdout, joined.stderr
    assert refused.stdout.startswith("error: cannot reach the Ray cluster at"), refused.stdout + refused.stderr


def test_an_address_where_nothing_answers_fails_at_once(home: Path) -> None:
    start = time.monotonic()
    done = join({"RAY_ADDRESS": "127.0.0.1:1"}, home)
    assert time.monotonic() - start < 20
    assert "nothing answers" in done.stdout
    assert "ray start --head" in done.stdout


def test_the_token_is_made_once_readable_by_its_owner_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ray" / "auth_token"
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(path))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    with pytest.raises(ClusterError, match=r"no token for the Ray cluster at .*copy the head node's"):
        session.ensure_token(create=False)
    session.ensure_token(create=True)
    token = path.read_text()
    assert len(bytes.fromhex(token)) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    session.ensure_token(create=True)
    assert path.read_text() == token
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_a_job_brings_its_own_packages_and_its_variables_are_not_given_twice(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = session.runtime_env(settings, local=False)
    assert far["working_dir"] == str(ROOT)
    assert far["env_vars"]["MEDLEY_HOME"] == str(settings.home)
    here = session.runtime_env(settings, local=True)
    assert "working_dir" not in here
    assert here["env_vars"]["PYTHONPATH"].split(os.pathsep)[0] == str(ROOT)
    monkeypatch.setenv(
        "RAY_JOB_CONFIG_JSON_ENV_VAR",
        '{"runtime_env": {"working_dir": "gcs://_ray_pkg_1.zip", "env_vars": {"OMP_NUM_THREADS": "4"}}}',
    )
    inside = session.runtime_env(settings, local=False)
    assert set(inside) == {"env_vars"}
    assert "OMP_NUM_THREADS" not in inside["env_vars"]
    assert inside["env_vars"]["MEDLEY_HOME"] == str(settings.home)


def test_the_database_url_travels_only_when_it_is_set(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "MEDLEY_DATABASE_URL" not in session.environment(config.load())
    monkeypatch.setenv("MEDLEY_DATABASE_URL", "postgresql+psycopg://db/medley")
    assert session.environment(config.load())["MEDLEY_DATABASE_URL"] == "postgresql+psycopg://db/medley"
