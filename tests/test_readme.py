"""The README tells the truth: its settings, its figures, its front matter, its snippets."""

import ast
import json
import re
from pathlib import Path

import pytest
import yaml

from pawmatch.checkpoint import load_task
from pawmatch.checkpoint.architecture import draw_architecture
from pawmatch.labels import VARIANT_NAMES, bundled_tasks
from pawmatch.settings import OPTIONS

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
WEIGHTS = ROOT / "weights"


def table(name: str) -> list[list[str]]:
    """The cells of a table between its two marks, without its head."""
    block = TEXT.split(f"<!-- {name} -->")[1].split(f"<!-- /{name} -->")[0]
    rows = [line.strip("| \n").split(" | ") for line in block.strip().splitlines()]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def test_settings_are_all_there_in_order() -> None:
    rows = table("settings")
    assert [row[0] for row in rows] == [f"`{option.variable}`" for option in OPTIONS]
    assert [row[-1] for row in rows] == [option.help for option in OPTIONS]


def test_figures_are_those_of_the_bundled_weights() -> None:
    rows = {(row[0], row[1]): row[2:5] for row in table("figures")}
    assert set(rows) == {(task, name) for task in bundled_tasks() for name in VARIANT_NAMES.values()}
    for task in bundled_tasks():
        variants = json.loads((WEIGHTS / task / "config.json").read_text())["variants"]
        for variant, name in VARIANT_NAMES.items():
            metrics = variants[variant]["metrics"]
            expected = [f"{metrics[key]:.1%}" for key in ("top1", "top5", "macro_f1")]
            assert rows[task, name] == expected


def test_front_matter_is_what_a_space_needs() -> None:
    values = yaml.safe_load(TEXT.split("---\n")[1])
    assert values["sdk"] == "gradio"
    assert values["python_version"] == "3.12"
    assert (ROOT / values["app_file"]).is_file()
    assert len(values["short_description"]) <= 60


def test_files_named_in_the_text_exist() -> None:
    for path in re.findall(r"\]\(((?!https?:)[^)#]+)\)", TEXT):
        assert (ROOT / path).is_file(), path
    for path in re.findall(r'"(examples/[^"]+)"', TEXT):
        assert (ROOT / path).is_file(), path


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL))
def test_python_snippets_parse(code: str) -> None:
    ast.parse(code)


def test_every_module_has_its_line_in_the_file_tree() -> None:
    tree = TEXT.split("## Where things are")[1]
    for path in (ROOT / "pawmatch").iterdir():
        if path.name.startswith(("_", ".")):
            continue
        if path.suffix == ".py" or (path.is_dir() and (path / "__init__.py").is_file()):
            assert path.name in tree, path.name


def test_the_figure_of_the_architecture_is_that_of_the_weights() -> None:
    drawn = draw_architecture(load_task(None, "breed")[-1].config)
    assert (ROOT / "docs" / "architecture.svg").read_text(encoding="utf-8") == drawn
    assert "1280 x 9 x 9" in drawn
