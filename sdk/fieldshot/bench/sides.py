"""The sides of a comparison: copies of fieldshot in folders alike, from a commit, a wheel or this process."""

from __future__ import annotations

import compileall
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import fieldshot
from fieldshot.errors import OptionError

__all__ = ["Side", "prepare"]


class Side(NamedTuple):
    """What is measured.

    Attributes
    ----------
    about : str
        In words.
    root : Path
        Folder that holds the package, and nothing that another side uses.
    bundle : Path or None
        The backbone; None for the embedded one.
    options : mapping of str to str
        Engine and precision that `Backbone.load` is asked for, where they were stated.
    entry : str
        Python that runs the probe instead of ``main()``, for tests of the gate itself.
    """

    about: str
    root: Path
    bundle: Path | None = None
    options: Mapping[str, str] = MappingProxyType({})
    entry: str = ""


def prepare(
    source: str | os.PathLike[str] | None,
    root: Path,
    *,
    bundle: Path | None = None,
    options: Mapping[str, str] = MappingProxyType({}),
) -> Side:
    """Put one side into a new folder.

    Parameters
    ----------
    source : str or path, optional
        A wheel, or a commit of the repository of the working folder; left out, the fieldshot that runs.
    root : Path
        The folder to be made. Both sides are copies in folders alike, whatever they come from.
    bundle : Path, optional
        Its backbone.
    options : mapping of str to str
        As in `Side`.

    Raises
    ------
    OptionError
        If `source` is no wheel and no commit that holds the package.
    """
    root.mkdir(parents=True)
    side = _copied(source, root)._replace(bundle=None if bundle is None else bundle.resolve(), options=options)
    # As installed: where the environment forbids to write bytecode, each process would compile it anew.
    compileall.compile_dir(root / "fieldshot", quiet=2)
    return side


def _copied(source: str | os.PathLike[str] | None, root: Path) -> Side:
    here = Path(fieldshot.__file__).parent
    if source is None:
        shutil.copytree(here, root / "fieldshot")
        return Side(f"fieldshot {fieldshot.__version__}, as installed", root)
    name = os.fspath(source)
    if name.endswith(".whl"):
        try:
            with zipfile.ZipFile(name) as wheel:
                wheel.extractall(root)
        except (OSError, zipfile.BadZipFile) as error:
            raise OptionError(
                f"a side must be a wheel that can be read (got {name}: {error})", hint="check the path"
            ) from error
        if not (root / "fieldshot" / "__init__.py").is_file():
            raise OptionError(
                f"a wheel must hold fieldshot (got {name})", hint="`pip wheel --no-deps .` in a clone of it makes one"
            )
        return Side(Path(name).name, root)
    commit = _git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}").stdout.decode().strip()
    if not commit:
        got = f"{name!r}, a file or folder" if Path(name).exists() else repr(name)
        raise OptionError(
            f"a side must be a wheel (.whl), a result (.json) or a commit of the repository here (got {got})",
            hint="check its spelling, and in CI that it was fetched" if _top() else "run in a clone of fieldshot",
        )
    tree = root / "tree"
    archive = root / "tree.zip"
    if _git("archive", "--format=zip", f"--output={archive}", commit, "sdk", "kernels").returncode:
        raise OptionError(
            f"commit {name} must hold sdk/ and kernels/ (got others)",
            hint="run in a clone of fieldshot, not of what it is used in, or name a wheel",
        )
    with zipfile.ZipFile(archive) as files:
        files.extractall(tree)
    archive.unlink()
    _build(tree, here / "kernels")
    (tree / "sdk" / "fieldshot").rename(root / "fieldshot")
    return Side(f"{name} ({commit[:12]})", root)


def _git(*words: str) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(["git", *words], capture_output=True, cwd=_top() or None)
    except FileNotFoundError as error:
        raise OptionError("git must be installed to measure a commit (got none)", hint="name a wheel") from error


def _top() -> str:
    """Of the repository that the working folder is in; empty where it is in none."""
    return subprocess.run(["git", "rev-parse", "--show-toplevel"], capture_output=True).stdout.decode().strip()


def _build(tree: Path, ready: Path) -> None:
    """Build the kernels of a commit; those of this process are taken where the sources are the same."""
    out = tree / "sdk" / "fieldshot" / "kernels"
    if ready.is_dir():
        shutil.copytree(ready, out)
    # Without a compiler that side computes with NumPy, which its facts say.
    subprocess.run([sys.executable, "kernels/build.py", "host"], cwd=tree, capture_output=True)
