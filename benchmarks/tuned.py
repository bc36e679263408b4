"""Tuning for benchmarks: a training of so many steps, and the denoiser with all or a part of what it has learned."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from hybridclf.ports import Adaptation, Label
from hybridclf.training.trainer import Trainer, TrainerConfig
from hybridclf.tuning.examples import TuningExamples
from hybridclf.tuning.memory import choose_micro_batch
from hybridclf.tuning.objective import Conditions, Objective, measure_profile
from hybridclf.tuning.tune import BATCH_SIZE, LEARNING_RATE

__all__ = ["tuned", "tuning_trainer"]


def tuned(
    denoiser: Any,
    pictures: Any,
    labels: Sequence[Label],
    candidates: Sequence[Sequence[int]],
    *,
    rank: int,
    words: bool,
    wrong_class_weight: float,
    n_steps: int,
    strengths: Sequence[float],
    title: str,
) -> Iterator[tuple[float, list[float]]]:
    """Tune a denoiser, and lend it with each part of what it has learned; in the end it is as before.

    Parameters
    ----------
    denoiser : TunableDenoiser
        Denoiser to tune.
    pictures : n images
        All of them are trained on.
    labels : sequence of L labels
        All labels.
    candidates : n sequences of int `[k]`
        Positions of an image's labels, the right one first; wrong ones come up equally often.
    rank, words, wrong_class_weight
        As in `hybridclf.tune`.
    n_steps : int
        Length of the training.
    strengths : sequence of float
        Parts of what was learned, 1 being all.
    title : str
        Label of the progress bar.

    Yields
    ------
    strength : float
        Part of what was learned that the denoiser has now.
    loss : list of two float
        Mean of the first and of the last twenty steps.
    """
    examples = TuningExamples.of(denoiser.encode(pictures), candidates, [np.zeros(len(own)) for own in candidates])
    with denoiser.adapted(rank, labels if words else (), 0) as adaptation:
        conditions = Conditions(adaptation, labels)
        profile = measure_profile(denoiser, conditions, examples, 0)
        objective = Objective(denoiser, conditions, profile, wrong_class_weight)
        trainer = tuning_trainer(adaptation, objective, examples, n_steps)
        losses = [float(one) for one in tqdm(trainer.run(), desc=title, total=n_steps)]
        for strength in strengths:
            adaptation.parameters.load_state_dict(_weakened(trainer.average.state_dict(), strength))
            if adaptation.encodes_anew:
                denoiser.replace_embeddings()
            yield strength, [float(np.mean(losses[:20])), float(np.mean(losses[-20:]))]


def tuning_trainer(adaptation: Adaptation, objective: Objective, examples: TuningExamples, n_steps: int) -> Trainer:
    """Make the trainer of a denoiser's new parameters as `hybridclf.tune` does, for all examples and so many steps."""

    def loss(_: Any, x0: torch.Tensor, index: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        return objective.loss(examples, index, rng)

    fits = choose_micro_batch(
        lambda index: objective.loss(examples, index, torch.Generator().manual_seed(0)),
        BATCH_SIZE,
        objective.denoiser.device,
        adaptation.save_memory,
    )
    config = TrainerConfig(BATCH_SIZE, LEARNING_RATE, weight_decay=0.01, micro_batch_size=fits)
    index = torch.arange(len(examples.x0))
    return Trainer(adaptation.parameters, examples.x0, index, loss, config, n_steps, 0)


def _weakened(state: dict[str, torch.Tensor], strength: float) -> dict[str, torch.Tensor]:
    """New parameters part of the way from their start: those that began at zero, a LoRA's second matrices and words."""
    first = {name for name in state if name.startswith("lora.") and int(name.split(".")[1]) % 2 == 0}
    return {name: value if name in first else strength * value for name, value in state.items()}
