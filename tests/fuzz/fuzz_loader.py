"""Let atheris look for bytes on which the loader does something else than open them or say why not.

    pip install atheris
    python -m tests.fuzz.fuzz_loader --seconds 180

Coverage of the package's own modules guides it; Pillow's C code is exercised, not measured. It ends with
an error, and leaves the bytes in a file, at the first input that escapes as another error than the
loader's, lacks a proper sentence, takes over 10 s (to measure coverage slows Python down several times),
or makes the process exceed 2 GB.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["pawmatch"]):
    from pawmatch.errors import ImageError
    from pawmatch.images import read_image

from tests.fuzz.seeds import seeds
from tests.support.pictures import sentence_faults


def open_one(data: bytes) -> None:
    """Open one input; whatever is no image must be refused in a sentence."""
    try:
        image = read_image(data).image
    except ImageError as exc:
        if faults := sentence_faults(str(exc)):
            raise AssertionError(f"{', '.join(faults)}: {exc}") from exc
    else:
        assert image.mode == "RGB"
        assert max(image.size) <= 2048


def main() -> None:
    """Read the options and fuzz."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=int, default=180, help="how long (%(default)s)")
    parser.add_argument("--corpus", type=Path, help="a folder that keeps what it finds")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name, data in seeds().items():
            Path(folder, name).write_bytes(data)
        limits = [f"-max_total_time={options.seconds}", "-timeout=10", "-rss_limit_mb=2048", "-max_len=20000"]
        folders = [str(options.corpus)] if options.corpus else []
        atheris.Setup([sys.argv[0], *limits, *folders, folder], open_one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
