"""What is installed: the constraints pin everything that the requirements reach, to versions they allow."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
APART = {"pretrained", "ray"}  # exporting backbones, and clusters: nothing else needs them
# torch pins these itself, each build of it others.
LEFT_TO_TORCH = re.compile(r"nvidia-|cuda-|triton|setuptools$")


def lines(path: str) -> list[str]:
    """The lines of a file without comments and options."""
    text = (ROOT / path).read_text(encoding="utf-8")
    found = [re.sub(r"(^|\s+)#.*", "", line).strip() for line in text.splitlines()]
    return [line for line in found if line and not line.startswith("-r ")]


def extras() -> dict[str, list[Requirement]]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {name: [*map(Requirement, entries)] for name, entries in project["optional-dependencies"].items()}


def requirements() -> list[Requirement]:
    """What the app and its checks need; the extras APART are for other purposes and other computers."""
    wanted = [Requirement(line) for line in lines("requirements.txt")]
    wanted += [entry for name, entries in extras().items() if name not in APART for entry in entries]
    return [entry for entry in wanted if entry.name != "pawmatch"]


def pins() -> dict[str, Version]:
    """Name and version of each constraint; anything but NAME==VERSION fails."""
    found = [re.fullmatch(r"([a-z0-9-]+)==([0-9][0-9a-z.]*)", line) for line in lines("constraints.txt")]
    assert all(found)
    return {match[1]: Version(match[2]) for match in found if match}


@pytest.mark.parametrize("requirement", requirements(), ids=lambda requirement: requirement.name)
def test_a_requirement_has_a_lower_bound_a_capped_major_and_a_pin_between(requirement: Requirement) -> None:
    operators = {entry.operator: entry.version for entry in requirement.specifier}
    assert set(operators) == {">=", "<"}
    assert re.fullmatch(r"\d+", operators["<"])
    assert pins()[canonicalize_name(requirement.name)] in requirement.specifier


def test_the_development_extra_has_all_the_others() -> None:
    (own,) = [entry for entry in extras()["dev"] if entry.name == "pawmatch"]
    assert own.extras == set(extras()) - {"dev", *APART}


def test_constraints_are_exact_versions_in_order_and_nothing_else() -> None:
    assert list(pins()) == sorted(pins())
    text = (ROOT / "constraints.txt").read_text()
    assert not re.search(r"https?:|file:|@|\+|/opt|/home|index", text)


def test_constraints_reach_as_far_as_the_requirements_do() -> None:
    """Whatever is installed because a requirement asks for it is pinned; tried on what is installed here."""
    waiting, seen = [canonicalize_name(entry.name) for entry in requirements()], set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # an optional one, or one for other systems
        needed = [
            need for need in map(Requirement, needs) if not need.marker or need.marker.evaluate({"extra": ""})
        ]
        waiting += [canonicalize_name(need.name) for need in needed]
    assert sorted(name for name in seen if not LEFT_TO_TORCH.match(name) and name not in pins()) == []


def test_every_check_installs_the_constraints_or_says_that_it_does_not() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    installs = [line for line in script.splitlines() if "pip install" in line and not line.startswith("#")]
    assert installs
    assert all('"${constraints[@]}"' in line for line in installs)
