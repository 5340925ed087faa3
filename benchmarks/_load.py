"""An asynchronous HTTP load: N connections that each send the next request when the last is answered.

A process of its own, on raw streams, so that its own work is small and never shares a Python lock with a server.
It reads {"host", "port", "path", "key", "bodies", "connections", "seconds"} as one line of JSON for each load and
answers with one line: requests answered, seconds, failures, and latencies in ms at 50 and 99 %.
"""

import asyncio
import json
import sys
import time
from typing import Any


async def load(host: str, port: int, requests: list[bytes], connections: int, seconds: float) -> dict[str, Any]:
    """Send until `seconds` are over; the first tenth of them is left out of the figures."""
    start = time.perf_counter()
    begin, end = start + seconds / 10, start + seconds
    latencies: list[float] = []
    failures = 0

    async def connection(first: int) -> None:
        nonlocal failures
        reader, writer = await asyncio.open_connection(host, port)
        place = first
        while (sent := time.perf_counter()) < end:
            writer.write(requests[place % len(requests)])
            status, stays = await _answer(reader)
            if sent >= begin:
                latencies.append(time.perf_counter() - sent)
                failures += status != 200
            place += connections
            if not stays:  # an ingress that reloads says so with an answer
                writer.close()
                reader, writer = await asyncio.open_connection(host, port)
        writer.close()

    await asyncio.gather(*[connection(n) for n in range(connections)])
    latencies.sort()
    at = {f"p{q}_ms": 1_000 * latencies[min(len(latencies) - 1, len(latencies) * q // 100)] for q in (50, 99)}
    return {"requests": len(latencies), "seconds": time.perf_counter() - begin, "failures": failures, **at}


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bool]:
    """Status, and whether the connection stays open."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    for line in head.split(b"\r\n"):
        if line.startswith(b"content-length:"):
            await reader.readexactly(int(line.split(b":")[1]))
    return int(head.split(b" ", 2)[1]), b"\r\nconnection: close" not in head


def http(path: str, key: str, body: dict[str, Any]) -> bytes:
    """A POST as bytes."""
    data = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data


def main() -> None:
    for line in sys.stdin:
        task = json.loads(line)
        requests = [http(task["path"], task["key"], body) for body in task["bodies"]]
        found = asyncio.run(load(task["host"], task["port"], requests, task["connections"], task["seconds"]))
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
