"""The servers that `benchmarks.serve` loads, one after the other in one process.

It reads the name of a server as one line, ends the one before, starts that one and answers with a line of JSON.

haproxy   our application as `serve.deploy` starts it, and beside it, under /noop, a no-op on the same ingress
default   the same application on Ray Serve's default proxy
uvicorn   the same gateway, engine and journal in one uvicorn process, without Ray Serve
"""

import asyncio
import json
import multiprocessing
import sys
import time
from pathlib import Path
from typing import Any

from cluster import config, session
from cluster.config import Settings
from cluster.registry import DEFAULT_NAME


def settings_of(home: Path, port: int, ingress: str) -> Settings:
    return config.load(home=home, serve={"port": port, "ingress": ingress, "models_max_replicas": 1})


def noop() -> Any:
    """Same route and messages, an empty decision: what remains is the ingress and the parsing."""
    from fastapi import FastAPI, Request, Response

    from serve.messages import DecisionAnswer, Decisions

    app = FastAPI()

    @app.post("/v1/decisions", response_model=DecisionAnswer)
    async def decisions(request: Request) -> Response:
        message = Decisions.model_validate_json(await request.body())
        empty = '{"decision_id":"","version":null,"mode":"live","slots":[]}'
        body = ",".join([empty] * len(message.requests))
        return Response(f'{{"decisions":[{body}]}}', media_type="application/json")

    return app


def serve(home: Path, port: int, ingress: str) -> None:
    """Ours on Ray Serve; with HAProxy also the no-op."""
    from ray import serve as ray_serve

    from serve import app, deploy

    settings = settings_of(home, port, ingress)
    about = deploy.deploy(settings)
    if about["ingress"] != ingress:
        raise SystemExit(f"benchmarks.serve needs the {ingress} ingress, but Serve runs with {about['ingress']}")
    if ingress == "haproxy":
        deployment: Any = ray_serve.deployment(
            ray_serve.ingress(noop)(_Empty), name="noop", max_ongoing_requests=1_000, logging_config=app.QUIET
        )
        options = {
            "ray_actor_options": {"num_cpus": settings.serve.replica_cpus},
            "logging_config": {"enable_access_log": False},  # as ours has it
        }
        ray_serve.run(deployment.options(**options).bind(), name="noop", route_prefix="/noop")


class _Empty:
    pass


def uvicorn_server(home: Path, port: int) -> None:
    """One process with everything but Ray Serve; the learner is away."""
    import uvicorn

    from serve.assembly import assemble

    async def main() -> None:
        parts = assemble(settings_of(home, port, "default"), DEFAULT_NAME, _no_learner)
        await parts.replica.start()
        options = uvicorn.Config(parts.app, "127.0.0.1", port, log_level="warning", access_log=False)
        await uvicorn.Server(options).serve()

    asyncio.run(main())


def _no_learner() -> Any:
    raise ConnectionError("this server has no learner")


def main() -> None:
    home, port = Path(sys.argv[1]), int(sys.argv[2])
    session.start(settings_of(home, port, "haproxy"))
    from serve import deploy

    process: Any = None
    for line in sys.stdin:
        started, target = time.monotonic(), line.strip()
        if process is not None:
            process.terminate()
            process.join()
        elif target != "haproxy":
            deploy.shut_down()
        if target == "uvicorn":
            process = multiprocessing.get_context("spawn").Process(target=uvicorn_server, args=(home, port))
            process.start()
            deploy.wait_ready(f"http://127.0.0.1:{port}")
        else:
            serve(home, port, target)
        print(json.dumps({"server": target, "seconds": round(time.monotonic() - started, 1)}), flush=True)
    if process is not None:
        process.terminate()
        process.join()
    else:
        deploy.shut_down()
    session.stop()


if __name__ == "__main__":
    main()
