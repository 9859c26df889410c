"""Times the closed form against linear discriminant analysis, and at a thousand classes.

    python docs/experiments/gaussian_speed.py FOLDER [--shots 4 16] [--repeats 5]

First, 1000 classes with 16 samples each in 512 dimensions, in a joint space: seconds to fit and to
predict 50,000 rows, and the peak memory of the process. Then, for every feature set in FOLDER (see
``feature_sets.py``), the seconds of ``fit`` beside those of
``LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto")`` on the same rows, taken in turn:
medians, and the median of the ratios.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import feature_sets
import numpy as np
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from flowalign import ClassEmbeddings, FlowMatchingAligner


def seconds(call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def against_discriminant_analysis(path: Path, n_shots: int, repeats: int) -> np.ndarray:
    X, y, table, *_ = feature_sets.load(path)
    X, y = feature_sets.draw(X, y, n_shots, seed=0)
    aligner = FlowMatchingAligner(table)
    peer = LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto")
    aligner.fit(X, y)
    return np.array(
        [
            [seconds(lambda: aligner.fit(X, y)), seconds(lambda: peer.fit(X, y))]
            for _ in range(repeats)
        ]
    )


def thousand_classes() -> None:
    rng = np.random.default_rng(0)
    E = rng.standard_normal((1000, 512), dtype=np.float32)
    codes = np.repeat(np.arange(1000), 16)
    X = 2 * E[codes] + 3 * rng.standard_normal((16_000, 512), dtype=np.float32)
    test_codes = rng.integers(1000, size=50_000)
    X_test = 2 * E[test_codes] + 3 * rng.standard_normal((50_000, 512), dtype=np.float32)
    aligner = FlowMatchingAligner(ClassEmbeddings(np.arange(1000), E))
    fit = seconds(lambda: aligner.fit(X, codes))
    start = time.perf_counter()
    accuracy = np.mean(aligner.predict(X_test) == test_codes)
    predict = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"1000 classes x 16 x 512: joint {aligner.joint_}, fit {fit:.1f} s, 50,000 rows predicted "
        f"in {predict:.1f} s ({50_000 / predict:,.0f} a second), accuracy {accuracy:.3f}, peak "
        f"{peak:.2f} GiB"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shots", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    thousand_classes()
    for n_shots in args.shots:
        for path in sorted(args.folder.glob("*.npz")):
            times = against_discriminant_analysis(path, n_shots, args.repeats)
            ours, theirs = np.median(times, axis=0)
            ratio = np.median(times[:, 0] / times[:, 1])
            print(
                f"{path.stem}, {n_shots} shots: fit {ours:.3f} s, discriminant analysis "
                f"{theirs:.3f} s, ratio {ratio:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
