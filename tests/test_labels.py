"""Lists of labels, how labels are shown, and how what people type is matched to them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pawmatch.errors import BadOption, UnknownLabel, UnknownTask
from pawmatch.labels import (
    VARIANT_NAMES,
    bundled_tasks,
    display_name,
    display_names,
    find_label,
    find_task,
    new_task,
    read_labels,
    task_of,
)
from pawmatch.models import VARIANTS

BREEDS = read_labels("breed")
LISTS = ("artist", "breed", "breed120")
PACKAGE = Path(__file__).parents[1] / "pawmatch"


def test_tasks_are_those_that_have_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [find_task(name).title for name in bundled_tasks()] == ["Dog breed", "Artist", "Artist (CHAE)"]
    for place in ("birds", "breed/cnn", "backbone/net"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "config.json").write_text("{}")
    monkeypatch.setenv("PAWMATCH_WEIGHTS", str(tmp_path))
    assert bundled_tasks() == ("breed", "birds")
    monkeypatch.setenv("PAWMATCH_WEIGHTS", str(tmp_path / "none"))
    assert bundled_tasks() == ("breed", "artist", "artist-chae")


@pytest.mark.parametrize("name", ["", "Breed", "dogs", "x" * 1000, None, ["breed"]])
def test_an_unknown_task_is_told_the_known_ones(name: str) -> None:
    with pytest.raises(UnknownTask, match=r"use breed, artist or artist-chae.$") as caught:
        find_task(name)
    assert len(str(caught.value)) < 120


@pytest.mark.parametrize("text", ["", "[]", '{"task": "breed"}', '{"task": {"name": 1}}', "[" * 100_000])
def test_a_malformed_config_leaves_general_words(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    task = task_of("garden_bird", tmp_path)
    assert (task.name, task.title, task.subject) == ("garden_bird", "Garden bird", "picture")
    assert task_of("breed", tmp_path) == new_task("breed")


def test_every_variant_that_can_be_built_has_a_name() -> None:
    assert tuple(VARIANT_NAMES) == tuple(VARIANTS)


@pytest.mark.parametrize(
    ("name", "count", "first", "last"),
    [
        ("breed", 124, "Afghan_Hound", "Wire-Haired_Fox_Terrier"),
        ("breed120", 120, "Affenpinscher", "Yorkshire_Terrier"),
        ("artist", 11, "Camille_Pissarro", "Vincent_van_Gogh"),
    ],
)
def test_lists(name: str, count: int, first: str, last: str) -> None:
    labels = read_labels(name)
    assert (len(labels), len(set(labels)), labels[0], labels[-1]) == (count, count, first, last)
    assert (list(labels) == sorted(labels)) == (name != "breed")


def test_the_two_breed_lists_differ_by_four() -> None:
    missing = {"Shiba_Inu", "Dachshund", "Bichon_Frise", "Havanese"}
    assert set(BREEDS) - set(read_labels("breed120")) == missing
    assert set(read_labels("breed120")) < set(BREEDS)


def test_other_lists_are_unknown() -> None:
    for name in ("cats", "", "../labels/breed"):
        with pytest.raises(BadOption, match="artist, breed, breed120"):
            read_labels(name)


@pytest.mark.shared_data
def test_lists_are_those_of_the_data_and_of_the_published_checkpoint(
    shared_data: Path, shared_reference: Path
) -> None:
    published = (shared_reference / "pawmatchai_labels.txt").read_text().split()
    assert list(BREEDS) == published
    for name, folder in (("breed120", "dogs"), ("artist", "artists")):
        folders = sorted(path.name for path in (shared_data / folder / "train").iterdir())
        assert list(read_labels(name)) == folders


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("Border_Collie", "Border Collie"),
        ("Shih-Tzu", "Shih-Tzu"),
        ("Black-and-Tan_Coonhound", "Black-and-Tan Coonhound"),
        ("Henri_de_Toulouse-Lautrec", "Henri de Toulouse-Lautrec"),
        ("Paul_Cezanne", "Paul Cézanne"),
        ("Boston_Bull", "Boston Terrier"),
        ("Pembroke", "Pembroke Welsh Corgi"),
        ("my_own_class", "my own class"),
    ],
)
def test_display_names(label: str, name: str) -> None:
    assert display_name(label) == name


def test_every_display_name_belongs_to_a_label_and_is_its_own() -> None:
    everything = [label for name in LISTS for label in read_labels(name)]
    assert set(display_names()) <= set(everything)
    assert all(display_name(label) != label.replace("_", " ") for label in display_names())
    assert len({display_name(label) for label in everything}) == len(set(everything))


@pytest.mark.parametrize("name", LISTS)
def test_every_label_is_found_however_it_is_written(name: str) -> None:
    labels = read_labels(name)
    for label in labels:
        shown = display_name(label)
        for text in (label, shown, shown.upper(), label.lower().replace("_", ""), f" {shown} "):
            assert find_label(labels, text) == label
        assert find_label(labels, shown.replace(" ", "-").replace("é", "e")) == label


def test_accents_do_not_matter() -> None:
    assert find_label(BREEDS, "bichon frisé") == "Bichon_Frise"
    assert find_label(read_labels("artist"), "paul ce\u0301zanne") == "Paul_Cezanne"


def test_a_label_means_itself_even_where_another_is_shown_like_it() -> None:
    labels = ("Maltese_Dog", "Maltese")
    assert [find_label(labels, label) for label in labels] == list(labels)
    assert [find_label(labels[::-1], label) for label in labels] == list(labels)


@pytest.mark.parametrize(
    ("text", "suggested"),
    [
        ("Boarder Coly", ["Border Collie"]),
        ("corgi", ["Pembroke Welsh Corgi", "Cardigan Welsh Corgi"]),
        ("poodle", ["Miniature Poodle", "Standard Poodle", "Toy Poodle"]),
        ("Goldn Retriver", ["Golden Retriever"]),
    ],
)
def test_unknown_labels_get_suggestions(text: str, suggested: list[str]) -> None:
    with pytest.raises(UnknownLabel, match="did you mean") as caught:
        find_label(BREEDS, text)
    message = str(caught.value)
    assert repr(text) in message
    assert all(name in message for name in suggested)
    assert message.count(",") + message.count(" or ") <= 2


@pytest.mark.parametrize("text", ["", "???", "two\nlines", "x" * 10**6, "<b>"])
def test_what_resembles_nothing_gets_an_example(text: str) -> None:
    with pytest.raises(UnknownLabel, match=r"124 classes; use one of them, such as Afghan Hound.$") as caught:
        find_label(BREEDS, text)
    assert len(str(caught.value)) < 200
    assert str(caught.value).isprintable()
