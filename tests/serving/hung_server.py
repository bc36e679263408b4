"""A server whose denoiser hangs once it is warm: `python -m tests.serving.hung_server STUCK DRAIN`."""

import sys
from threading import Event
from typing import Any

from hybridclf import FixedTrials, HybridClassifier
from hybridclf.serving import Limits, create_app, run


class Hung:
    """A denoiser whose second batch never comes back."""

    def __init__(self, denoiser: Any) -> None:
        self.denoiser, self.batches = denoiser, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.denoiser, name)

    def predict(self, *arguments: Any) -> Any:
        self.batches += 1
        if self.batches > 1:
            Event().wait()
        return self.denoiser.predict(*arguments)


if __name__ == "__main__":
    clf = HybridClassifier.from_pretrained("digits").set_params(allocation=FixedTrials(2), batch_size=2)
    clf.denoiser_ = Hung(clf.denoiser_)
    limits = Limits(stuck_seconds=float(sys.argv[1]), decode_seconds=0.1)
    run(create_app(clf, limits), port=0, drain_seconds=float(sys.argv[2]))
