"""Write a file in one step."""

from __future__ import annotations

import os
import threading
from pathlib import Path


def replace_file(path: Path, data: bytes | str) -> None:
    """Write a file whole, or leave what was there: a reader sees the old file or the new one, never a part.

    Text is written as UTF-8. The temporary file beside it has a name of this thread's own and is gone
    afterwards. Raises OSError.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
