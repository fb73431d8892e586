"""An installed wheel brings along what a checkout has beside the package: weights, examples, templates."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CODE = """
import pawmatch
from pawmatch.labels import bundled_tasks, bundled_weights
from pawmatch.ui import html
from pawmatch.ui.handlers import EXAMPLES, read_examples
print(pawmatch.__file__, bundled_weights(), EXAMPLES, sep="\\n")
print(len(bundled_tasks()), len(read_examples(EXAMPLES)), bool(html.header(())))
"""


def test_a_wheel_has_weights_and_examples_and_finds_them(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    source = tmp_path / "source"
    source.mkdir()
    for name in (
        "pawmatch",
        "weights",
        "examples",
        "pyproject.toml",
        "setup.py",
        "README.md",
        "requirements.txt",
    ):
        (source / name).symlink_to(ROOT / name)
    build = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "-q"]
    subprocess.run([*build, "-w", str(tmp_path)], cwd=source, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    environment = {name: value for name, value in os.environ.items() if name != "PAWMATCH_WEIGHTS"}
    environment["PYTHONPATH"] = str(tmp_path / "site")
    run = subprocess.run(
        [sys.executable, "-c", CODE],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    *places, counts = run.stdout.splitlines()
    assert all(place.startswith(str(tmp_path / "site" / "pawmatch")) for place in places)
    assert counts == f"3 {len(list((ROOT / 'examples').glob('*.jpg')))} True"
