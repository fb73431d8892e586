"""Nothing unpickles but the places that say so, and those only with torch's restricted unpickler."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "pawmatch"

# A person asks for an import; a training run goes on from a file that it wrote itself; weights that an
# installed package brings are exported by hand.
MAY_LOAD = {"checkpoint/importing.py", "training/loop.py", "training/pretrained.py"}
LOADERS = {"pickle.load", "pickle.loads", "pickle.Unpickler", "jit.load", "joblib.load", "dill.load"}


@pytest.fixture(scope="module")
def calls() -> list[tuple[str, str, ast.Call]]:
    """File, name such as `torch.load` and node of every call of a module's function in the package."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
                found.append((path.relative_to(PACKAGE).as_posix(), f"{owner}.{node.func.attr}", node))
    return found


def test_torch_load_is_called_in_few_files_and_restricted(calls: list[tuple[str, str, ast.Call]]) -> None:
    loads = [(file, node) for file, name, node in calls if name == "torch.load"]
    assert {file for file, _ in loads} == MAY_LOAD
    for _, node in loads:
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        assert options["weights_only"] == "True"


def test_no_other_loader_that_runs_code_is_called(calls: list[tuple[str, str, ast.Call]]) -> None:
    assert [(file, name) for file, name, _ in calls if name in LOADERS] == []
    permissions = [
        file for file, _, node in calls for keyword in node.keywords if keyword.arg == "allow_pickle"
    ]
    assert permissions == []
