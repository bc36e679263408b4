"""
A race, watched
===============

``clf.stream`` is the reranking loop as a generator: each step says what is known of every image so far.
"""

# %%
# A photograph with noise, at the model's 32x32 pixels. Tier 1 takes it for a frog.

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from hybridclf import HybridClassifier
from hybridclf.demo.style import FAINT, STYLE, colour_of

images = next(p for p in (Path("../images"), Path("docs/images")) if p.exists())
pixels = np.asarray(Image.open(images / "cat.jpg").resize((32, 32), Image.Resampling.BOX)) / 255
noisy = (pixels + np.random.default_rng(0).normal(0, 0.15, pixels.shape)).clip(0, 1)
photo = Image.fromarray((255 * noisy).round().astype(np.uint8))

clf = HybridClassifier.from_pretrained("cifar10")
(candidates,), (log_prior,) = clf.propose([photo])
for label, share in zip(candidates, np.exp(log_prior), strict=True):
    print(f"{label:10} {100 * share:5.1f} %")

# %%
# The race: after each trial the posterior of the candidates that are left.

evaluations, posteriors = [], []
for step in clf.stream([photo]):
    if len(step.images):
        evaluations.append(int(step.evaluations[0]))
        posteriors.append(step.evidence.posterior[0])
        print(f"{evaluations[-1]} evaluations: {candidates[posteriors[-1].argmax()]} leads")
    for _, result in step.finished:
        print(result.ranking[0], "wins:", result.stopped_by)

# %%
# The same as a picture, on an axis of log-odds, on which evidence adds up.

with plt.rc_context(STYLE):
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), width_ratios=(1, 2))
    left.imshow(photo)
    left.axis("off")
    for k, label in enumerate(candidates):
        wins = label == result.ranking[0]
        color = colour_of("race") if wins else FAINT
        right.plot(evaluations, [p[k] for p in posteriors], "o-", color=color, label=label)
        right.annotate(label, (evaluations[-1], posteriors[-1][k]), xytext=(6, -3), textcoords="offset points")
    right.set(yscale="logit", xlabel="evaluations", ylabel="posterior")
    right.set_title(f"Tier 1 says {candidates[0]}, the race ends with {result.ranking[0]}")
