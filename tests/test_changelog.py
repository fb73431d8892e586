"""The changelog, the package and the tags agree on what the version is."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

import pawmatch

ROOT = Path(__file__).parents[1]
VERSIONS = re.findall(r"^## (\d+\.\d+\.\d+) - \d{4}-\d{2}-\d{2}$", (ROOT / "CHANGELOG.md").read_text(), re.M)


def test_the_newest_version_is_that_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert VERSIONS[0] == pawmatch.__version__ == project["version"]
    assert sorted(VERSIONS, key=lambda v: tuple(map(int, v.split("."))), reverse=True) == VERSIONS


def test_every_tag_has_its_paragraph() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    tags = subprocess.run(
        ["git", "tag", "--list", "v*"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert {tag.removeprefix("v") for tag in tags.stdout.split()} <= set(VERSIONS)
