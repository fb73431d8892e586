"""Settings of the service: one table, read from PAWMATCH_* variables or from the flags of `serve`."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from pawmatch.errors import BadOption
from pawmatch.labels import COLORMAPS, bundled_tasks, task_of
from pawmatch.results import Task

PREFIX = "PAWMATCH_"
TASK_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
TRUE = ("1", "true", "yes", "on")
FALSE = ("0", "false", "no", "off")
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Proxies = bool | tuple[Network, ...]
PUBLIC_RATE = 60  # photos a minute: more than a person looks at, and a fraction of what two cores answer


@dataclass(frozen=True)
class Option:
    """One row of the table: how a setting is named, what it does, what it is if nothing is said."""

    name: str
    default: Any
    help: str
    parse: Callable[[str], Any]
    choices: tuple[str, ...] = ()

    @property
    def variable(self) -> str:
        """The environment variable, such as PAWMATCH_PORT."""
        return PREFIX + self.name.upper()

    @property
    def flag(self) -> str:
        """The flag of `pawmatch serve`, such as --port."""
        return "--" + self.name.replace("_", "-")

    def read(self, text: str, origin: str) -> Any:
        """The value that `text` stands for; raises BadOption naming `origin` and the text."""
        try:
            value = self.parse(text)
        except ValueError as exc:
            raise BadOption(f"{origin} is {text!r}; {exc}.") from exc
        if self.choices and value not in self.choices:
            raise BadOption(f"{origin} is {text!r}; use one of {', '.join(self.choices)}.")
        return value


def whole(lowest: int, highest: int) -> Callable[[str], int]:
    """A parser of whole numbers in a range."""

    def parse(text: str) -> int:
        # int() alone would also take "1_000" and Arabic digits.
        if not (text.isascii() and text.isdigit()) or not lowest <= int(text) <= highest:
            raise ValueError(f"use a whole number from {lowest} to {highest}")
        return int(text)

    return parse


def share(text: str) -> float:
    """A number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise ValueError("use a number from 0 to 1")
    return value


def yes_or_no(text: str) -> bool:
    """A switch."""
    if text.lower() not in TRUE + FALSE:
        raise ValueError("use yes or no")
    return text.lower() in TRUE


def read_sources(text: str) -> dict[str, str | None]:
    """Tasks with the places of their weights: "birds=weights/birds,cats=hf://you/cats"."""
    pairs = [pair.partition("=") for pair in text.split(",") if pair.strip()]
    sources: dict[str, str | None] = {task.strip(): place.strip() for task, _, place in pairs}
    if len(sources) < len(pairs) or not all(TASK_NAME.fullmatch(task) for task in sources):
        raise ValueError("use task=folder or task=hf://user/repo, each task once, with commas between them")
    if empty := [task for task, place in sources.items() if not place and task not in bundled_tasks()]:
        raise ValueError(f"use {empty[0]}=folder, since no weights for {empty[0]} are bundled")
    return {task: place or None for task, place in sources.items()}


def host_name(text: str) -> str:
    """A name or address without scheme, path or port."""
    if not text or any(sign in text for sign in "/ @?#") or text.count(":") == 1:
        raise ValueError("use a host name or an address such as 127.0.0.1")
    return text


def proxies(text: str) -> Proxies:
    """Whether proxies are trusted: no, yes, or the networks or addresses of those that are."""
    if text.lower() in TRUE + FALSE:
        return text.lower() in TRUE
    try:
        return tuple(ipaddress.ip_network(part.strip()) for part in text.split(","))
    except ValueError as exc:
        raise ValueError("use yes, no, or addresses such as 10.0.0.0/8,192.168.1.5") from exc


def names(text: str) -> tuple[str, ...]:
    """Host names; "*.example.org" stands for any name below, "*" for any at all."""
    return tuple(host_name(part.strip().lower()) for part in text.split(","))


def origins(text: str) -> tuple[str, ...]:
    """Where pages come from: a scheme and a host, as browsers write them."""
    found = tuple(part.strip().lower() for part in text.split(","))
    if not all(re.fullmatch(r"https?://[^/\s@?#*]+", origin) for origin in found):
        raise ValueError("use addresses such as https://example.org, without a path")
    return found


def setting(default: Any, help: str, parse: Callable[[str], Any] = str, choices: tuple[str, ...] = ()) -> Any:
    """A field of Settings that carries its row of the table."""
    return field(default=default, metadata={"help": help, "parse": parse, "choices": choices})


@dataclass(frozen=True)
class Settings:
    """What the service needs to know before it starts."""

    sources: Mapping[str, str | None] = setting(
        None,
        "tasks to serve and their weights, as task=folder,task=hf://user/repo; the bundled ones if empty",
        read_sources,
    )
    device: str = setting("auto", "where the models run: auto, cpu, cuda or cuda:1")
    engine: str = setting(
        "auto",
        "what runs them: auto, torch, torch-compile or openvino",
        choices=("auto", "torch", "torch-compile", "openvino"),
    )
    host: str = setting("127.0.0.1", "address to listen on; 0.0.0.0 for every interface", host_name)
    port: int = setting(7860, "port to listen on", whole(1, 65535))
    max_upload_mb: int = setting(20, "largest upload in megabytes", whole(1, 20))
    keep_seconds: int = setting(3600, "seconds after which photos and answers are deleted", whole(1, 86_400))
    disk_mb: int = setting(
        1024, "megabytes of disk for photos and answers; more uploads are refused", whole(1, 10**6)
    )
    queue_size: int = setting(32, "how many requests may wait; more are turned away", whole(1, 10_000))
    rate_limit: int | None = setting(
        None,
        "photos a minute from each visitor, 0 for any number; if empty 60, or 0 on this computer only",
        whole(0, 100_000),
    )
    behind_proxy: bool | tuple[Network, ...] = setting(
        False,
        "proxies whose X-Forwarded-For names the visitor: no, yes for all that are not at a public "
        "address, or their addresses, as 10.0.0.0/8,192.168.1.5",
        proxies,
    )
    hosts: tuple[str, ...] = setting(
        (),
        "names that the service is called by, besides addresses, localhost and this computer's own name; "
        "*.example.org for any name below, * for any",
        names,
    )
    origins: tuple[str, ...] = setting(
        (), "pages of others that may call it from a visitor's browser, as https://example.org", origins
    )
    request_log: bool = setting(True, "write one line of JSON per request to standard error", yes_or_no)
    fetch_urls: bool = setting(
        True, "whether a public web address may be given in place of a photo", yes_or_no
    )
    colormap: str = setting("jet", "colours of the heatmaps at first", choices=tuple(COLORMAPS))
    strength: float = setting(0.6, "strength of the heatmaps at first, 0 to 1", share)
    model_url: str = setting("", "address of a model tier that answers instead of models in this process")
    mcp: bool = setting(False, "offer the endpoints to assistants as MCP tools, at /mcp", yes_or_no)
    warm_up: bool = setting(True, "load the models right after the start, not at the first photo", yes_or_no)

    def __post_init__(self) -> None:
        if self.sources is None:
            object.__setattr__(self, "sources", dict.fromkeys(bundled_tasks()))

    def source(self, task: str) -> str | None:
        """Where the weights of a task come from; None for the bundled ones."""
        return self.sources.get(task)

    @property
    def tasks(self) -> dict[str, Task]:
        """The tasks that are served, by name, with the words that their sources have for them so far."""
        return {name: task_of(name, source) for name, source in self.sources.items()}

    @property
    def photos_per_minute(self) -> int:
        """The rate limit in force; 0 for none."""
        if self.rate_limit is not None:
            return self.rate_limit
        return 0 if is_loopback(self.host) else PUBLIC_RATE

    @classmethod
    def from_environ(
        cls, environ: Mapping[str, str], flags: Mapping[str, str | None] | None = None
    ) -> Settings:
        """Settings from variables, overridden by `flags` (name -> text as typed, None if not given).

        An empty text counts as not given. Raises BadOption naming the variable or flag and its value.
        """
        values: dict[str, Any] = {}
        for option in OPTIONS:
            given = {option.flag: (flags or {}).get(option.name)}
            given |= {name: environ.get(name) for name in (option.variable, *COMMON.get(option.name, ()))}
            for origin, text in given.items():
                if text and text.strip():
                    values[option.name] = option.read(text.strip(), origin)
                    break
        values["sources"] = cls._sources(values.get("sources"), environ, flags or {})
        if "host" not in values:
            values["host"] = hosting_address(environ)
        if environ.get("SPACE_ID"):
            # It is reached through the Hub's proxy only, by these names, and from the Hub's pages.
            own = filter(None, environ.get("SPACE_HOST", "").lower().split(","))
            hub: dict[str, Any] = {"behind_proxy": True, "hosts": ("*.hf.space", *own)}
            hub["origins"] = ("https://huggingface.co",)
            values = hub | values
        return cls(**values)

    @staticmethod
    def _sources(
        given: dict[str, str | None] | None, environ: Mapping[str, str], flags: Mapping[str, str | None]
    ) -> dict[str, str | None]:
        """All sources: those given together, or the bundled tasks, and those given one by one."""
        bundled = bundled_tasks()
        sources = dict(given or dict.fromkeys(bundled))
        keys = {source_key(name): name for name in (*bundled, *sources)}
        one_by_one = [
            (key.removeprefix(PREFIX), text) for key, text in environ.items() if key.startswith(PREFIX)
        ]
        for key, text in [*one_by_one, *((key.upper(), text or "") for key, text in flags.items())]:
            if key.endswith("_SOURCE") and text.strip():
                name = keys.get(key, key.removesuffix("_SOURCE").lower().replace("_", "-"))
                sources[name] = text.strip()
        return sources


def source_key(task: str) -> str:
    """The name of the setting that has the source of one task: "GARDEN_BIRDS_SOURCE"."""
    return f"{task.upper().replace('-', '_')}_SOURCE"


# Variables that hosts and Gradio itself use for the same thing; ours goes first.
COMMON = {"port": ("GRADIO_SERVER_PORT", "PORT"), "host": ("GRADIO_SERVER_NAME",)}


def hosting_address(environ: Mapping[str, str]) -> str:
    """The address to listen on when nobody gave one: open on a Space, else this computer only.

    HOST counts only if it is an address: some shells keep the computer's name in it.
    """
    try:
        return str(ipaddress.ip_address(environ.get("HOST", "")))
    except ValueError:
        return "0.0.0.0" if environ.get("SPACE_ID") else Settings.host


def is_loopback(host: str) -> bool:
    """Whether an address to listen on can be reached from this computer only."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def fetches_urls() -> bool:
    """Whether the environment lets web addresses be fetched; for scripts, which have no Settings."""
    option = next(option for option in OPTIONS if option.name == "fetch_urls")
    text = os.environ.get(option.variable, "").strip()
    return bool(option.read(text, option.variable) if text else option.default)


def on_lent_gpu() -> bool:
    """Whether this is a ZeroGPU Space: a GPU is there only while a request runs, and nothing is compiled."""
    return os.environ.get("SPACES_ZERO_GPU", "").lower() in TRUE


OPTIONS: tuple[Option, ...] = tuple(
    Option(entry.name, entry.default, **entry.metadata) for entry in fields(Settings)
)


def source_options() -> tuple[Option, ...]:
    """A row for the source of each bundled task, a short form of what `sources` says of one."""
    return tuple(
        Option(
            source_key(task).lower(),
            None,
            f"{task} weights: a folder or hf://user/repo; bundled if empty",
            str,
        )
        for task in bundled_tasks()
    )
