"""The command: what is run, what is said to be left out, what is refused."""

import json
from functools import partial

import numpy as np
import pytest
from benchmark_sets import write_small_set
from view_files import write_views

import flowalign.benchmark.__main__ as command
from flowalign.benchmark import METHODS, UNLABELED_METHODS
from flowalign.benchmark.__main__ import main

pytest.importorskip("matplotlib")


def test_the_command(tmp_path, capsys):
    out = tmp_path / "report"
    arguments = ["--out", str(out), "--shots", "1", "--seeds", "1", "--jobs", "1"]
    main([*arguments, "--methods", "flowalign", "zero-shot"])
    assert capsys.readouterr().out.startswith("2 fits, 0 failed")
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
        (["--datasets", "DTD"], "--datasets goes with --images"),
        (["--shots", "0"], "shots must be at least 1, got 0"),
        (["--seeds", "0"], "n_seeds must be at least 1, got 0"),
        (["--methods", "magic"], "invalid choice: 'magic'"),
        (["--setting", "magic"], "invalid choice: 'magic'"),
        (["--setting", "several-views"], "no feature set of --features has several views"),
        (
            ["--setting", "open-set", "--methods", "zero-shot", "--oracle"],
            "--methods, --oracle: --setting open-set has methods of its own",
        ),
        (
            ["--setting", "transductive", "--methods", "TaskRes"],
            "--methods: none of TaskRes is for --setting transductive",
        ),
    ],
)
def test_a_wrong_command_is_told_so(arguments, message, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--out", str(tmp_path), *arguments])
    assert message in capsys.readouterr().err


def test_a_run_lists_what_its_settings_leave_out(tmp_path, capsys):
    write_small_set(tmp_path / "plain.npz")
    out = ["--out", str(tmp_path / "out"), "--shots", "1", "5", "--seeds", "1", "--jobs", "1"]
    main(
        [*out, "--features", str(tmp_path), "--setting", "inductive", "semi-supervised",
         "transductive", "--methods", "zero-shot", "class means", "TransCLIP"]
    )  # fmt: skip
    said = capsys.readouterr().out.splitlines()
    assert said[:4] == [
        "--setting inductive: without TransCLIP.",
        "--setting semi-supervised and transductive: without class means.",
        "undrawn training rows, 1 a class: without TransCLIP.",
        "undrawn training rows, 5 a class: without plain, zero-shot, TransCLIP.",
    ]
    assert said[4].startswith("13 fits, 0 failed.")


def test_sets_of_one_view_are_said_to_be_left_out(tmp_path, capsys):
    write_small_set(tmp_path / "plain.npz")
    write_views(tmp_path / "both.npz")
    out = ["--out", str(tmp_path / "out"), "--shots", "1", "--seeds", "1", "--jobs", "1"]
    main([*out, "--features", str(tmp_path), "--setting", "several-views"])
    said = capsys.readouterr().out
    assert said.startswith("--setting several-views: without plain, of one view.\n4 fits")


@pytest.mark.parametrize("given", [True, False])
def test_options_reach_each_setting(given, tmp_path, monkeypatch):
    seen = {}

    def keep(name, paths, out, **params):
        seen[name] = params
        return []

    for name in ("run", "run_unlabeled", "run_open_set"):
        monkeypatch.setattr(command, name, partial(keep, name))
    options = ["--oracle", "--jobs", "3", "--seeds", "2", "--shots", "5"] if given else []
    settings = ["--setting", "inductive", "realistic", "transductive", "open-set"]
    with pytest.raises(SystemExit):  # there are no rows to report
        main(["--out", str(tmp_path), *settings, *options])
    draws = {"shots": [5], "n_seeds": 2, "n_jobs": 3}
    if not given:
        draws = {"shots": [1, 4, 16], "n_seeds": 3, "n_jobs": -1}
    assert seen["run_open_set"] == draws
    assert seen["run"] == {**draws, "methods": METHODS, "oracle": given}  # TabICL has to be named
    pooled = {"settings": ["realistic", "transductive"], "methods": UNLABELED_METHODS}
    assert seen["run_unlabeled"] == {**draws, **pooled, "oracle": given}


def test_a_run_in_which_all_fail_ends_with_the_first_reason(tmp_path):
    path = write_small_set(tmp_path / "set.npz", y_train=np.repeat([0, 1, 2], [5, 5, 10]))
    with pytest.raises(SystemExit) as stop:
        main(
            ["--out", str(tmp_path / "out"), "--features", str(path), "--methods", "zero-shot",
             "--jobs", "1"]
        )  # fmt: skip
    assert stop.value.code.startswith("All failed; the first: ValueError: ZeroShot needs a sample")
