"""Tables, intervals and pages, on rows made by hand."""

import json
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from flowalign.benchmark import write_report
from flowalign.benchmark.__main__ import main
from flowalign.benchmark.summary import differences, summarise, wins

pytest.importorskip("matplotlib")

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


def failed(rows, method, name):
    """Put an error in the place of a method's first row on a set."""
    at = next(k for k, r in enumerate(rows) if (r["method"], r["set"]) == (method, name))
    kept = {k: rows[at][k] for k in ("key", "set", "n_shots", "seed", "method")}
    return [*rows[:at], kept | {"error": "ValueError: <none>"}, *rows[at + 1 :]]


def test_means_spreads_and_ranks():
    four, sixteen = summarise(make() + make(n_shots=16))
    assert (four.n_shots, sixteen.n_shots) == (4, 16)
    assert four.sets == ["a", "b"]
    assert four.methods == list(ACCURACY)
    np.testing.assert_allclose(four.accuracy, [[0.8, 0.5], [0.7, 0.5], [0.2, 0.3], [2.75 / 3, 0.6]])
    np.testing.assert_allclose(four.mean()[:3], [0.65, 0.6, 0.25])
    np.testing.assert_allclose(
        four.spread[:3], [0.1, np.std([0.8, 0.8, 0.5], ddof=1), 0], atol=1e-9
    )
    # On b the first two are level: ranks 1.5 each. The oracle has none.
    np.testing.assert_allclose(four.ranks, [1.25, 1.75, 3, np.nan])
    np.testing.assert_allclose(four.means["log_loss"][0], 1 - 0.65)


def test_a_failed_draw_takes_the_set_from_the_method():
    (summary,) = summarise(failed(make(), "weak", "a"))
    at = summary.methods.index("weak")
    assert np.isnan(summary.accuracy[at]).tolist() == [True, False]
    assert np.isnan(summary.mean()[at])
    assert np.isnan(summary.ranks[at])
    np.testing.assert_allclose(summary.ranks[:2], [1.25, 1.75])
    assert np.isnan(differences(summary, "weak")).all()
    assert wins(summary, "weak") == (1, 0, 0)


def test_paired_differences():
    (summary,) = summarise(make())
    mean, low, high = differences(summary, "peer <1>")
    assert mean == pytest.approx((np.mean([0.1, 0, 0.2]) + 0) / 2)
    assert low == pytest.approx(0, abs=1e-9)
    assert 0.1 < high <= 0.2
    assert differences(summary, "flowalign") == (0, 0, 0)
    lost = differences(summary, "flowalign", reference="peer <1>")
    assert lost == pytest.approx((-mean, -high, -low), abs=5e-3)
    assert wins(summary, "peer <1>") == (1, 1, 0)
    assert wins(summary, "weak*") == (0, 0, 2)


def test_the_interval_covers_what_it_should():
    """Of sets whose differences scatter about a mean, nineteen of twenty intervals hold it."""
    rng = np.random.default_rng(0)
    held = []
    for _ in range(60):
        gaps = 0.02 + 0.03 * rng.standard_normal(20)
        sets = {f"set {k}": [0.5 + gap] for k, gap in enumerate(gaps)}
        rows = make({"flowalign": sets, "peer": {name: [0.5] for name in sets}})
        _, low, high = differences(summarise(rows)[0], "peer")
        held.append(low <= 0.02 <= high)
    assert 0.85 < np.mean(held) <= 1


def test_one_pair_has_no_interval():
    (summary,) = summarise(make({"flowalign": {"a": [0.8]}, "peer": {"a": [0.5]}}))
    mean, low, high = differences(summary, "peer")
    assert mean == pytest.approx(0.3)
    assert np.isnan([low, high]).all()


def test_the_page_is_whole_and_stands_alone(tmp_path):
    rows = failed(make() + make(n_shots=16), "weak", "a")
    page = write_report(rows, tmp_path)
    text = page.read_text()
    assert not re.search(r'(src|href)="(?!#)', text)
    assert "<script" not in text
    assert text.count("<svg") == 4
    ET.fromstring(text[text.index("<svg") : text.index("</svg>") + 6])
    for name in ("peer &lt;1&gt;", "weak*", "ValueError: &lt;none&gt;"):
        assert name in text
    assert "peer <1>" not in text
    assert '<td class="best">80.0</td>' in text
    markdown = (tmp_path / "report.md").read_text()
    assert "| flowalign | **80.0** | **50.0** | **65.0** | 10.00 | " in markdown
    assert r"| weak\* | 91.7 |" in markdown  # better, but an oracle is never the best
    assert "weak on a, 4 shots, draw 0: ValueError: <none>" in markdown
    for name in re.findall(r"\((\w+\.svg)\)", markdown):
        assert (tmp_path / name).exists()


def test_the_command(tmp_path, capsys):
    out = tmp_path / "report"
    arguments = ["--out", str(out), "--shots", "1", "--seeds", "1", "--jobs", "1"]
    main([*arguments, "--methods", "flowalign", "zero-shot"])
    assert "2 fits, 0 failed" in capsys.readouterr().out
    rows = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
    assert {(row["set"], row["method"]) for row in rows} == {
        ("emoji", "flowalign"),
        ("emoji", "zero-shot"),
    }
    assert (out / "report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--features", "nowhere"], "no .npz file at nowhere"),
        (["--images", "pictures"], "--images goes with --datasets"),
        (["--methods", "magic"], "invalid choice: 'magic'"),
    ],
)
def test_a_wrong_command_is_told_so(arguments, message, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--out", str(tmp_path), *arguments])
    assert message in capsys.readouterr().err
