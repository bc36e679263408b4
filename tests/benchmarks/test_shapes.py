"""What the shapes pair is made of, before any training: towers, tokens, encoder, loop, questions."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from torch import Tensor

from benchmarks import compositional, shapes_recipe
from benchmarks.shapes import data, models, tasks
from hybridclf import FixedTrials, HybridClassifier
from hybridclf.data.shapes import HELD_OUT, RELATIONS, caption, draw, scenes
from hybridclf_adapters import diffusers
from hybridclf_adapters.open_clip import load as load_open_clip
from recipes.train_shapes import (
    Ingredients,
    Recipe,
    choose_words,
    read_tokens,
    save_pair,
    train_unet,
    written_autoencoder,
)

SENTENCES = ["a small striped red circle left of an orange crescent", "a photo of a cyan star above a ring"]


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return draw(scenes(60, random_state=7))


@pytest.fixture(scope="module")
def words() -> object:
    return models.tokenizer(data.sentences(400, random_state=1))


def as_x(small: np.ndarray) -> Tensor:
    return torch.from_numpy(small).permute(0, 3, 1, 2).float() / 127.5 - 1


@pytest.fixture(scope="module")
def pair(words: object, pictures: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both tiers, untrained, in the folders that users load."""
    folder = tmp_path_factory.mktemp("pair")
    torch.manual_seed(0)
    clip, vae = models.clip(len(words)).eval(), models.autoencoder()  # type: ignore[arg-type]
    models.write_encoder(vae, as_x(data.shrink(pictures)))
    (folder / "clip").mkdir()
    models.save_clip(clip, words, folder / "clip")  # type: ignore[arg-type]
    encoder = models.text_encoder(clip, len(words))  # type: ignore[arg-type]
    models.save_pipeline(vae, encoder, words, models.unet(), folder / "sd")  # type: ignore[arg-type]
    return folder


def test_every_word_of_the_captions_is_one_token(words: models.CLIPTokenizer) -> None:
    known = {w for s in data.sentences(400, random_state=1) for w in s.split()}
    assert all(len(words.tokenize(word)) == 1 for word in known)
    assert len(words.tokenize("zebra")) > 1
    assert words.unk_token_id not in words("zebra, 7 photos")["input_ids"][1:-1]
    assert words.eos_token_id == len(words) - 1  # CLIP looks for the highest


@pytest.mark.slow
def test_every_run_numbers_the_words_alike(words: models.CLIPTokenizer) -> None:
    """What one run has tokenized, another goes on with."""
    root = Path(__file__).parents[2]
    code = "import json; from shapes import data, models; w = models.tokenizer(data.sentences(400, random_state=1)); "
    code += "print(json.dumps([w.get_vocab(), w.decode(w('a pink ring above a star')['input_ids'])]))"
    paths = os.pathsep.join(str(root / folder) for folder in ("", "adapters", "benchmarks"))
    command, environment = [sys.executable, "-c", code], os.environ | {"PYTHONPATH": paths}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
    vocabulary, said = json.loads(done.stdout)
    assert vocabulary == words.get_vocab()
    assert said == words.decode(words("a pink ring above a star")["input_ids"])


def test_the_text_encoder_is_tier_1s(words: models.CLIPTokenizer) -> None:
    clip = models.clip(len(words)).eval()
    tokens = models.tokens(words, SENTENCES)
    with torch.inference_mode():
        ours = models.text_encoder(clip, len(words)).eval()(tokens).last_hidden_state
        x = clip.token_embedding(tokens) + clip.positional_embedding
        torch.testing.assert_close(ours, clip.ln_final(clip.transformer(x, attn_mask=clip.attn_mask)))


def test_the_encoder_is_the_principal_components_of_patches(pictures: np.ndarray) -> None:
    x = as_x(data.shrink(pictures))
    vae = models.autoencoder()
    models.write_encoder(vae, x)
    with torch.inference_mode():
        latent = vae.encode(x).latent_dist
    patches = x.reshape(-1, 3, 8, 4, 8, 4).permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(0, 2).numpy()
    centred = patches - patches.mean(0)
    _, spread, axes = np.linalg.svd(centred, full_matrices=False)
    expected = centred @ axes[: models.LATENT].T / np.sqrt(spread[: models.LATENT] / np.sqrt(len(patches) - 1))
    found = latent.mean.permute(0, 2, 3, 1).flatten(0, 2).numpy()
    signs = np.sign((found * expected).sum(0))
    np.testing.assert_allclose(found, expected * signs, atol=0.05)
    assert np.corrcoef(found[:, -1], expected[:, -1])[0, 1] ** 2 > 0.999
    assert latent.std.max() < 1e-5
    assert found.std() * vae.config.scaling_factor == pytest.approx(1, rel=0.01)


def test_users_load_both_folders(pair: Path, pictures: np.ndarray, words: models.CLIPTokenizer) -> None:
    labels = ["a red circle", "a blue square", "a red circle left of a blue square"]
    shown = [Image.fromarray(p) for p in pictures[:4]]
    proposer = load_open_clip(f"local-dir:{pair / 'clip'}", prompts="{}").fit(None, labels)
    assert np.exp(proposer.predict_log_proba(shown)).sum(axis=1) == pytest.approx(np.ones(4), rel=1e-5)
    denoiser = diffusers.load(str(pair / "sd"), prompts="{}")
    assert denoiser.shape == (models.LATENT, 8, 8)
    vae = models.autoencoder()
    models.write_encoder(vae, as_x(data.shrink(pictures)))
    with torch.inference_mode():
        expected = vae.encode(as_x(data.shrink(pictures[:4]))).latent_dist.mean * vae.config.scaling_factor
    torch.testing.assert_close(denoiser.encode(shown), expected, atol=0.05, rtol=0)  # weights are in half precision
    assert sum(f.stat().st_size for f in pair.rglob("*") if f.is_file()) <= 15 * 2**20


@pytest.fixture(scope="module")
def saved(pair: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both tiers as one saved classifier, in a folder that was moved since."""
    folder = tmp_path_factory.mktemp("saved")
    shutil.copytree(pair, folder / "made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hybridclf.fitting.recording.RECORDED_TRIALS", 3)
        save_pair(folder / "made", n_images=20)
    return Path(shutil.move(folder / "made", folder / "moved"))


def test_both_become_one_saved_classifier(saved: Path, pictures: np.ndarray) -> None:
    clf = HybridClassifier.load(saved)
    assert clf.fusion_.calibrated and len(clf.classes_) == 80 and "a pink star" in clf.classes_
    assert clf.set_params(allocation=FixedTrials(2)).predict_proba(list(pictures[:2])).shape == (2, 80)


def test_an_earlier_pair_can_be_trained_further(pair: Path, words: models.CLIPTokenizer, pictures: np.ndarray) -> None:
    """What is read is what was saved, but for its precision."""
    torch.manual_seed(0)
    clip, unet, vae = models.clip(len(words)), models.saved_unet(pair), models.saved_autoencoder(pair)
    assert {p.dtype for network in (unet, vae) for p in network.parameters()} == {torch.float32}
    for ours, theirs in zip(models.saved_clip(pair).parameters(), clip.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=0)
    x = as_x(data.shrink(pictures[:2]))
    denoiser = diffusers.load(str(pair / "sd"), prompts="{}")
    with torch.inference_mode():
        latents = vae.encode(x).latent_dist.mean * vae.config.scaling_factor
    shown = [Image.fromarray(p) for p in pictures[:2]]
    torch.testing.assert_close(latents, denoiser.encode(shown), atol=1e-4, rtol=0)


def test_images_are_normalised_as_tier_1s_folder_says(pair: Path, pictures: np.ndarray) -> None:
    _, transform = open_clip.create_model_from_pretrained(f"local-dir:{pair / 'clip'}")
    ours = models.clip_pixels(pictures[:1])[0]
    torch.testing.assert_close(transform(Image.fromarray(pictures[0])), ours, atol=1e-5, rtol=0)


# --- the U-Net's training --------------------------------------------------------------------------------------------


def test_tokens_of_another_tokenizer_are_refused(words: models.CLIPTokenizer, tmp_path: Path) -> None:
    captions = np.array([[["a red ring", "a blue ring"]] * data.CAPTIONS] * 3, dtype=object)
    tokens = read_tokens(tmp_path / "tokens.pt", words, captions)
    assert tokens.shape == (3, data.CAPTIONS, 2, models.N_TOKENS)
    assert torch.equal(tokens[1, 2], models.tokens(words, ["a red ring", "a blue ring"]))
    assert torch.equal(tokens, read_tokens(tmp_path / "tokens.pt", words, captions))
    with pytest.raises(SystemExit, match="another tokenizer; delete it"):
        read_tokens(tmp_path / "tokens.pt", models.tokenizer(["ring blue red a"]), captions)


def test_false_captions_are_hard_ones_or_other_pictures() -> None:
    n = 400
    tokens = torch.arange(n * data.CAPTIONS * 2).view(n, data.CAPTIONS, 2, 1).expand(-1, -1, -1, models.N_TOKENS)
    empty = torch.full((models.N_TOKENS,), -1)
    words, without = choose_words(tokens, empty, 0.5, torch.Generator().manual_seed(0))
    assert words.shape == (n, 2, models.N_TOKENS)
    assert torch.equal((words[:, 0] == empty).all(-1), without) and 20 < without.sum() < 60
    right, wrong = words[~without, 0, 0], words[~without, 1, 0]
    own = right + 1 == wrong  # the false caption that stands beside the right one
    assert 150 < own.sum() < 210
    assert (wrong[~own] % 2 == 0).all() and (wrong[~own] != right[~own]).all()


def ingredients(words: models.CLIPTokenizer) -> Ingredients:
    """Twenty pictures with random captions."""
    drawn = scenes(20, random_state=3)
    n_things = np.array([len(scene.things) for scene in drawn])
    pictures = data.Pictures(draw(drawn), data.shrink(draw(drawn)), np.array([]), n_things)
    torch.manual_seed(0)
    latents = torch.randn(20, models.LATENT, 8, 8).half()
    tokens = torch.randint(len(words), (20, data.CAPTIONS, 2, models.N_TOKENS))
    empty, clip = models.tokens(words, [""])[0], models.clip(len(words)).eval()
    return Ingredients(pictures, words, tokens, empty, latents, clip, written_autoencoder(pictures))


def test_a_training_leaves_tier_1s_text_encoder_alone(words: models.CLIPTokenizer, tmp_path: Path) -> None:
    made = ingredients(words)
    model = models.TextToImage(models.unet(), made.encoder())
    trained = train_unet(tmp_path / "unet", model, made, Recipe(steps=6, batch=4, single_steps=2))
    for ours, theirs in zip(trained.encoder.parameters(), made.encoder().parameters(), strict=True):
        assert torch.equal(ours, theirs)
    log = [json.loads(line) for line in (tmp_path / "unet.log").read_text().splitlines()]
    assert log[0]["wrong caption"] == pytest.approx(np.log(2), abs=0.01)  # captions say nothing yet
    assert any(p.any() for name, p in trained.network.named_parameters() if name.endswith("attn2.to_out.0.weight"))
    with pytest.raises(SystemExit, match="single_steps"):
        train_unet(tmp_path / "unet", model, made, Recipe(steps=6, batch=4, single_steps=3))


# --- the questions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("held_out", [False, True])
def test_questions_have_one_right_caption(held_out: bool) -> None:
    asked = tasks.attribute_questions(6, 11, held_out) | tasks.swap_questions(6, 11, held_out)
    for name, questions in asked.items():
        assert len(questions.pictures) == len(questions.captions) >= 6, name
        assert all(len(c) == 2 and c[0] != c[1] for c in questions.captions), name
    for questions in tasks.swap_questions(6, 11, held_out).values():
        for (a, b), (c, d) in zip(questions.captions[::2], questions.captions[1::2], strict=True):
            assert (a, b) == (d, c)


def test_familiar_questions_show_what_training_may_have_seen() -> None:
    unseen = {f"{colour} {shape}" for colour, shape in HELD_OUT}
    for name, questions in tasks.swap_questions(20, 5, False).items():
        assert not any(phrase in c[0] for c in questions.captions for phrase in unseen), name


def test_the_right_caption_is_the_picture(pictures: np.ndarray) -> None:
    asked = tasks.single_questions(5, 3, True)
    for picture, captions, scene in zip(
        asked.pictures, asked.captions, scenes(5, random_state=3, things=(1,), held_out=True), strict=True
    ):
        assert len(set(captions)) == 80 and captions[0] == caption(scene)
        np.testing.assert_array_equal(picture, draw([scene])[0])
    assert not any(r in c[0] for c in asked.captions for r in RELATIONS)


def test_a_changed_phrase_is_false() -> None:
    drawn = scenes(20, random_state=4, things=(1,))
    for name, asked in tasks.changed_questions(20, 4).items():
        for (right, wrong), scene in zip(asked.captions, drawn, strict=True):
            word, (ours, theirs) = getattr(scene.things[0], name), (right.split(), wrong.split())
            assert right == caption(scene, texture=name == "texture")
            assert sum(a != b for a, b in zip(ours[1:], theirs[1:], strict=True)) == 1
            assert word in ours and word not in theirs


@pytest.mark.slow
def test_the_whole_benchmark(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compositional, "TRIALS", 2)
    monkeypatch.setattr(compositional, "can_compile", lambda device: False)
    arguments = ["compositional.py", str(tmp_path / "work"), str(saved), "--questions", "4", "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", arguments)
    compositional.main()
    report = json.loads((tmp_path / "compositional.json").read_text())
    for half in ("familiar", "held-out"):
        rows = compositional.rows_of(report, half)
        assert len(rows) == 1 + (8 + 1) + 3 * (4 + 1)
        assert [n for _, n, _ in rows[:3]] == [20, 4, 4] and rows[-1][1] == 16
        for _, _, shares in rows:
            assert all(0 <= s["low"] <= s["value"] <= s["high"] <= 1 for s in shares.values())
        for task, _, shares in rows[1:]:
            assert shares["tier 2"]["value"] == 0, (
                f"{task}: before training captions say nothing, and a tie is no answer"
            )
    assert (tmp_path / "compositional.png").stat().st_size > 10_000


@pytest.mark.slow
def test_the_benchmark_of_the_recipe(
    pictures: np.ndarray, words: models.CLIPTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained for a moment, asked and written down; a second run trains nothing."""
    chosen = ("all of it", "attention at the lower resolution only", "a new text encoder, trained along")
    monkeypatch.setattr(shapes_recipe, "VARIANTS", {name: shapes_recipe.VARIANTS[name] for name in chosen})
    monkeypatch.setattr(shapes_recipe, "TRIALS", 2)
    monkeypatch.setattr(shapes_recipe, "RESULTS", tmp_path / "report.json")
    made = ingredients(words)
    monkeypatch.setattr(shapes_recipe, "ingredients", lambda work, pair: made)
    monkeypatch.setattr("sys.argv", ["x", str(tmp_path), "--steps", "2", "--batch", "2", "--questions", "2"])
    shapes_recipe.main()
    report = json.loads((tmp_path / "report.json").read_text())
    assert tuple(report["rows"]) == chosen
    for row in report["rows"].values():
        kinds = [cell["value"] for kind, cell in row.items() if kind not in ("mean", "minus all of it")]
        assert len(kinds) == 3 and row["mean"]["value"] == pytest.approx(np.mean(kinds))
    weights = sorted(tmp_path.glob("recipe/*/unet.safetensors"))
    assert len(weights) == 3
    before = [path.stat().st_mtime_ns for path in weights]
    shapes_recipe.main()
    assert [path.stat().st_mtime_ns for path in weights] == before
    assert json.loads((tmp_path / "report.json").read_text()) == report
