"""Rows of a benchmark, made by hand."""

ACCURACY = {
    # method: set: draws
    "flowalign": {"a": [0.9, 0.8, 0.7], "b": [0.5]},
    "peer <1>": {"a": [0.8, 0.8, 0.5], "b": [0.5]},
    "weak": {"a": [0.2, 0.2, 0.2], "b": [0.3]},
    "weak*": {"a": [0.95, 0.9, 0.9], "b": [0.6]},
}


def make(accuracy=ACCURACY, n_shots=4):
    return [
        {
            "key": f"{method} {name} {seed} {n_shots}",
            "set": name,
            "n_shots": n_shots,
            "seed": seed,
            "method": method,
            "n_samples": 8,
            "accuracy": value,
            "log_loss": 1 - value,
            "ece": 0.1,
            "calibration": [[30, 0.4, value], [50, 0.9, value]],
            "fit_seconds": 0.5,
            "predict_seconds": 0.1,
            "choices": {},
        }
        for method, sets in accuracy.items()
        for name, draws in sets.items()
        for seed, value in enumerate(draws)
    ]
