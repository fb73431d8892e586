"""The package's front door: free to import, and its list of names is true."""

from __future__ import annotations

import subprocess
import sys

import pytest

import pawmatch

HEAVY = ("torch", "numpy", "PIL", "gradio", "timm", "cv2", "huggingface_hub", "safetensors")


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = f"import sys, pawmatch; print(*[name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_all_is_sorted_and_every_name_resolves() -> None:
    assert list(pawmatch.__all__) == sorted(pawmatch.__all__)
    assert dir(pawmatch) == sorted(pawmatch.__all__)
    assert all(getattr(pawmatch, name) is not None for name in pawmatch.__all__)


def test_names_beyond_all_do_not_resolve() -> None:
    with pytest.raises(AttributeError, match="no attribute 'unheard_of'"):
        _ = pawmatch.unheard_of


def test_the_version_is_the_one_of_the_distribution() -> None:
    import tomllib
    from pathlib import Path

    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert pawmatch.__version__ == project["version"]
