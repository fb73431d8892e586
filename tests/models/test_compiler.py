"""A process that compiles nothing keeps torch's compiler out, until something asks for more of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CODE = """
import sys
from pawmatch.classifier import load
from PIL import Image

load("breed", sys.argv[1]).explain(Image.new("RGB", (64, 64)))
print("torch._dynamo" in sys.modules, "timm" in sys.modules)

from pawmatch.models.compiler import without_compiler
with without_compiler():
    import torch._dynamo
    absent = "torch._dynamo.eval_frame" not in sys.modules
    torch._dynamo.reset()
    with without_compiler():
        print(absent, "torch._dynamo.eval_frame" in sys.modules)
compiled = torch.compile(lambda x: x + 1, backend="eager")
print(int(compiled(torch.ones(()))))
"""


def test_loading_and_answering_leave_the_compiler_out_and_compiling_has_it(tiny_weights: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", CODE, str(tiny_weights / "breed")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["False True", "True True", "2"]
