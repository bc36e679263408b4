"""A server process under load from this one: as little client as possible, for both share a machine."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

__all__ = ["Reply", "Server", "closed_loop", "metric", "open_loop"]


@dataclass(frozen=True)
class Reply:
    """One request's fate, as the client saw it."""

    image: int
    start: float
    seconds: float
    status: int
    best: str
    stopped_by: str
    id: str
    evaluations: int = 0


class Server:
    """`hybridclf serve` in a process of its own, on one core's worth of torch."""

    def __init__(self, model: str, batch_size: int | None, queue: int, source: Path | None = None) -> None:
        """Start it, from another checkout if one is given, and wait until it listens."""
        command = [sys.executable, "-c", "from hybridclf.cli import app; app()", "serve", "--port", "0"]
        command += ["--model", model, "--max-queue", str(queue)]
        command += [] if batch_size is None else ["--batch-size", str(batch_size)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        if source is not None:
            environment["PYTHONPATH"] = f"{source}{os.pathsep}{source / 'adapters'}"
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, cwd=source)
        assert self.process.stderr is not None
        self.log = ""
        for line in self.process.stderr:
            self.log += line
            if found := re.search(r"running on (\S+)", line):
                self.host, self.port = urlsplit(found[1]).hostname, urlsplit(found[1]).port
                Thread(target=self.process.stderr.read, daemon=True).start()
                return
        raise SystemExit(self.log)

    @property
    def memory(self) -> float:
        """Resident megabytes."""
        return resident(self.process.pid)

    @property
    def memory_with_children(self) -> float:
        """Resident megabytes, those of its decoding processes included."""
        children = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        pids = {int(pid) for file in children for pid in file.read_text().split()}
        return self.memory + sum(map(resident, pids))

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def resident(pid: int) -> float:
    """Resident megabytes of a process; 0 if it has ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


class Connection:
    """One HTTP/1.1 connection, from an address of this machine."""

    def __init__(self, server: Server, address: str = "127.0.0.1") -> None:
        self.server, self.address = server, address

    async def open(self) -> "Connection":
        self.reader, self.writer = await asyncio.open_connection(
            self.server.host, self.server.port, local_addr=(self.address, 0)
        )
        return self

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Status and body of the response."""
        self.writer.write(request)
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = int(re.search(rb"content-length: (\d+)", head.lower())[1])  # type: ignore[index]
        return int(head[9:12]), await self.reader.readexactly(length)

    async def close(self) -> None:
        self.writer.close()
        with suppress(ConnectionError):  # an idle connection that the server has closed before
            await self.writer.wait_closed()


def http(path: str, body: dict[str, Any] | None = None) -> bytes:
    """The bytes of a request."""
    content = b"" if body is None else json.dumps(body).encode()
    method = "GET" if body is None else "POST"
    return f"{method} {path} HTTP/1.1\r\nHost: bench\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content


async def metric(server: Server, name: str) -> float:
    connection = await Connection(server).open()
    _, text = await connection.ask(http("/metrics"))
    await connection.close()
    lines = [line for line in text.decode().splitlines() if re.match(rf"hybridclf_{name}(\{{.*\}})? ", line)]
    return sum(float(line.split()[-1]) for line in lines)


async def ask(connection: Connection, image: int, request: bytes) -> Reply:
    start = monotonic()
    status, body = await connection.ask(request)
    seconds = monotonic() - start
    if status != 200:
        return Reply(image, start, seconds, status, "", "", "")
    answer = json.loads(body)
    best, meta = answer["results"][0]["index"], answer["meta"]
    return Reply(image, start, seconds, status, str(best), meta["stopped_by"], answer["id"], meta["evaluations"])


# --- two kinds of load ------------------------------------------------------------------------------------------------


async def closed_loop(
    server: Server, bodies: list[dict[str, Any]], clients: int, seconds: float
) -> tuple[list[Reply], list[float]]:
    """Each client asks again as soon as it is answered; replies, and the server's memory every second."""
    requests = [http("/v1/rerank", body) for body in bodies]
    replies: list[Reply] = []
    memory: list[float] = []
    turn = iter(range(10**12))
    end = monotonic() + seconds

    async def client() -> None:
        connection = await Connection(server).open()
        while monotonic() < end:
            image = next(turn) % len(requests)
            replies.append(await ask(connection, image, requests[image]))
        await connection.close()

    async def watch() -> None:
        while monotonic() < end:
            memory.append(server.memory)
            await asyncio.sleep(min(1.0, seconds / 20))

    await asyncio.gather(watch(), *(client() for _ in range(clients)))
    return replies, memory


async def open_loop(server: Server, bodies: list[dict[str, Any]], rate: float, seconds: float) -> list[Reply]:
    """Requests at a fixed rate, whatever becomes of them."""
    requests = [http("/v1/rerank", body) for body in bodies]
    idle: list[Connection] = []
    replies: list[Reply] = []

    async def one(image: int) -> None:
        began = monotonic()
        try:
            connection = idle.pop() if idle else await Connection(server).open()
            replies.append(await ask(connection, image, requests[image]))
            idle.append(connection)
        except (ConnectionError, asyncio.IncompleteReadError):  # beyond the server's connections
            replies.append(Reply(image, began, monotonic() - began, 0, "", "", ""))

    start = monotonic()
    async with asyncio.TaskGroup() as tasks:
        for i in range(int(rate * seconds)):
            if (wait := start + i / rate - monotonic()) > 0:
                await asyncio.sleep(wait)
            tasks.create_task(one(i % len(requests)))
    for connection in idle:
        await connection.close()
    return replies
