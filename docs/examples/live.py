"""
Images that come one by one: AsyncReranker
==========================================

The same loop as a live service inside a Python process: images are handed in from any thread, share batches, and are
answered each as soon as it is done, or when its time is over.
"""

# %%
# The second tier of a fitted classifier, and its first tier's candidates for forty images.

import numpy as np
from sklearn.datasets import load_digits

from hybridclf import AsyncReranker, HybridClassifier

images = load_digits().images[200:240]
clf = HybridClassifier.from_pretrained("digits")
candidates, log_prior = clf.propose(images)

# %%
# ``submit`` returns a future at once.

with AsyncReranker(clf.reranker(), max_queue=64) as stage:
    futures = [stage.submit(*asked) for asked in zip(images, candidates, log_prior, strict=True)]
    results = [future.result() for future in futures]
print({reason: [r.stopped_by for r in results].count(reason) for reason in {r.stopped_by for r in results}})
print(f"{np.mean([r.evaluations for r in results]):.1f} evaluations per image")

# %%
# A deadline of no time at all gives tier 1's order, unless the prior was sure enough to need none. A bound on
# evaluations gives the best answer that they buy.

with AsyncReranker(clf.reranker()) as stage:
    hasty = stage.submit(images[0], [0, 6], deadline=0.0).result()
    cheap = stage.submit(images[0], [0, 6], max_evaluations=2).result()
print(hasty.stopped_by, hasty.evaluations, "|", cheap.stopped_by, cheap.evaluations)

# %%
# With asyncio it is ``await stage.rerank(…)``; cancelling either takes the image out.

import asyncio
from concurrent.futures import ThreadPoolExecutor


async def ask() -> list[str]:
    """Three images at a time."""
    with AsyncReranker(clf.reranker()) as stage:
        answers = await asyncio.gather(*(stage.rerank(image, [0, 6, 8]) for image in images[:3]))
    return [str(answer.ranking[0]) for answer in answers]


with ThreadPoolExecutor() as pool:  # a loop of its own, wherever this runs
    print(pool.submit(asyncio.run, ask()).result())
