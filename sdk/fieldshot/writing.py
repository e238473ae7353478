"""Files written whole: whatever happens meanwhile, the old one or the new one is there."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

__all__ = ["replacing"]


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A new file beside `path`, to be written; at the end it is flushed to the disk and takes the place of `path`.

    After an error `path` is as it was and the new file is gone.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    path = Path(path)
    # Made as any other file is, so that the user's umask decides who may read it.
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with new.open("xb") as file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.replace(new, path)
        except BaseException:
            new.unlink(missing_ok=True)
            raise
