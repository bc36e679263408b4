"""
Handwritten digits from end to end
==================================

Train both tiers, look at what tier 2 is worth, and compare it with tier 1 on images that nothing was fitted on.
"""

# %%
# Data: 600 images to train on, and 300 others. Longer training (the default is ``cv=3`` and 150 passes) is better.

import numpy as np
from sklearn.datasets import load_digits

from hybridclf import HybridClassifier
from hybridclf.metrics import accuracy

digits = load_digits()
order = np.random.default_rng(0).permutation(len(digits.images))
train, test = order[:600], order[600:900]
clf = HybridClassifier(cv=0.25, max_iter=25, random_state=0)
clf.fit(digits.images[train], digits.target[train])

# %%
# What held-out images say: the share of them that each tier answers rightly, and the cost.

print(clf.worth_)

# %%
# Both on the test images. ``decide`` gives the posterior and what each answer cost.

posterior, results = clf.decide(digits.images[test])
tier_1 = clf.proposer_.predict(digits.images[test].reshape(len(test), -1))
for name, answers in {"tier 1": tier_1, "hybrid": posterior.argmax(axis=1)}.items():
    share = accuracy(answers == digits.target[test])
    print(f"{name}: {100 * share.value:.1f} % ({100 * share.low:.1f} to {100 * share.high:.1f})")
print(f"{np.mean([r.evaluations for r in results]):.1f} evaluations per image")

# %%
# Where the evaluations went: most images are settled by their prior, and cost none.

import matplotlib.pyplot as plt

from hybridclf.demo.style import STYLE, colour_of

with plt.rc_context(STYLE):
    figure, axes = plt.subplots(figsize=(6, 3))
    axes.hist([r.evaluations for r in results], bins=30, color=colour_of("hybrid"))
    axes.set(xlabel="evaluations", ylabel="images")
    none = np.mean([r.evaluations == 0 for r in results])
    axes.set_title(f"{100 * none:.0f} % of {len(results)} images cost no evaluation")
