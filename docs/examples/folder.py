"""
Training on a folder of pictures
================================

A subfolder per class is all that ``train_pair`` needs; ``hybridclf train`` is the same on the command line. The
training here takes a minute and so is for show: give yours an hour. On a busy machine that is too short to learn
anything, and ``worth_`` says so.
"""

# %%
# The folder: drawn things in three colours, of any shape and anywhere in the picture.

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from hybridclf import train_pair
from hybridclf.data import shapes

folder = TemporaryDirectory()
rng = np.random.default_rng(0)
for colour in ("orange", "pink", "yellow"):
    photos = Path(folder.name, "photos", colour)
    photos.mkdir(parents=True)
    for i in range(60):
        x, y = rng.uniform(0.3, 0.7, size=2)
        thing = shapes.Thing("large", "plain", colour, str(rng.choice(list(shapes.SHAPES))), x=x, y=y)
        Image.fromarray(shapes.draw([shapes.Scene((thing,))], 32)[0]).save(photos / f"{i}.png")

# %%
# Both tiers, one after the other, then the fusion on images that were held out.

model = Path(folder.name, "model")
settings = {"minutes": 1, "image_size": 8, "validation_fraction": 0.2, "proposer": "timm:convnet"}
clf = train_pair(Path(folder.name, "photos"), model, **settings)
print(clf.worth_)

# %%
# What is in the model's folder; ``training/log.json`` says how it went.

for path in sorted(p.relative_to(model) for p in model.rglob("*") if p.is_file()):
    print(path)

# %%
# Losses on the training images and on held-out ones.

import json

import matplotlib.pyplot as plt

log = json.loads((model / "training" / "log.json").read_text(encoding="utf-8"))
figure, panels = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
for axes, (part, entries) in zip(panels, log["losses"].items(), strict=True):
    axes.plot([e["step"] for e in entries], [e["loss"] for e in entries])
    axes.set(title=part, xlabel="steps", ylabel="loss")

folder.cleanup()
