"""Tables, intervals and pages, on rows made by hand."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from benchmark_rows import ACCURACY, make
from scipy.stats import t

from flowalign.benchmark import write_report
from flowalign.benchmark.summary import differences, summarise, wins

pytest.importorskip("matplotlib")


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
    accuracy = {
        "flowalign": {"a": [0.9, 0.8, 0.7], "b": [0.5], "c": [0.6, 0.6], "d": [0.4]},
        "peer": {"a": [0.8, 0.8, 0.5], "b": [0.5], "c": [0.55, 0.65], "d": [0.3]},
    }
    (summary,) = summarise(make(accuracy))
    mean, low, high = differences(summary, "peer")
    gaps = [0.1, 0.0, 0.0, 0.1]
    half = t.ppf(0.975, 3) * np.std(gaps, ddof=1) / 2
    assert (mean, low, high) == pytest.approx((0.05, 0.05 - half, 0.05 + half))
    assert differences(summary, "flowalign") == (0, 0, 0)
    lost = differences(summary, "flowalign", reference="peer")
    assert lost == pytest.approx((-mean, -high, -low))
    assert wins(summary, "peer") == (2, 2, 0)
    assert wins(summary, "flowalign", reference="peer") == (0, 2, 2)


def test_draws_are_paired_by_their_seeds_in_whatever_order_rows_come():
    rng = np.random.default_rng(0)
    sets = {f"set {k}": list(rng.random(3)) for k in range(4)}
    accuracy = {
        "flowalign": sets,
        "peer": {name: [v - 0.1 for v in draws] for name, draws in sets.items()},
        "fewer": {name: draws[:2] for name, draws in sets.items()},
    }
    rows = make(accuracy)
    order = np.random.default_rng(1).permutation(len(rows))
    before, after = (summarise(r)[0] for r in (rows, [rows[k] for k in order]))
    for cell, draws in before.draws.items():
        np.testing.assert_array_equal(after.draws[cell], draws)
        np.testing.assert_array_equal(draws, accuracy[cell[0]][cell[1]])
    at = [after.methods.index(name) for name in before.methods]
    np.testing.assert_allclose(after.spread[at], before.spread)
    assert differences(after, "peer") == pytest.approx((0.1, 0.1, 0.1))
    assert np.isnan(differences(after, "fewer")).all()  # draws without a partner


def test_spread_is_over_the_draws_that_all_sets_have():
    draws = {"a": [0.5, 0.7, 0.9], "b": [0.2, 0.3], "c": [0.4]}
    (summary,) = summarise(make({"m": draws}))
    assert summary.spread == pytest.approx([np.std([0.35, 0.5], ddof=1)])
    (summary,) = summarise(make({"m": {"c": [0.4]}}))
    assert np.isnan(summary.spread).all()


def test_ranks_tell_a_tenth_of_a_point_apart_and_no_rounding():
    accuracy = {"a": [0.8], "b": [0.801], "c": [0.8 + 1e-9], "d": [0.7995]}
    (summary,) = summarise(make({name: {"set": draws} for name, draws in accuracy.items()}))
    assert summary.ranks.tolist() == [2.5, 1, 2.5, 4]


def test_half_a_point_is_level():
    names = ["a", "b", "c", "d"]
    gaps = [0.0049, 0.0051, -0.0049, -0.0051]
    ours = {name: [0.5 + gap] for name, gap in zip(names, gaps, strict=True)}
    (summary,) = summarise(make({"flowalign": ours, "peer": {name: [0.5] for name in names}}))
    assert wins(summary, "peer") == (1, 2, 1)


@pytest.mark.parametrize("n_draws", [1, 3])
def test_the_interval_covers_what_it_should(n_draws):
    """Of eight sets whose differences scatter about a mean, 19 of 20 intervals hold it."""
    rng = np.random.default_rng(0)
    held = []
    for _ in range(400):
        gaps = 0.02 + 0.03 * rng.standard_normal(8)
        noise = 0.02 * rng.standard_normal((8, n_draws))
        sets = {f"set {k}": list(0.5 + gaps[k] + noise[k]) for k in range(8)}
        rows = make({"flowalign": sets, "peer": {name: [0.5] * n_draws for name in sets}})
        _, low, high = differences(summarise(rows)[0], "peer")
        held.append(low <= 0.02 <= high)
    assert 0.92 < np.mean(held) < 0.98


def test_three_sets_have_no_interval():
    names = ["a", "b", "c"]
    accuracy = {"flowalign": {n: [0.8] for n in names}, "peer": {n: [0.5] for n in names}}
    mean, low, high = differences(summarise(make(accuracy))[0], "peer")
    assert mean == pytest.approx(0.3)
    assert np.isnan([low, high]).all()


def test_the_page_is_whole_and_stands_alone(tmp_path):
    rows = failed(make() + make(n_shots=16), "weak", "a")
    page = write_report(rows, tmp_path)
    text = page.read_text()
    assert not re.search(r'(src|href)="(?!#)', text)
    assert "<script" not in text
    assert text.count("<svg") == 4
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert {name[1:] for name in re.findall(r"#[a-z]+-[\w.]+", text)} <= set(ids)
    ET.fromstring(text[text.index("<svg") : text.index("</svg>") + 6])
    for name in ("peer &lt;1&gt;", "weak*", "ValueError: &lt;none&gt;"):
        assert name in text
    assert "peer <1>" not in text
    assert '<td class="best">80.0</td>' in text
    markdown = (tmp_path / "report.md").read_text()
    assert "| flowalign | **65.0** | 10.00 | " in markdown
    assert " | 0.5 | **80.0** | **50.0** |\n" in markdown
    assert r"| weak\* | 75.8 |" in markdown  # better, but an oracle is never the best
    assert "weak on a, 4 shots, draw 0: ValueError: <none>" in markdown
    for name in re.findall(r"\((\w+\.svg)\)", markdown):
        assert (tmp_path / name).exists()


def test_what_is_level_with_the_best_is_marked_too(tmp_path):
    accuracy = {"flowalign": {"a": [0.8]}, "peer": {"a": [0.8]}, "weak": {"a": [0.7995]}}
    write_report(make(accuracy), tmp_path)
    marked = re.findall(
        r"^\| (\w+) .*\*\*80\.0\*\* \|$", (tmp_path / "report.md").read_text(), re.M
    )
    assert marked == ["flowalign", "peer"]


def test_a_row_of_the_table(tmp_path):
    """Mean, spread, rank, points above with interval, wins, log-loss, ECE, seconds, the sets."""
    names = ["a", "b", "c", "d"]
    accuracy = {
        "flowalign": {name: [0.8, 0.6] for name in names},
        "peer": {name: [0.7, 0.5] for name in names},
    }
    write_report(make(accuracy, n_shots=1), tmp_path)
    markdown = (tmp_path / "report.md").read_text()
    assert "## 1 labelled sample a class" in markdown
    assert (
        "| peer | 60.0 | 14.14 | 2.0 | +10.0 [+10.0, +10.0] | 4 / 0 / 0 | 0.40 | 0.100 | 0.5 | "
        "60.0 | 60.0 | 60.0 | 60.0 |" in markdown
    )
    head = "spread | rank | flowalign above | wins / ties / losses | log-loss | ECE | seconds | a |"
    assert head in markdown


def test_reports_of_odd_runs(tmp_path):
    names = {"a$^$|b": [0.5]}
    only_oracle = make({"weak*": names})
    lost = failed(make({"flowalign": names, "weak": names}), "weak", "a$^$|b")
    uneven = make({"flowalign": names, "weak": names}) + make({"flowalign": names}, n_shots=16)
    for k, rows in enumerate([only_oracle, lost, uneven, lost[1:], make({"weak": names})]):
        text = write_report(rows, tmp_path / str(k)).read_text()
        assert "nan" not in re.sub(r"<svg.*?</svg>", "", text, flags=re.DOTALL)
        markdown = (tmp_path / str(k) / "report.md").read_text()
        tables = [line for line in markdown.splitlines() if line.startswith("|")]
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in tables}) == 1
    with pytest.raises(ValueError, match="nothing to report"):
        write_report([], tmp_path)


def test_a_report_depends_on_its_rows_alone(tmp_path):
    for name in "ab":
        write_report(make(), tmp_path / name)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()
