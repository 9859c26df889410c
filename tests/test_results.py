"""The tables of the documentation, made of rows of a benchmark."""

from argparse import Namespace

import pytest
import results
from benchmark_rows import make
from feature_files import write_feature_set

from flowalign.benchmark.open_set import SCORES
from flowalign.benchmark.pools import SETTINGS
from flowalign.datasets import make_cross_modal


def test_a_line_for_each_method_with_means_and_wins():
    head, *body = results.accuracy_table(make(n_shots=1) + make(n_shots=4))
    assert head == ["method", "1", "w/t/l", "4", "w/t/l", "log-loss", "ECE", "seconds"]
    lines = {name: cells for name, *cells in body}
    assert lines["flowalign"] == ["65.0", "", "65.0", "", "0.35", "0.100", "0.5"]
    assert lines["peer <1>"][:2] == ["60.0", "1/1/0"]


def test_a_method_without_an_answer_has_none_in_the_table():
    rows = make({"flowalign": {"a": [0.5]}}, n_shots=1) + make(n_shots=4)
    lines = {name: cells for name, *cells in results.accuracy_table(rows)}
    assert lines["weak"][:2] == ["-", ""]


def test_open_sets_have_areas_then_shares_that_pass():
    row = {"set": "a", "n_shots": 4, "seed": 0, "refused": 0.07}
    row |= {"auroc": dict.fromkeys(SCORES, 0.6), "fpr95": dict.fromkeys(SCORES, 0.3)}
    head, first, *_, last = results.open_set_table([row])
    assert head == ["score", "AUROC 4", "FPR 4"]
    assert first == ["flowalign", "60.0", "30.0"]
    assert last == ["known rows refused", "7.0", ""]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two groups of sets, and documentation of their own."""
    for seed, group in enumerate(["first_group", "second_group"]):
        data = make_cross_modal(3, n_train=3, n_test=6, n_features=8, random_state=seed)
        (tmp_path / "sets" / group).mkdir(parents=True)
        write_feature_set(tmp_path / "sets" / group / f"set_{seed}.npz", data)
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{results.MARKS[0]}old\n{results.MARKS[1]}after\n")
    monkeypatch.setattr(results, "README", readme)
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    return tmp_path


def test_one_command_writes_all_tables(folder, capsys):
    given = ["--shots", "1", "--seeds", "1", "--jobs", "1"]
    settings = ["inductive", "transductive", "open-set", "several-views"]
    results.main(
        [str(folder / "sets"), "--out", str(folder / "out"), "--settings", *settings, *given]
    )
    assert "Error" not in capsys.readouterr().out
    text = (folder / "results" / "inductive.rst").read_text()
    titles = [line for line in text.splitlines() if line.startswith("..")]
    assert titles == [f".. csv-table:: {n}" for n in ("All 2 sets", "First group", "Second group")]
    assert '   "**flowalign**", "' in text
    assert "minutes of fits and predictions; commit " in text
    assert results.COLUMNS in text
    text = (folder / "results" / "transductive.rst").read_text()
    assert ".. csv-table:: Second group, test rows in batches\n" in text
    assert '"known rows refused"' in (folder / "results" / "open-set.rst").read_text()
    assert not (folder / "results" / "several-views.rst").exists()  # there are no such sets
    for group, sets in [
        ("all", "set_0 | set_1"),
        ("first_group", "set_0"),
        ("second_group", "set_1"),
    ]:
        report = (folder / "out" / group / "report.md").read_text()
        assert f"| seconds | {sets} |\n" in report
        assert "## Unlabelled, all test rows: 1 " in report
        assert "## None of these: 1 " in report
    readme = (folder / "README.md").read_text()
    assert readme.startswith(f"before\n{results.MARKS[0]}|  | first group, 1 | second group, 1 |\n")
    assert readme.endswith(f"{results.MARKS[1]}after\n")
    assert "old" not in readme
    assert "| **flowalign** | **" in readme
    assert '   "**flowalign**", "' in (folder / "results" / "summary.rst").read_text()


def test_means_in_readme_are_those_of_the_rows(folder):
    rows = make({"flowalign": {"a": [0.5, 0.6]}, "peer": {"a": [0.7]}}, n_shots=4)
    results.RESULTS.mkdir()
    results.write_summary({"one_group": rows})
    lines = (folder / "README.md").read_text().splitlines()
    assert lines[2:6] == [
        "|  | one group, 4 |", "| --- | ---: |", "| **flowalign** | **55.0** |", "| peer | 70.0 |",
    ]  # fmt: skip


def test_a_method_that_failed_comes_last_in_the_short_table():
    rows = make({"flowalign": {"a": [0.5]}, "bad": {"a": [0.9]}, "good": {"a": [0.7]}})
    failed = [row for row in rows if row["method"] == "bad"]
    for row in failed:
        row["error"] = "ValueError: no"
    weak = make({"weak": {"a": [0.2]}})
    _, *body = results.means({"group": [*rows, *weak]})
    assert [line[0] for line in body] == ["flowalign", "good", "weak", "bad"]


def test_what_would_fail_at_the_end_is_refused_at_the_start(folder, capsys):
    (folder / "README.md").write_text("no marks\n")
    for sets, said in [
        (folder / "sets" / "first_group", "no folder with .npz files"),
        (folder / "sets", "README.md lacks a line <!-- results --> or <!-- end of results -->"),
    ]:
        with pytest.raises(SystemExit) as stop:
            results.main([str(sets), "--out", str(folder / "out")])
        assert stop.value.code == 2
        assert said in capsys.readouterr().err
    assert not (folder / "out").exists()
    assert not (folder / "results").exists()


def test_losses_and_seconds_are_those_with_the_most_samples():
    rows = make({"flowalign": {"a": [0.5]}}, n_shots=1) + make({"flowalign": {"a": [0.7]}})
    _, (_, *cells) = results.accuracy_table(rows)
    assert cells == ["50.0", "", "70.0", "", "0.30", "0.100", "0.5"]


def test_a_setting_is_run_alone_with_all_its_draws(folder):
    args = Namespace(shots=[1], seeds=2, jobs=1, out=folder / "out")
    paths = list(folder.glob("sets/*/*.npz"))
    rows = results.measured("transductive", paths, args)
    assert {row["pool"] for row in rows} == set(SETTINGS["transductive"])
    assert {row["seed"] for row in rows} == {0, 1}
    assert {row["set"] for row in rows} == {"set_0", "set_1"}


def test_tables_hold_the_rows_of_their_pool_or_their_set():
    pools = {"all test rows": 0.2, "test rows in batches": 0.4}
    rows = [r | {"pool": p} for p, v in pools.items() for r in make({"flowalign": {"a": [v]}})]
    body = [line for line in results.tables("transductive", "T", rows) if "flowalign" in line]
    assert [line.split('", "')[1] for line in body] == ["20.0", "40.0"]
    rows = make({"flowalign": {"a": [0.3], "b": [0.6]}})
    body = [line for line in results.tables("several-views", "T", rows) if "flowalign" in line]
    assert [line.split('", "')[1] for line in body] == ["30.0", "60.0"]
