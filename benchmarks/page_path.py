"""How far one photo travels through the program when it is put on the page.

    python -m benchmarks.page_path [CHECKOUT ...] [--photo FILE]

Starts each checkout's service, puts the photo on the page as a browser does, and counts by `sys.setprofile`
in all threads of the service's process: calls of the program's own functions, how many different ones, in
how many modules, how often a call goes from one module to another, pictures decoded, JPEG files encoded.
What reading processes do is not in it. The second photo is counted; the first one warms up.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = ("calls", "functions", "modules", "hops", "decodes", "encodes")
WORKER = """
import json, os, sys, threading, time, urllib.request, uuid
from collections import Counter
from pathlib import Path
checkout, photo, port = sys.argv[1:4]
package, counting = str(Path(checkout).resolve() / "pawmatch"), threading.Event()
counts, functions, modules, last = Counter(), set(), set(), threading.local()

def hook(frame, event, argument):
    if not counting.is_set():
        return
    if event == "c_call":
        name = getattr(argument, "__name__", "")
        counts["decodes"] += name == "imdecode"
        counts["encodes"] += name == "imencode"
    elif event == "call":
        file, name = frame.f_code.co_filename, frame.f_code.co_name
        if name == "_getdecoder" and file.endswith("Image.py"):  # "raw" only copies pixels from an array
            counts["decodes"] += frame.f_locals["decoder_name"] != "raw"
        counts["encodes"] += name == "_save" and file.endswith("JpegImagePlugin.py")
        if file.startswith(package):
            counts["calls"] += 1
            functions.add((file, frame.f_code.co_qualname if hasattr(frame.f_code, "co_qualname") else name))
            modules.add(file)
            counts["hops"] += getattr(last, "file", file) != file
            last.file = file

base = f"http://127.0.0.1:{port}"

def get(path, data=None, headers={}):
    return urllib.request.urlopen(urllib.request.Request(base + path, data, headers), timeout=300)

def put(name, look, parts):
    boundary, session = uuid.uuid4().hex, uuid.uuid4().hex[:12]
    head = f'--{boundary}\\r\\nContent-Disposition: form-data; name="files"; filename="{name}"\\r\\n\\r\\n'
    body = head.encode() + Path(photo).read_bytes() + f"\\r\\n--{boundary}--\\r\\n".encode()
    kind = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    path = json.load(get("/gradio_api/upload", body, kind))[0]
    file = {"path": path, "orig_name": name, "meta": {"_type": "gradio.FileData"}}
    data = [file, *(parts[part]["props"].get("value") for part in look["inputs"][1:])]
    asked = {"data": data, "fn_index": look["id"], "session_hash": session}
    get("/gradio_api/queue/join", json.dumps(asked).encode(), {"Content-Type": "application/json"})
    for line in get(f"/gradio_api/queue/data?session_hash={session}"):
        if line.startswith(b"data:"):
            message = json.loads(line[5:])
            if message["msg"] == "process_completed":
                return message["success"]

def visit():
    for _ in range(600):
        try:
            config = json.load(get("/config"))
            break
        except OSError:
            time.sleep(0.5)
    parts = {part["id"]: part for part in config["components"]}
    asked = [
        one for one in config["dependencies"]
        if len(one["inputs"]) > 2 and parts[one["inputs"][0]]["type"] == "image"
    ]
    look = max(asked, key=lambda one: (len(one["outputs"]), -len(one["inputs"])))
    put("first.jpg", look, parts)
    counting.set()
    fine = put("second.jpg", look, parts)
    counting.clear()
    print(json.dumps({"fine": fine, "functions": len(functions), "modules": len(modules), **counts}))
    sys.stdout.flush()
    os._exit(0)

threading.Thread(target=visit, daemon=True).start()
threading.setprofile(hook)
sys.setprofile(hook)
from pawmatch.cli import main
main(["serve", "--port", port])  # in the main thread, which alone may listen to signals
"""


def main() -> None:
    """Print a row for each checkout."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkouts", nargs="*", type=Path, default=[ROOT])
    parser.add_argument("--photo", type=Path, default=ROOT / "examples" / "beagle.jpg")
    args = parser.parse_args()
    print(f"{'':<24}" + "".join(f"{name:>11}" for name in COLUMNS))
    for checkout in args.checkouts:
        found = request(checkout.resolve(), args.photo.resolve())
        print(f"{checkout.resolve().name:<24}" + "".join(f"{found.get(name, 0):>11}" for name in COLUMNS))


def request(checkout: Path, photo: Path) -> dict[str, int]:
    """What one checkout does for one photo on the page."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    done = subprocess.run(
        [sys.executable, "-c", WORKER, str(checkout), str(photo), str(port)],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    counts: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    if not counts.pop("fine"):
        raise SystemExit(f"{checkout}: the page gave no answer to {photo}")
    return counts


if __name__ == "__main__":
    main()
