"""Shared by all tests: one Ray session, a home of one's own, real data where it is, kills last."""

import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cluster import config, session
from cluster.config import Settings
from tests import servers

if TYPE_CHECKING:
    from tests.served import Served

os.environ.update(session.THREADS)  # before NumPy is imported, as in every job and replica
# Before any test module imports ray: no cluster of the user's, no token in the user's home.
os.environ.pop("RAY_ADDRESS", None)
os.environ["RAY_AUTH_TOKEN_PATH"] = str(Path(tempfile.mkdtemp(prefix="medley-tests-")) / "auth_token")
session.prepare(Settings())


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A MEDLEY_HOME for this test alone."""
    monkeypatch.setenv("MEDLEY_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MEDLEY_DATABASE_URL", raising=False)
    return tmp_path / "home"


@pytest.fixture
def settings(home: Path) -> Settings:
    return config.load()


@pytest.fixture(scope="session")
def ray_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[session.Session]:
    """The one Ray of the whole test run; two logical CPUs whatever the machine has."""
    home = tmp_path_factory.mktemp("ray-home")
    with session.opened(Settings.model_validate({"home": home, "cluster": {"cpus": 2}})) as found:
        yield found


@pytest.fixture(scope="session")
def served(ray_session: session.Session, tmp_path_factory: pytest.TempPathFactory) -> Iterator["Served"]:
    """The one Serve of the whole test run, on SQLite; tests that deploy other settings on it come last."""
    from serve import deploy
    from tests import serving
    from tests.served import Served

    settings = config.load(
        home=tmp_path_factory.mktemp("serve-home"),
        rewards={"reward": {"window_s": 2.0}},
        serve={"port": servers.free_port(), "versions_refresh_s": 0.5, "checkpoint_s": 0.5},
    )
    serving.publish(settings, serving.version())
    yield Served.start(settings)
    deploy.shut_down()


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a real PostgreSQL that ends with the test run."""
    # Not in pytest's folder: every pytest that starts closes that to other users again.
    with tempfile.TemporaryDirectory(prefix="medley-postgres-") as folder, servers.postgres(Path(folder)) as url:
        yield url


@pytest.fixture
def postgres_url(postgres: str) -> Iterator[str]:
    """An empty database of its own for this test."""
    with servers.empty_database(postgres) as url:
        yield url


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Real tables, which are no part of the repository."""
    folder = os.environ.get("MEDLEY_DATA")
    if not folder:
        pytest.skip("MEDLEY_DATA is not set: export MEDLEY_DATA=<folder with the data sets of DESIGN, 3>")
    return Path(folder)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What shares a server runs together, and the longest first: `make test` has two processes to fill."""
    items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    """Tests on Ray, those on Serve at their end; then modules with kills of their own; then all that is plain."""
    kills, fixtures = item.get_closest_marker("kills") is not None, getattr(item, "fixturenames", [])
    if "served" in fixtures:
        return 1 + kills + ("scaled" in fixtures)
    if item.get_closest_marker("ray"):
        return 0
    return 4 if kills else 5


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Modules with tests on Ray go to one process, the others where there is time.

    So there is one Ray, and no other cluster's replica takes the port of one that a test has just killed.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Modules(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            module = nodeid.partition("::")[0]
            return "ray" if module in on_ray else module

    root = Path(__file__).parent
    marks = re.compile(r"pytest\.mark\.(ray|cluster)\b")
    on_ray = {f"tests/{path.name}" for path in root.glob("test_*.py") if marks.search(path.read_text())}
    return Modules(config, log)
