"""Takes the guide's picture of `hybridclf app`, in a headless Chromium: `python docs/pictures/app.py`, a minute.

From the repository's root, in the environment of `make test-app`.
"""

import shutil
import tempfile
from pathlib import Path

import numpy as np
from noisy_cat import NOISE
from PIL import Image
from playwright.sync_api import sync_playwright

from hybridclf import HybridClassifier
from hybridclf.app.page import launch

IMAGES = Path(__file__).parents[1] / "images"
SECONDS = 120


def noisy(photo: Image.Image) -> Image.Image:
    """The photograph with the noise of `noisy_cat.py`, each pixel of the model's 32 x 32 a block of 20 x 20."""
    pixels = np.asarray(photo.convert("RGB").resize((640, 640))) / 255
    noise = np.random.default_rng(0).normal(0, NOISE, (32, 32, 3)).repeat(20, axis=0).repeat(20, axis=1)
    return Image.fromarray(((pixels + noise).clip(0, 1) * 255).round().astype(np.uint8))


def main() -> None:
    """Race the README's cat on the page, and keep what it shows."""
    address = launch(HybridClassifier.from_pretrained("cifar10"), "cifar10", quiet=True, block=False)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        photo, shot = Path(folder) / "cat.png", Path(folder) / "page.png"
        noisy(Image.open(IMAGES / "cat.jpg")).save(photo)
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1120, "height": 1900})
        page.set_default_timeout(1000 * SECONDS)
        page.goto(address)
        page.locator("input[type=file]").first.set_input_files(photo)
        page.locator("#hc-change img").nth(1).wait_for()
        page.wait_for_timeout(1500)  # until the sliders have settled
        page.screenshot(path=shot, full_page=True)
        Image.open(shot).convert("RGB").save(IMAGES / "app.jpg", quality=80)
        browser.close()


if __name__ == "__main__":
    main()
