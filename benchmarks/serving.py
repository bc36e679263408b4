"""`hybridclf serve`: its share of the offline throughput, and its answers under too much load.

    python benchmarks/serving.py --model digits --clients 32 --seconds 120
    python benchmarks/serving.py --model DIR --images FOLDER --batch-size 16     # any other model, on image files

Four phases, torch on one core in all of them: the images through the offline `Reranker`; the same images over HTTP,
closed loop, from this process to a server process; then an open loop at half the rate that the second phase reached,
and one at twice that rate, with a deadline. The offline phase is run before and after the second. Writes
`benchmarks/results/serving.json` and `serving.png`, prints the claims; the exit code is 1 if one does not hold.
"""

import argparse
import asyncio
import base64
import json
import sys
from collections import Counter
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import torch
from http_load import Reply, Server, closed_loop, metric, open_loop
from PIL import Image
from sklearn.datasets import load_digits

from hybridclf import HybridClassifier
from hybridclf.data.image_files import as_item, image_paths, open_image
from hybridclf.demo.style import BLUE, GREY, STYLE, VERMILLION, require_matplotlib
from hybridclf.reranking.evidence import RerankResult

RESULTS = Path(__file__).parent / "results"
MOST_IMAGES = 2000
OFFLINE_SECONDS = 10.0


@dataclass
class Load:
    """The images, what tier 1 says of them, and what the offline reranker answers."""

    items: list[Any]
    candidates: list[list[Any]]
    log_prior: list[np.ndarray]
    requests: list[dict[str, Any]]
    expected: list[RerankResult] = field(default_factory=list)


def make_load(clf: HybridClassifier, folder: Path | None) -> Load:
    """Requests for the images in a folder, or for scikit-learn's digits."""
    if folder is None:
        pictures = [Image.fromarray((d * 255 / 16).round().astype(np.uint8)) for d in load_digits().images]
    else:
        pictures = [open_image(path) for path in image_paths([folder])[:MOST_IMAGES]]
    items = [as_item(picture, clf.image_shape_, clf.pixel_range_) for picture in pictures]
    candidates, log_prior = clf.propose(items if clf.image_shape_ is None else np.stack(items))
    requests = [
        {"query": data_uri(picture), "documents": list(map(str, labels)), "log_prior": prior.tolist(), "top_n": 1}
        for picture, labels, prior in zip(pictures, candidates, log_prior, strict=True)
    ]
    return Load(items, candidates, log_prior, requests)


def data_uri(picture: Image.Image) -> str:
    file = BytesIO()
    picture.save(file, "png")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def offline(clf: HybridClassifier, load: Load, seconds: float) -> float:
    """Images per second of the offline reranker, over whole passes."""
    stage = clf.reranker()
    images = load.items if clf.image_shape_ is None else np.stack(load.items)
    load.expected = stage.rerank(images, load.candidates, load.log_prior)  # also the warm-up
    start, passes = monotonic(), 0
    while not passes or monotonic() - start < seconds:
        stage.rerank(images, load.candidates, load.log_prior)
        passes += 1
    return passes * len(images) / (monotonic() - start)


# --- judging ----------------------------------------------------------------------------------------------------------


def closed_figures(replies: list[Reply], load: Load, memory: list[float], served: float) -> dict[str, Any]:
    begin, end = min(r.start for r in replies), max(r.start + r.seconds for r in replies)
    quarter = max(1, len(memory) // 4)
    ids = [r.id for r in replies if r.id]
    best = [load.candidates[r.image][int(r.best)] if r.best else None for r in replies]
    return {
        "requests": len(replies),
        "images_per_second": len(replies) / (end - begin),
        **milliseconds(replies),
        "not_answered": sum(r.status != 200 for r in replies),
        "answered_twice": len(ids) - len(set(ids)),
        "server_counted_beyond": int(served) - len(replies),
        "other_than_offline": sum(b != load.expected[r.image].ranking[0] for b, r in zip(best, replies, strict=True)),
        "memory_first_quarter_mb": float(np.mean(memory[:quarter])),
        "memory_last_quarter_mb": float(np.mean(memory[-quarter:])),
    }


def milliseconds(replies: list[Reply]) -> dict[str, float]:
    """Quantiles of the time that answers took."""
    seconds = np.array([reply.seconds for reply in replies])
    return {f"p{q}_ms": 1000 * float(np.quantile(seconds, q / 100)) for q in (50, 95, 99)}


def half_figures(replies: list[Reply], rate: float) -> dict[str, Any]:
    """Times below saturation, of all images and of those that the prior left open."""
    asked = [reply for reply in replies if reply.evaluations]
    return {"rate": rate, "requests": len(replies), "asked": len(asked), "all": milliseconds(replies)} | {
        "tier_2": milliseconds(asked)
    }


def open_figures(replies: list[Reply], rate: float, deadline: float, batch: float) -> dict[str, Any]:
    late = deadline + max(0.02, batch)
    accepted = [r for r in replies if r.status == 200]
    return {
        "rate": rate,
        "deadline_ms": 1000 * deadline,
        "batch_ms": 1000 * batch,
        "requests": len(replies),
        "statuses": dict(Counter(str(r.status) for r in replies)),
        "stopped_by": dict(Counter(r.stopped_by for r in accepted)),
        "in_time": float(np.mean([r.seconds <= late for r in accepted])),
        "refusal_p99_ms": 1000 * float(np.quantile([r.seconds for r in replies if r.status == 429] or [0], 0.99)),
    }


def judge(report: dict[str, Any]) -> list[tuple[str, float, str, bool]]:
    """(claim, value, bound, whether it holds)."""
    closed, overload = report["closed_loop"], report["overload"]
    share = closed["images_per_second"] / report["offline_images_per_second"]
    growth = closed["memory_last_quarter_mb"] / closed["memory_first_quarter_mb"] - 1
    others = sum(n for status, n in overload["statuses"].items() if status not in ("200", "429"))
    refused = overload["statuses"].get("429", 0)
    calm = report["half_load"]["tier_2"]
    spread = calm["p99_ms"] / calm["p50_ms"]
    return [
        ("throughput over HTTP, as a share of offline", share, ">= 0.9", share >= 0.9),
        ("requests not answered", closed["not_answered"], "= 0", closed["not_answered"] == 0),
        (
            "requests that only one side counted",
            closed["server_counted_beyond"],
            "= 0",
            not closed["server_counted_beyond"],
        ),
        ("requests answered twice", closed["answered_twice"], "= 0", closed["answered_twice"] == 0),
        ("answers other than offline", closed["other_than_offline"], "= 0", closed["other_than_offline"] == 0),
        ("memory, last quarter over first, minus 1", growth, "<= 0.05", growth <= 0.05),
        ("at half the load, of images that tier 2 is asked about: p99 over p50", spread, "<= 5", spread <= 5),
        ("at twice the load: accepted and in time", overload["in_time"], ">= 0.99", overload["in_time"] >= 0.99),
        ("at twice the load: refused with 429", refused, "> 0", refused > 0),
        ("at twice the load: any other fate", others, "= 0", others == 0),
    ]


def draw(replies: list[Reply], memory: list[float], report: dict[str, Any], path: Path) -> None:
    """Latency, throughput over time and memory of the closed loop."""
    matplotlib = require_matplotlib()
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(12, 3.6))
        latency, rate, resident = figure.subplots(1, 3)
        seconds = np.sort([1000 * r.seconds for r in replies])
        latency.plot(seconds, np.linspace(0, 100, len(seconds)), color=BLUE)
        latency.set(xlabel="ms", ylabel="% of requests", title="Answered within", xlim=(0, None))
        start = min(r.start for r in replies)
        ends = np.array([r.start + r.seconds - start for r in replies])
        width = max(ends.max() / 30, 0.1)
        counts, edges = np.histogram(ends, bins=np.arange(0, ends.max() + width, width))
        rate.plot(edges[1:-1], counts[:-1] / width, color=BLUE, label="over HTTP")
        rate.axhline(report["offline_images_per_second"], color=VERMILLION, label="offline")
        rate.set(xlabel="s", title="Images per second", ylim=(0, None))
        rate.legend()
        resident.plot(np.linspace(0, ends.max(), len(memory)), memory, color=GREY)
        resident.set(xlabel="s", title="Memory of the server, MB", ylim=(0, None))
        figure.savefig(path)


# --- all of it --------------------------------------------------------------------------------------------------------


def main() -> None:
    """Measure, write, print."""
    options = parse()
    torch.set_num_threads(1)
    clf = HybridClassifier.from_pretrained(options.model)
    clf.batch_size = options.batch_size or clf.batch_size
    load = make_load(clf, options.images)
    before = offline(clf, load, min(OFFLINE_SECONDS, options.seconds))
    server = Server(options.model, options.batch_size, options.queue)
    try:
        asyncio.run(closed_loop(server, load.requests, options.clients, min(2.0, options.seconds)))  # warm-up
        counted = asyncio.run(metric(server, "requests_total"))
        replies, memory = asyncio.run(closed_loop(server, load.requests, options.clients, options.seconds))
        served = asyncio.run(metric(server, "requests_total")) - counted
        after = offline(clf, load, min(OFFLINE_SECONDS, options.seconds))
        closed = closed_figures(replies, load, memory, served)
        half = closed["images_per_second"] / 2
        calm = asyncio.run(open_loop(server, load.requests, half, max(options.seconds / 4, 2.0)))
        overload = overloaded(server, load, options, closed["images_per_second"], clf.reranker().batch_size)
    finally:
        code = server.stop()
    report = {
        "settings": {k: v if isinstance(v, int | float | None) else str(v) for k, v in vars(options).items()},
        "images": len(load.items),
        "offline_images_per_second": (before + after) / 2,
        "offline_before_after": [before, after],
        "closed_loop": closed,
        "half_load": half_figures(calm, half),
        "overload": overload,
        "exit_code": code,
    }
    claims = judge(report)
    report["claims"] = [dict(zip(("text", "value", "bound", "holds"), claim, strict=True)) for claim in claims]
    RESULTS.mkdir(exist_ok=True)
    options.out.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    draw(replies, memory, report, options.out.with_suffix(".png"))
    for text, value, bound, holds in claims:
        print(f"{'holds' if holds else 'FAILS':6} {text}: {value:.4g}, wanted {bound}")
    sys.exit(not all(holds for *_, holds in claims))


def overloaded(server: Server, load: Load, options: Any, rate: float, rows: int) -> dict[str, Any]:
    """The third phase; by default with a deadline that a full queue can just be worked off in, one and a half times."""
    deadline = options.deadline_ms / 1000 if options.deadline_ms else 1.5 * (rows + options.queue) / rate
    sums = [asyncio.run(metric(server, f"batch_seconds_{part}")) for part in ("sum", "count")]
    bodies = [body | {"deadline_ms": 1000 * deadline} for body in load.requests]
    replies = asyncio.run(open_loop(server, bodies, 2 * rate, max(options.seconds / 4, 2.0)))
    total, n = (
        asyncio.run(metric(server, f"batch_seconds_{part}")) - b for part, b in zip(("sum", "count"), sums, strict=True)
    )
    return open_figures(replies, 2 * rate, deadline, total / max(n, 1))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="digits", help="an embedded model, or the folder of a saved one")
    parser.add_argument("--images", type=Path, help="folder of images; default: scikit-learn's digits")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument(
        "--seconds", type=float, default=120.0, help="of the closed loop; the open ones take a quarter each"
    )
    parser.add_argument("--batch-size", type=int, help="of the denoiser, offline and served; default: the model's")
    parser.add_argument("--queue", type=int, default=128)
    parser.add_argument("--deadline-ms", type=float, help="under overload; default: 1.5 times a full queue")
    parser.add_argument("--out", type=Path, default=RESULTS / "serving", help="where to write, without the ending")
    return parser.parse_args()


if __name__ == "__main__":
    main()
