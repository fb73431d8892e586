"""Settings: defaults, precedence, and errors that name the variable and its value."""

from __future__ import annotations

import json
from ipaddress import ip_network
from pathlib import Path

import pytest

from pawmatch.errors import BadOption
from pawmatch.labels import bundled_tasks
from pawmatch.settings import OPTIONS, Settings, source_options


def test_defaults_serve_bundled_weights_on_this_computer_only() -> None:
    settings = Settings.from_environ({})
    assert settings == Settings()
    assert (settings.host, settings.port, settings.source("breed")) == ("127.0.0.1", 7860, None)


def test_every_setting_can_be_given_as_a_variable() -> None:
    given = {
        "PAWMATCH_SOURCES": "breed=hf://someone/breeds, birds=folder,artist",
        "PAWMATCH_DEVICE": "cpu",
        "PAWMATCH_ENGINE": "torch",
        "PAWMATCH_HOST": "0.0.0.0",
        "PAWMATCH_PORT": "8000",
        "PAWMATCH_MAX_UPLOAD_MB": "5",
        "PAWMATCH_KEEP_SECONDS": "600",
        "PAWMATCH_DISK_MB": "99",
        "PAWMATCH_QUEUE_SIZE": "3",
        "PAWMATCH_RATE_LIMIT": "30",
        "PAWMATCH_BEHIND_PROXY": "yes",
        "PAWMATCH_HOSTS": "Dogs.example, *.park.example",
        "PAWMATCH_ORIGINS": "https://friend.example,http://localhost:3000",
        "PAWMATCH_REQUEST_LOG": "no",
        "PAWMATCH_FETCH_URLS": "no",
        "PAWMATCH_COLORMAP": "viridis",
        "PAWMATCH_STRENGTH": "0.25",
        "PAWMATCH_MODEL_URL": "http://models:8000",
        "PAWMATCH_MCP": "yes",
        "PAWMATCH_WARM_UP": "no",
    }
    assert set(given) == {option.variable for option in OPTIONS}
    assert Settings.from_environ(given) == Settings(
        sources={"breed": "hf://someone/breeds", "birds": "folder", "artist": None},
        device="cpu",
        engine="torch",
        host="0.0.0.0",
        port=8000,
        max_upload_mb=5,
        keep_seconds=600,
        disk_mb=99,
        queue_size=3,
        rate_limit=30,
        behind_proxy=True,
        hosts=("dogs.example", "*.park.example"),
        origins=("https://friend.example", "http://localhost:3000"),
        request_log=False,
        fetch_urls=False,
        colormap="viridis",
        strength=0.25,
        model_url="http://models:8000",
        mcp=True,
        warm_up=False,
    )


def test_every_task_has_a_short_form_for_its_source() -> None:
    tasks = bundled_tasks()
    given = {option.variable: f"of {task}" for option, task in zip(source_options(), tasks, strict=True)}
    assert "PAWMATCH_ARTIST_CHAE_SOURCE" in given
    assert Settings.from_environ(given).sources == {task: f"of {task}" for task in tasks}
    flags = {option.name: "typed" for option in source_options()}
    assert Settings.from_environ(given, flags).sources == dict.fromkeys(tasks, "typed")
    more = Settings.from_environ({"PAWMATCH_GARDEN_BIRDS_SOURCE": "folder"})
    assert list(more.sources) == [*tasks, "garden-birds"]


def test_the_tasks_served_have_the_words_of_their_checkpoints(tmp_path: Path) -> None:
    words = {"name": "birds", "title": "Birds", "subject": "bird", "noun": "species", "plural": "species"}
    (tmp_path / "config.json").write_text(json.dumps({"task": words}))
    settings = Settings.from_environ({"PAWMATCH_SOURCES": f"birds={tmp_path},breed,cats=hf://you/cats"})
    assert [task.title for task in settings.tasks.values()] == ["Birds", "Dog breed", "Cats"]
    assert settings.tasks["birds"].subject == "bird"
    assert settings.source("breed") is None


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("PORT", "80000"),
        ("PORT", "0"),
        ("PORT", "http"),
        ("PORT", "1_000"),
        ("PORT", "-1"),
        ("ENGINE", "abacus"),
        ("COLORMAP", "rainbow"),
        ("STRENGTH", "2"),
        ("STRENGTH", "nan"),
        ("STRENGTH", "much"),
        ("WARM_UP", "maybe"),
        ("HOST", "http://localhost"),
        ("HOST", "localhost:80"),
        ("MAX_UPLOAD_MB", "1.5"),
        ("QUEUE_SIZE", ""),
        ("BEHIND_PROXY", "maybe"),
        ("BEHIND_PROXY", "10.0.0.1/8"),
        ("HOSTS", "https://dogs.example"),
        ("HOSTS", "dogs.example,,"),
        ("ORIGINS", "dogs.example"),
        ("ORIGINS", "https://dogs.example/"),
        ("ORIGINS", "*"),
        ("SOURCES", "birds"),
        ("SOURCES", "Birds=folder"),
        ("SOURCES", "breed=one,breed=two"),
    ],
)
def test_a_bad_value_names_variable_and_value(name: str, text: str) -> None:
    if not text:
        assert Settings.from_environ({f"PAWMATCH_{name}": text}) == Settings()
        return
    with pytest.raises(BadOption) as caught:
        Settings.from_environ({f"PAWMATCH_{name}": text})
    message = str(caught.value)
    assert message.startswith(f"PAWMATCH_{name} is {text!r}; use ")
    assert message.endswith(".")


def test_a_flag_beats_a_variable_and_is_named_in_its_error() -> None:
    environ = {"PAWMATCH_PORT": "8000"}
    assert Settings.from_environ(environ, {"port": "9000", "host": None}).port == 9000
    with pytest.raises(BadOption, match=r"^--port is 'x'; use a whole number"):
        Settings.from_environ(environ, {"port": "x"})


@pytest.mark.parametrize(
    ("environ", "host", "port"),
    [
        ({"PORT": "8080"}, "127.0.0.1", 8080),
        ({"PORT": "8080", "GRADIO_SERVER_PORT": "8081"}, "127.0.0.1", 8081),
        ({"PORT": "8080", "PAWMATCH_PORT": "8082"}, "127.0.0.1", 8082),
        ({"HOST": "0.0.0.0"}, "0.0.0.0", 7860),
        ({"HOST": "my-laptop"}, "127.0.0.1", 7860),
        ({"SPACE_ID": "someone/pawmatch"}, "0.0.0.0", 7860),
        ({"SPACE_ID": "someone/pawmatch", "GRADIO_SERVER_NAME": "::1"}, "::1", 7860),
        ({"PAWMATCH_HOST": "localhost", "GRADIO_SERVER_NAME": "0.0.0.0"}, "localhost", 7860),
    ],
)
def test_hosting_variables_are_respected(environ: dict[str, str], host: str, port: int) -> None:
    settings = Settings.from_environ(environ)
    assert (settings.host, settings.port) == (host, port)


@pytest.mark.parametrize(
    ("environ", "rate", "behind_proxy"),
    [
        ({}, 0, False),
        ({"PAWMATCH_HOST": "localhost"}, 0, False),
        ({"PAWMATCH_HOST": "[::1]"}, 0, False),
        ({"PAWMATCH_HOST": "0.0.0.0"}, 60, False),
        ({"PAWMATCH_HOST": "dogs.example"}, 60, False),
        ({"PAWMATCH_HOST": "0.0.0.0", "PAWMATCH_RATE_LIMIT": "0"}, 0, False),
        ({"PAWMATCH_RATE_LIMIT": "5"}, 5, False),
        ({"SPACE_ID": "someone/pawmatch"}, 60, True),
        ({"SPACE_ID": "someone/pawmatch", "PAWMATCH_BEHIND_PROXY": "no"}, 60, False),
    ],
)
def test_strangers_are_limited_and_this_computer_is_not(
    environ: dict[str, str], rate: int, behind_proxy: bool
) -> None:
    settings = Settings.from_environ(environ)
    assert (settings.photos_per_minute, settings.behind_proxy) == (rate, behind_proxy)


def test_proxies_are_trusted_by_their_addresses() -> None:
    settings = Settings.from_environ({"PAWMATCH_BEHIND_PROXY": "10.0.0.0/8, ::1"})
    assert settings.behind_proxy == (ip_network("10.0.0.0/8"), ip_network("::1"))


def test_a_space_knows_its_own_names() -> None:
    space = {"SPACE_ID": "me/dogs", "SPACE_HOST": "me-dogs.hf.space,Dogs.example"}
    assert Settings.from_environ(space).hosts == ("*.hf.space", "me-dogs.hf.space", "dogs.example")
    assert Settings.from_environ(space).origins == ("https://huggingface.co",)
    assert Settings.from_environ({"SPACE_HOST": "x.example"}).hosts == ()
    assert Settings.from_environ({**space, "PAWMATCH_HOSTS": "dogs.example"}).hosts == ("dogs.example",)


def test_a_bad_hosting_variable_is_named() -> None:
    with pytest.raises(BadOption, match=r"^PORT is 'eighty'"):
        Settings.from_environ({"PORT": "eighty"})


def test_the_table_has_a_sentence_for_every_row() -> None:
    assert all(option.help for option in OPTIONS)
    assert len({option.flag for option in OPTIONS}) == len(OPTIONS)


def test_choices_are_those_of_the_code_that_uses_them() -> None:
    from pawmatch.engines import ENGINES

    choices = {option.name: option.choices for option in OPTIONS}
    assert set(ENGINES) <= set(choices["engine"])
