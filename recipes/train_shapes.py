"""Train the shapes pair: a small CLIP and a small Stable Diffusion, on captioned pictures that are drawn here.

    python -m recipes.train_shapes WORK [--out models/hybridclf_models/shapes] [--steps 4000 --batch 48 ...]

It goes on where it was interrupted; all it needs is in WORK. The losses are in WORK/*.log. With a WORK of its own,
`--start PAIR` trains the U-Net of an earlier pair further.

On two cores of an AMD EPYC without bfloat16 drawing 120,000 scenes took 9 minutes, 900 steps of tier 1 took 15, and
4,000 steps of tier 2, of 48 pictures under two captions each, 53; the decoder, which classification does not need, 12
on one core; 4,000 more steps by `--start` 97 on one. What the pair is worth is in its card; what parts of the recipe
are, `benchmarks/shapes_recipe.py` tells. A trained autoencoder had lost whole colours after 1,200 steps, hence the
encoder that is written down.
"""

import argparse
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.shapes import data, models
from benchmarks.shapes.tasks import single_things
from hybridclf import HybridClassifier
from hybridclf.data.shapes import caption, draw, scenes
from hybridclf.devices import has_bf16
from hybridclf.training.trainer import TrainerConfig

from .resumable import fit

SEED = 0
HELD_OUT_SEED = 10**6
"""Scenes of seeds below are for training."""

CALIBRATION_SEED, CALIBRATION_IMAGES = HELD_OUT_SEED + 1, 100

MAX_WEIGHT = 30.0
"""Of an error in noise, where it counts as one in x0."""

OTHERS = (0.5, 0.2)
"""Share of false captions that are another picture's, while pictures show single things and after."""

PARTS = 30
"""Of the scenes to train on."""

CLIP_STEPS, CLIP_BATCH = 900, 256
DECODER_STEPS, DECODER_BATCH = 600, 64

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True)
class Recipe:
    """Settings of the U-Net's training.

    The sharpness is that of the wrong-caption term's softmax over minus summed errors. At 0.5, as likelihoods would
    have it, chance differences of large errors outweigh everything at first, and the shortest way down is to make
    captions say nothing: after 200 steps the right caption won 50 % of the time, against 71 %. What a trained model
    still has to learn, textures above all, changes errors little: further training takes more.
    """

    steps: int = 8000
    batch: int = 64
    learning_rate: float = 2e-3
    single_steps: int = 1000  # with pictures of single things
    first_t: int = 300
    fine_t: int = 60  # first timestep once little noise comes up
    fine_from: float = 0.5  # share of the steps after which it does
    last_t: int = 980
    wrong_caption_weight: float = 1.0
    sharpness: float = 0.03
    seed: int = SEED  # of the order of pictures, and of noise
    start: str = ""  # folder of an earlier pair, which is trained further; its tier 1 and autoencoder stay


@dataclass(frozen=True)
class Ingredients:
    """Input of the U-Net's training: pictures, their tokens `[n, CAPTIONS, 2, N_TOKENS]` and latents.

    Beside them the words, the tokens `[N_TOKENS]` of no caption, and tier 1; latents are `[n, LATENT, 8, 8]`.
    """

    pictures: data.Pictures
    words: Any
    tokens: Tensor
    empty: Tensor
    latents: Tensor
    clip: nn.Module
    vae: models.AutoencoderKL

    def encoder(self) -> Any:
        """Tier 1's text encoder, as it is."""
        return models.text_encoder(self.clip, len(self.words)).requires_grad_(False)


def autocast() -> Any:
    return torch.autocast(DEVICE.type, torch.bfloat16, enabled=has_bf16(DEVICE))


def attention() -> Any:
    """On a CPU plain attention: the fused one's backward pass takes half of a step's time there."""
    return nullcontext() if DEVICE.type == "cuda" else sdpa_kernel(SDPBackend.MATH)


def batch(step: int, n: int, size: int, seed: int = SEED) -> tuple[np.ndarray, torch.Generator]:
    """Indices of a step's pictures, and its source of noise."""
    rng = np.random.default_rng([seed, step])
    return rng.integers(n, size=size), torch.Generator().manual_seed(int(rng.integers(2**31)))


# --- tier 1 -----------------------------------------------------------------------------------------------------------


def train_clip(work: Path, pictures: data.Pictures, tokens: Tensor, n_words: int) -> nn.Module:
    torch.manual_seed(SEED)
    model = models.clip(n_words).to(DEVICE)

    def loss_at(step: int) -> dict[str, Tensor]:
        chosen, rng = batch(step, len(pictures.large), CLIP_BATCH)
        said = torch.randint(data.CAPTIONS, (len(chosen),), generator=rng)
        with autocast():
            pixels = models.clip_pixels(pictures.large[chosen]).to(DEVICE)
            image, text, scale = model(pixels, tokens[chosen, said, 0].to(DEVICE))
        logits, right = scale * image.float() @ text.float().T, torch.arange(len(chosen), device=DEVICE)
        return {"contrastive": (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2}

    config = TrainerConfig(learning_rate=1e-3, ema_decay=0.998)
    return fit(work / "clip", model, loss_at, CLIP_STEPS, config, recipe={"batch": CLIP_BATCH, "seed": SEED})


# --- tier 2 -----------------------------------------------------------------------------------------------------------


def as_x(pictures: np.ndarray) -> Tensor:
    """Pixels in [-1, 1], `[n, 3, 32, 32]`."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


def written_autoencoder(pictures: data.Pictures) -> models.AutoencoderKL:
    """With an encoder that is written down, and a decoder still to be trained."""
    torch.manual_seed(SEED)
    model = models.autoencoder()
    models.write_encoder(model, as_x(pictures.small[:4000]))
    return model.requires_grad_(False)


def train_decoder(work: Path, model: models.AutoencoderKL, pictures: data.Pictures) -> nn.Module:
    """Pixels of latents, which generation needs and classification does not."""
    model.to(DEVICE)
    for part in (model.decoder, model.post_quant_conv):
        part.requires_grad_(True)

    def loss_at(step: int) -> dict[str, Tensor]:
        chosen, rng = batch(step, len(pictures.small), DECODER_BATCH)
        x = as_x(pictures.small[chosen]).to(DEVICE)
        with torch.no_grad():
            z = model.encode(x).latent_dist.mean
        with autocast():
            out = model.decode(z + 0.05 * torch.randn(z.shape, generator=rng).to(DEVICE)).sample.float()
        return {"reconstruction": F.l1_loss(out, x) + F.mse_loss(out, x)}

    config = TrainerConfig(learning_rate=2e-3, weight_decay=0.01, ema_decay=0.998)
    return fit(work / "decoder", model, loss_at, DECODER_STEPS, config, recipe={"batch": DECODER_BATCH, "seed": SEED})


@torch.inference_mode()
def encode(model: nn.Module, pictures: data.Pictures) -> Tensor:
    """Latents of all pictures, as the adapter makes them."""
    model.to(DEVICE)
    parts = [model.encode(as_x(p).to(DEVICE)).latent_dist.mean.cpu() for p in np.array_split(pictures.small, 256)]
    return (torch.cat(parts) * model.config.scaling_factor).half()


def train_unet(path: Path, model: models.TextToImage, made: Ingredients, recipe: Recipe) -> nn.Module:
    """The U-Net: the denoising loss and, if wanted, the wrong-caption term.

    For a start pictures show single things, by which words get their meanings. The term is Appendix D's idea (arXiv
    2303.16203) as cross-entropy over the errors under the right caption and a false one, with the same noise: one that
    differs a little, or another picture's. One picture in ten has no caption, which makes the model one without
    conditions as well. Errors count as errors in x0, up to `MAX_WEIGHT`. At first little noise does not come up, as
    what is where is decided above it; textures show below it: from `fine_from` on it does, its errors as they are.
    """
    model = model.to(DEVICE)
    every, single = np.arange(len(made.latents)), np.flatnonzero(made.pictures.n_things == 1)
    levels = models.scheduler().alphas_cumprod
    k = 2 if recipe.wrong_caption_weight else 1

    def loss_at(step: int) -> dict[str, Tensor]:
        known = single if step < recipe.single_steps else every
        chosen, rng = batch(step, len(known), recipe.batch, recipe.seed)
        chosen = known[chosen]
        words, without = choose_words(made.tokens[chosen], made.empty, OTHERS[step >= recipe.single_steps], rng)
        fine = step >= recipe.fine_from * recipe.steps
        t = torch.randint(recipe.fine_t if fine else recipe.first_t, recipe.last_t, (len(chosen),), generator=rng)
        x0 = made.latents[chosen].float()
        noise = torch.randn(x0.shape, generator=rng)
        level = levels[t].view(-1, 1, 1, 1)
        noised = (level.sqrt() * x0 + (1 - level).sqrt() * noise).to(DEVICE)
        with autocast(), attention():
            inputs = noised.repeat_interleave(k, 0), t.to(DEVICE).repeat_interleave(k)
            out = model(*inputs, words[:, :k].flatten(0, 1).to(DEVICE))
        weight = ((1 - level) / level).clamp(1.0 if fine else 0.0, MAX_WEIGHT).view(-1, 1, 1).to(DEVICE)
        errors = (out.float() - noise.to(DEVICE).repeat_interleave(k, 0)).square().flatten(1).view(len(x0), k, -1)
        squared = errors * weight
        losses = {"denoising": squared[:, 0].mean()}
        if k > 1:
            scores = -recipe.sharpness * squared.sum(-1)[~without.to(DEVICE)]
            right = torch.zeros(len(scores), dtype=torch.long, device=DEVICE)
            losses["wrong caption"] = recipe.wrong_caption_weight * F.cross_entropy(scores, right)
        return losses

    config = TrainerConfig(learning_rate=recipe.learning_rate, weight_decay=0.01, ema_decay=0.999, muon=True)
    return fit(path, model, loss_at, recipe.steps, config, recipe=asdict(recipe))


def choose_words(tokens: Tensor, empty: Tensor, others: float, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """One of each picture's captions and a false one, `[n, 2, N_TOKENS]`; and which pictures go without, bool `[n]`.

    Another picture's caption may happen to be true of this one, too.

    Parameters
    ----------
    tokens : Tensor `[n, CAPTIONS, 2, N_TOKENS]`
        Right and wrong captions.
    empty : Tensor `[N_TOKENS]`
        No caption.
    others : float
        Share of false captions that are the right ones of other pictures.
    rng : Generator
        Decides.
    """
    n = len(tokens)
    said = torch.randint(data.CAPTIONS, (n,), generator=rng)
    words = tokens[torch.arange(n), said].clone()
    from_others = torch.rand(n, generator=rng) < others
    words[from_others, 1] = words[:, 0].roll(1, 0)[from_others]
    without = torch.rand(n, generator=rng) < 0.1
    words[without, 0] = empty
    return words, without


# --- all of it --------------------------------------------------------------------------------------------------------


def main() -> None:
    args = _arguments()
    recipe = Recipe(**{field.name: getattr(args, field.name) for field in fields(Recipe)})
    start = Path(recipe.start) if recipe.start else None
    made = prepare(args.work, start)
    models.save_clip(made.clip, made.words, args.out / "clip")
    torch.manual_seed(SEED)
    model = models.TextToImage(models.saved_unet(start) if start else models.unet(), made.encoder())
    model = train_unet(args.work / "unet", model, made, recipe).cpu()
    vae = made.vae if start else train_decoder(args.work, made.vae, made.pictures).cpu()
    models.save_pipeline(vae, model.encoder, made.words, model.network, args.out / "sd")
    save_pair(args.out)


def prepare(work: Path, start: Path | None = None) -> Ingredients:
    """All that the U-Net's training takes, tier 1 from an earlier pair if any; what is there already is read."""
    work.mkdir(parents=True, exist_ok=True)
    pictures = data.load(work / "scenes", PARTS)
    words = models.saved_words(start) if start else models.tokenizer(data.sentences(1500, HELD_OUT_SEED - 1))
    tokens = read_tokens(work / f"tokens-{PARTS}.pt", words, pictures.captions)
    clip = models.saved_clip(start) if start else train_clip(work, pictures, tokens, len(words))
    vae = models.saved_autoencoder(start) if start else written_autoencoder(pictures)
    latents = _once(work / f"latents-{PARTS}.pt", partial(encode, vae, pictures))
    empty = models.tokens(words, [""])[0]
    return Ingredients(pictures, words, tokens, empty, latents, clip.cpu(), vae.cpu())


def save_pair(folder: Path, n_images: int = CALIBRATION_IMAGES) -> None:
    """Make one saved classifier of the two folders beside each other, for single things.

    Its fusion is fitted on what it is asked about, single things, in scenes never trained on. Fitted on captions of two
    things as well, about which tier 2 knows more, it trusted tier 2 too much where single things were unfamiliar.
    """
    drawn = scenes(n_images, random_state=CALIBRATION_SEED, things=(1,))
    clf = HybridClassifier(
        f"open_clip:local-dir:{folder / 'clip'}",
        f"diffusers:{folder / 'sd'}",
        prompts="{}",
        top_k=10,
        random_state=SEED,
        verbose=True,
    )
    clf.fit(None, single_things()).calibrate(draw(drawn), [caption(scene) for scene in drawn])
    clf.set_params(verbose=False).save(folder)


def read_tokens(path: Path, words: Any, captions: np.ndarray) -> Tensor:
    """Tokens `[n, CAPTIONS, 2, N_TOKENS]`, made once; those of another tokenizer mean other words, and are refused."""
    tokens = _once(path, partial(_tokenized, words, captions)).long()
    if not torch.equal(tokens[:100], _tokenized(words, captions[:100]).long()):
        raise SystemExit(f"{path} holds tokens of another tokenizer; delete it, or give the pair that it belongs to")
    return tokens


def _tokenized(words: Any, captions: np.ndarray) -> Tensor:
    parts = np.array_split(captions.reshape(-1), min(100, captions.size))
    return torch.cat([models.tokens(words, p.tolist()).short() for p in parts]).view(*captions.shape, -1)


def _once(path: Path, make: Callable[[], Tensor]) -> Tensor:
    if not path.exists():
        part = path.with_suffix(".part")
        torch.save(make(), part)
        part.replace(path)
    return torch.load(path, weights_only=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--out", type=Path, default=Path("models/hybridclf_models/shapes"))
    for field in fields(Recipe):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=type(field.default), default=field.default)
    return parser.parse_args()


if __name__ == "__main__":
    main()
