"""
Behind your own scikit-learn classifier
=======================================

A classifier that is trained already is frozen, and the fusion is fitted for it on images that are new to it.
"""

# %%
# A random forest, trained on the first 700 digits.

from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator

from hybridclf import HybridClassifier

digits = load_digits()
X, y = digits.images, digits.target
forest = RandomForestClassifier(n_estimators=30, random_state=0).fit(X[:700].reshape(700, -1), y[:700])

# %%
# ``fit`` leaves the forest alone. It trains a denoiser on three quarters of the images, and fits the fusion on the
# rest.

clf = HybridClassifier(FrozenEstimator(forest), cv=0.25, max_iter=25, random_state=0)
clf.fit(X[700:1500], y[700:1500])
print(clf.worth_)

# %%
# Images that neither has seen.

print(f"forest: {forest.score(X[1500:].reshape(-1, 64), y[1500:]):.3f}, both: {clf.score(X[1500:], y[1500:]):.3f}")

# %%
# The second tier is a stage of its own, too: candidates and log-probabilities go in, one result per image comes out.
# ``ranking`` is best first, ``posterior`` in the order of the candidates.

candidates, log_prior = clf.propose(X[1500:1503])
for result in clf.reranker().rerank(X[1500:1503], candidates, log_prior):
    print(result.ranking[0], result.posterior.max().round(3), result.stopped_by)
