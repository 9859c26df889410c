import flowalign


def test_versions_are_shown(capsys):
    flowalign.show_versions()
    lines = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert lines["flowalign"] == flowalign.__version__
    assert lines["python"][0] == "3"
    assert "CUDA" in lines["torch threads"]
    assert {"numpy", "scikit-learn", "torch", "machine"} <= set(lines)
