"""A module imports only from lower levels, and no modules import each other in a circle."""

from __future__ import annotations

import ast
import re
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "pawmatch"

# From the bottom up; a name stands for a module or a package with all in it. Modules of one row do not
# import each other, those of one package may, as long as there is no circle. The numbers are the levels
# of the design, which puts several rows on one level.
LADDER: tuple[tuple[int, tuple[str, ...]], ...] = (
    (0, ("errors", "metrics")),
    (0, ("files", "strict")),
    (0, ("results",)),
    (1, ("phrasing",)),
    (1, ("images", "labels")),
    (1, ("settings",)),
    (1, ("calibration",)),
    (1, ("models",)),
    (1, ("heatmaps", "subjects")),
    (1, ("parts",)),
    (2, ("checkpoint", "engines")),
    (4, ("classifier",)),
    (5, ("evaluation",)),
    (6, ("training",)),
    (8, ("ui",)),
    (8, ("commands",)),
    (8, ("cli",)),
    (9, ("__main__", "app")),
)
HEIGHT = {name: height for height, (_, names) in enumerate(LADDER) for name in names}


def module_name(path: Path) -> str:
    """The module in a file, without the package's name: "models.hybrid", or "" for the package itself."""
    if path.parent == ROOT:
        return path.stem
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in [*PACKAGE.rglob("*.py"), ROOT / "app.py"] if path.is_file()}


def rung(module: str) -> str:
    """The ladder's name that covers a module: the longest one that it begins with."""
    parts = module.split(".")
    for count in range(len(parts), 0, -1):
        if (name := ".".join(parts[:count])) in HEIGHT:
            return name
    raise AssertionError(f"pawmatch.{module} is on no level; give it one in LADDER")


@cache
def imported(path: Path) -> frozenset[str]:
    """Modules of the package that a file imports anywhere in it, for types too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} has a relative import; write the module's full name"
            base = node.module or ""
            # What is imported from a package may be one of its modules.
            names = [
                whole if (whole := f"{base}.{alias.name}").removeprefix("pawmatch.") in FILES else base
                for alias in node.names
            ]
        else:
            continue
        found |= {name.removeprefix("pawmatch.") for name in names if name.startswith("pawmatch.")}
    return frozenset(found)


@pytest.mark.parametrize("module", sorted(set(FILES) - {""}))
def test_imports_go_downwards(module: str) -> None:
    own = rung(module)
    for target in imported(FILES[module]):
        other = rung(target)
        assert own == other or HEIGHT[other] < HEIGHT[own], (
            f"pawmatch.{module} imports pawmatch.{target}, which is not on a lower level"
        )


def test_no_modules_import_each_other_in_a_circle() -> None:
    # The package's own __init__ names modules of all levels, for type checkers; it imports none itself.
    graph = {module: imported(path) for module, path in FILES.items() if module}
    assert set(TopologicalSorter(graph).static_order()) >= set(graph)


def test_the_package_itself_imports_nothing_of_its_own() -> None:
    tree = ast.parse(FILES[""].read_text(encoding="utf-8"))
    statements = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert not [node for node in statements if "pawmatch" in ast.unparse(node)]


@pytest.mark.parametrize("module", sorted(FILES))
def test_no_task_has_its_words_in_code(module: str) -> None:
    text = FILES[module].read_text(encoding="utf-8")
    words = re.findall(r"(?i)(?:dog|breed|artist|painter|painting)s?(?![a-z])", text)
    assert not words, "a task's words stand in its checkpoint and in pawmatch/labels/"


def test_every_row_of_the_ladder_exists() -> None:
    assert not [name for name in HEIGHT if name not in FILES and name != "app"]
    assert [level for level, _ in LADDER] == sorted(level for level, _ in LADDER)
