"""openvino, imported by an engine, forks nothing, sends nothing and leaves no number for the user."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from pawmatch.engines import quiet_openvino
from pawmatch.engines.quiet_openvino import TELEMETRY, import_openvino

PROGRAM = """
import os, sys, time

def note(event, arguments):
    if event in ("os.fork", "socket.getaddrinfo", "socket.connect"):
        print(event, flush=True)

sys.addaudithook(note)
if sys.argv[1] == "quietly":
    from pawmatch.engines.openvino_engine import has_fast_bfloat16
    has_fast_bfloat16()
else:
    import openvino
time.sleep(0.5)  # what is sent is sent from a thread
print("reports" if "openvino_telemetry" in sys.modules else "silent")
"""


@pytest.mark.parametrize(("how", "silent"), [("quietly", True), ("plainly", False)])
@pytest.mark.usefixtures("openvino")
def test_nothing_is_told(how: str, silent: bool, tmp_path: Path) -> None:
    pytest.importorskip(TELEMETRY)
    # A proxy that is not there keeps what the plain import sends on this computer.
    proxy = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, how],
        cwd=Path(__file__).parents[2],
        env={"HOME": str(tmp_path), **proxy},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout.split() == ["silent"]) is silent
    assert (list(tmp_path.iterdir()) == []) is silent


def test_other_programs_keep_what_they_have(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = ModuleType(TELEMETRY)
    seen: list[tuple[str, ModuleType | None]] = []

    def look(name: str) -> ModuleType:
        seen.append((name, sys.modules.get(TELEMETRY)))
        raise ImportError(name)

    monkeypatch.setattr(quiet_openvino, "import_module", look)
    monkeypatch.setitem(sys.modules, TELEMETRY, theirs)
    with pytest.raises(ImportError):
        import_openvino()
    assert seen == [("openvino", None)]
    assert sys.modules[TELEMETRY] is theirs
