"""`hybridclf serve` beside clients that mean harm: what is left for others, the memory it takes, how it ends.

    python -m benchmarks.hostile                      # the server of this checkout
    python -m benchmarks.hostile --source CHECKOUT    # the same attacks on another one's

Four small clients ask about digits, first alone, then beside an attack, which comes from another address; each attack
gets a server of its own. Prints a line for each attack; `--out FILE` also writes the figures as JSON.
"""

import argparse
import asyncio
import base64
import json
import subprocess
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from benchmarks.http_load import Connection, Server, http
from tests.data.hostile import flat_png, many_scans

ATTACKER = "127.0.0.2"
CLIENTS = 4
PATIENCE = 60.0

Attack = Callable[[Server], Awaitable[None]]


# --- images that do harm ----------------------------------------------------------------------------------------------


def uri(data: bytes) -> str:
    return f"data:image/x;base64,{base64.b64encode(data).decode()}"


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def plain_pgm() -> bytes:
    """7.6 MiB of pixels in decimal text."""
    return b"P2 2000 2000 9\n" + b"7 " * 4_000_000


# --- attacks ----------------------------------------------------------------------------------------------------------


def repeated(request: bytes, connections: int) -> Attack:
    """Ask the same on some connections again and again, half a second after each answer."""

    async def one(server: Server) -> None:
        while True:
            connection = await Connection(server, ATTACKER).open()
            try:
                while True:
                    await connection.ask(request)
                    await asyncio.sleep(0.5)
            except (OSError, asyncio.IncompleteReadError, TypeError):
                await asyncio.sleep(0.1)
            finally:
                connection.writer.close()

    async def attack(server: Server) -> None:
        await asyncio.gather(*(one(server) for _ in range(connections)))

    return attack


def rerank(image: bytes) -> bytes:
    return http("/v1/rerank", {"query": uri(image), "documents": ["3", "8"]})


def classify(image: bytes, n: int) -> bytes:
    return http("/v1/classify", {"images": [uri(image)] * n})


async def stalled_uploads(server: Server) -> None:
    """A hundred bodies of 10 MiB that stop short of their last byte."""

    async def one() -> None:
        with suppress(OSError):
            connection = await Connection(server, ATTACKER).open()
            head = b"POST /v1/rerank HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n"
            connection.writer.write(head + bytes(9_999_999))
            await connection.writer.drain()
            await asyncio.sleep(PATIENCE)

    await asyncio.gather(*(one() for _ in range(100)))


async def silent_connections(server: Server) -> None:
    """Two thousand connections that say nothing, opened anew where the server ends them."""

    async def one() -> None:
        while True:
            with suppress(OSError, asyncio.IncompleteReadError):
                connection = await Connection(server, ATTACKER).open()
                await connection.reader.read(1)
                connection.writer.close()
            await asyncio.sleep(1.0)

    await asyncio.gather(*(one() for _ in range(2000)))


def attacks() -> dict[str, tuple[str, Attack | None]]:
    webp = saved(Image.new("RGB", (5000, 5000), (1, 2, 3)), "webp", lossless=True)
    return {
        "none": ("digits", None),
        "JPEG of 5,000 scans, 308 KB, 2 at a time": ("digits", repeated(rerank(many_scans(5000)), 2)),
        "JPEG of 1,000 scans, 140 KB, 2 at a time": ("digits", repeated(rerank(many_scans(1000)), 2)),
        "JPEG of 95 scans, 2 at a time": ("digits", repeated(rerank(many_scans(90)), 2)),
        "plain PGM of 7.6 MiB, 2 at a time": ("digits", repeated(rerank(plain_pgm()), 2)),
        "32 flat PNGs of 25 megapixels per request": ("digits", repeated(classify(flat_png(), 32), 1)),
        "40 flat WebPs of 25 megapixels, any-size model": ("shapes", repeated(classify(webp, 40), 1)),
        "100 stalled uploads of 10 MB": ("digits", stalled_uploads),
        "2,000 silent connections": ("digits", silent_connections),
        "JSON of 3 million numbers, 2 at a time": ("digits", repeated(http("/v1/rerank", {"x": [7] * 3_000_000}), 2)),
    }


# --- measuring --------------------------------------------------------------------------------------------------------


def small_requests(model: str) -> list[bytes]:
    pictures = [Image.fromarray((d * 255 / 16).round().astype(np.uint8)) for d in load_digits().images[:200]]
    if model != "digits":
        return [classify(saved(picture, "png"), 1) for picture in pictures]
    body = {"documents": ["3", "8", "9"], "log_prior": [-1.0, -1.1, -1.2], "top_n": 1}
    return [http("/v1/rerank", body | {"query": uri(saved(picture, "png"))}) for picture in pictures]


async def small_clients(server: Server, requests: list[bytes], seconds: float, times: list[float]) -> None:
    end = time.monotonic() + seconds

    async def client(first: int) -> None:
        connection = await Connection(server).open()
        for i in range(first, 10**9, CLIENTS):
            if (start := time.monotonic()) > end:
                return
            try:
                status, _ = await connection.ask(requests[i % len(requests)])
            except (OSError, asyncio.IncompleteReadError):  # beyond the server's connections
                await asyncio.sleep(0.1)
                connection = await Connection(server).open()
                continue
            if status == 200:
                times.append(time.monotonic() - start)

    with suppress(TimeoutError):
        async with asyncio.timeout(seconds + 10):
            await asyncio.gather(*(client(i) for i in range(CLIENTS)))


async def beside(server: Server, attack: Attack | None, requests: list[bytes], seconds: float) -> dict[str, Any]:
    """Throughput and p99 of the small clients beside an attack, and the most memory meanwhile."""
    memory, alone, times = [server.memory_with_children], list[float](), list[float]()
    await small_clients(server, requests, 2.0, [])  # warm
    await small_clients(server, requests, seconds, alone)

    async def watch() -> None:
        while True:
            memory.append(server.memory_with_children)
            await asyncio.sleep(0.05)

    tasks = [asyncio.create_task(watch())] + ([asyncio.create_task(attack(server))] if attack else [])  # type: ignore[arg-type]
    await asyncio.sleep(1.0)
    await small_clients(server, requests, seconds, times)
    for task in tasks:
        task.cancel()
    return {
        "alone_images_per_second": len(alone) / seconds,
        "images_per_second": len(times) / seconds,
        "p99_ms": 1000 * float(np.quantile(times, 0.99)) if times else None,
        "memory_mb": max(memory),
        "memory_at_rest_mb": memory[0],
    }


def measured(name: str, model: str, attack: Attack | None, options: argparse.Namespace) -> dict[str, Any]:
    server = Server(model, None, 128, options.source)
    figures = asyncio.run(beside(server, attack, small_requests(model), options.seconds))
    start = time.monotonic()
    try:
        server.process.terminate()
        code: int | None = server.process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        server.process.kill()
        code = None
    return {"attack": name, "model": model, **figures, "exit_seconds": time.monotonic() - start, "exit_code": code}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--source", type=Path, help="checkout whose server is attacked; default: this one")
    parser.add_argument("--seconds", type=float, default=12.0, help="of each attack")
    parser.add_argument("--only", default="", help="attacks whose name has this")
    parser.add_argument("--out", type=Path, help="JSON file of the figures; default: none")
    options = parser.parse_args()
    options.source = (options.source or Path(__file__).parents[1]).resolve()
    rows = []
    for name, (model, attack) in attacks().items():
        if options.only in name:
            rows.append(row := measured(name, model, attack, options))
            p99 = "none answered" if row["p99_ms"] is None else f"p99 {row['p99_ms']:.0f} ms"
            print(
                f"{name}: {row['images_per_second']:.1f} images/s of {row['alone_images_per_second']:.1f} alone, "
                f"{p99}, {row['memory_mb']:.0f} MB of {row['memory_at_rest_mb']:.0f} at rest, "
                f"exit {row['exit_code']} after {row['exit_seconds']:.1f} s",
                flush=True,
            )
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
