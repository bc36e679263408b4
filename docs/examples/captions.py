"""
Captions in which word order matters
====================================

A CLIP compares a picture and a caption as wholes. A diffusion model has to draw every part of it. The embedded pair
"shapes" has one of each, trained on drawn scenes.
"""

# %%
# Ten random scenes of two things, and for each a caption with the same words in another order.

import matplotlib.pyplot as plt
import numpy as np

from hybridclf import HybridClassifier
from hybridclf.data import shapes

rng = np.random.default_rng(3)
scenes = shapes.scenes(10, random_state=5_000_000, things=(2,))
pictures = shapes.draw(scenes)
captions = [shapes.caption(scene) for scene in scenes]
wrong = [shapes.caption(shapes.swapped(scene, "objects", rng)) for scene in scenes]
print(captions[0], "|", wrong[0])

# %%
# ``with_labels`` asks the pair about these two, at the cost of encoding them.

clf = HybridClassifier.from_pretrained("shapes")
right = {"tier 1": [], "hybrid": []}
for picture, *labels in zip(pictures, captions, wrong, strict=True):
    asked = clf.with_labels(labels)
    (candidates,), _ = asked.propose([picture])
    right["tier 1"].append(candidates[0] == labels[0])
    right["hybrid"].append(asked.predict([picture])[0] == labels[0])
print({tier: f"{sum(answers)} of {len(answers)}" for tier, answers in right.items()})

# %%
# The pictures, with what each tier made of them. Ten pictures are an example and no measurement.

figure, panels = plt.subplots(2, 5, figsize=(12, 5.6), layout="constrained")
for axes, picture, label, first, both in zip(panels.flat, pictures, captions, *right.values(), strict=True):
    axes.imshow(picture)
    words = label.split(" ")
    title = " ".join(words[: len(words) // 2]) + "\n" + " ".join(words[len(words) // 2 :])
    axes.set_title(
        f"{title}\ntier 1 {'right' if first else 'wrong'}, hybrid {'right' if both else 'wrong'}", fontsize=9
    )
    axes.axis("off")
