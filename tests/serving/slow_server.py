"""A server of the digits pair whose denoiser takes its time: `python -m tests.serving.slow_server SECONDS QUEUE`."""

import sys
from time import sleep
from typing import Any

from hybridclf import FixedTrials, HybridClassifier
from hybridclf.serving import Limits, create_app, run

TRIALS = 8
BATCH = 4


class Slow:
    """A denoiser, some time later."""

    def __init__(self, denoiser: Any, seconds: float) -> None:
        self.denoiser, self.seconds = denoiser, seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(self.denoiser, name)

    def predict(self, *arguments: Any) -> Any:
        sleep(self.seconds)
        return self.denoiser.predict(*arguments)


if __name__ == "__main__":
    clf = HybridClassifier.from_pretrained("digits").set_params(allocation=FixedTrials(TRIALS), batch_size=BATCH)
    clf.denoiser_ = Slow(clf.denoiser_, float(sys.argv[1]))
    run(create_app(clf, Limits(queue=int(sys.argv[2]))), port=0)
