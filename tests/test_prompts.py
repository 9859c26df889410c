"""Templates have one place for the name."""

import pytest

from flowalign import prompts


@pytest.mark.parametrize(
    "templates",
    [prompts.IMAGE_TEMPLATES, prompts.AUDIO_TEMPLATES, prompts.BENCHMARK_TEMPLATES.values()],
)
def test_shipped_templates_have_one_place_for_the_name(templates):
    assert all(template.count("{}") == 1 for template in templates)
    assert prompts.check_templates(templates) == tuple(templates)


def test_names_become_words():
    assert prompts.words("tabby_cat") == "tabby cat"
    assert prompts.words(" F-16A/B ") == "F-16A/B"


def test_only_the_place_is_filled():
    assert prompts.fill("a {} in {braces}", "{cat}") == "a {cat} in {braces}"


@pytest.mark.parametrize("templates", ["no place", ["a {}", "no place"], [], [3], ["{name}"]])
def test_templates_without_a_place_are_refused(templates):
    with pytest.raises(ValueError, match="templates must be"):
        prompts.check_templates(templates)
