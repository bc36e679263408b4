"""Store an embedded model's denoiser in less: `python recipes/round_weights.py FOLDER --bits 10`.

Weights become float16, rounded to so many significant bits: float16 has 11, and the zeros that fewer leave at the end
compress well in a wheel. What is in float64 (normalisation) stays. Compare answers before and after.
"""

import argparse
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file


def rounded(weights: np.ndarray, bits: int) -> np.ndarray:
    """Float16 with that many significant bits; float64 as it is."""
    if weights.dtype == np.float64:
        return weights
    mantissa, exponent = np.frexp(weights.astype(np.float64))
    return np.ldexp(np.round(mantissa * 2.0**bits) / 2.0**bits, exponent).astype(np.float16)


def main() -> None:
    """Round in place."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--bits", type=int, default=11, help="significant bits, at most 11")
    args = parser.parse_args()
    path = args.folder / "denoiser.safetensors"
    save_file({name: rounded(weights, args.bits) for name, weights in load_file(path).items()}, path)


if __name__ == "__main__":
    main()
