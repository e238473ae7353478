"""From a network of any framework to a bundle that was checked against it: `export`."""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from fieldshot.errors import ExportError, MissingDependencyError
from fieldshot.images import Preprocessing
from fieldshot_export.report import Progress, Report, Stages

__all__ = ["Report", "export"]

_NEEDED = {
    "onnx": ("onnx",),
    "torch": ("onnx", "onnxscript", "torch"),
    "timm": ("onnx", "onnxscript", "torch", "timm"),
}


def export(
    out: str | os.PathLike[str],
    *,
    onnx: str | os.PathLike[str] | None = None,
    torch: str | None = None,
    timm: str | None = None,
    cut: str | None = None,
    weights: str | os.PathLike[str] | None = None,
    size: int | Sequence[int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    crop: float | None = None,
    resize: str | None = None,
    interpolation: str | None = None,
    channels: str | None = None,
    pictures: str | os.PathLike[str] | None = None,
    name: str | None = None,
    licence: str | None = None,
    float16: bool = True,
    int8: bool = False,
    calibrate: str | os.PathLike[str] | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Export one network as a bundle, measured against its own framework before anything is written.

    Parameters
    ----------
    out : path
        The bundle to write, usually ``NAME.fieldshot``.
    onnx : path, optional
        ONNX file; see `onnx_source.load`.
    torch : str, optional
        ``package.module:factory``; see `torch_source.load`.
    timm : str, optional
        Name of a timm model; see `timm_source.create`. Exactly one of the three must be given.
    cut : str, optional
        Tensor of the ONNX file that becomes the embedding.
    weights : path, optional
        Checkpoint for `torch` and `timm`.
    size : int or (int, int), optional
        Side, or height and width, of what the network sees, in pixels. Must be given for `onnx` and `torch`, as
        must `mean` and `std`; timm knows its own.
    mean, std : three floats, optional
        In units of pixels scaled to [0, 1], in the order of `channels`; values beyond 1 are refused.
    crop, resize, interpolation, channels : optional
        The rest of the preprocessing; see `fieldshot.images.Preprocessing`.
    pictures : path, optional
        Folder of pictures to verify with and to take feature statistics of; procedural ones otherwise.
    name, licence : str, optional
        For the manifest.
    float16 : bool
        Add a float16 copy, if it agrees with the source.
    int8 : bool
        Add an int8 copy, see `int8.convert`.
    calibrate : path, optional
        Folder of pictures that int8 learns from which values to expect; `pictures` otherwise, or procedural ones.
    force : bool
        Replace what is at `out`.
    progress : callable, optional
        See `Progress`.

    Returns
    -------
    Report
        What was written and measured.

    Raises
    ------
    ExportError
        The network cannot be exported faithfully, or arguments contradict each other; `out` is as it was.
    MissingFileError, MissingDependencyError, BundleError
        A file or package is absent; the preprocessing makes no sense.
    """
    sources = {"onnx": onnx, "torch": torch, "timm": timm}
    kinds = [kind for kind, source in sources.items() if source is not None]
    if len(kinds) != 1:
        raise ExportError(
            f"exactly one of onnx, torch and timm must be given (got {', '.join(kinds) or 'none'})",
            hint="name one source",
        )
    (kind,) = kinds
    if cut is not None and kind != "onnx":
        raise ExportError(f"cut must go with an ONNX file (got a {kind} source)", hint="cut in the module itself")
    if weights is not None and kind == "onnx":
        raise ExportError("weights must go with torch or timm (got an ONNX file)", hint="an ONNX file has its own")
    if calibrate is not None and not int8:
        raise ExportError("calibrate must go with int8 (got no int8)", hint="add --int8")
    options = {
        "size": (size, size) if isinstance(size, int) else size,
        "mean": mean,
        "std": std,
        "crop": crop,
        "resize": resize,
        "interpolation": interpolation,
        "channels": channels,
    }
    stated = {key: value for key, value in options.items() if value is not None}
    out = Path(out)
    _check_target(out, force)
    _require(kind)

    from fieldshot_export import bundling
    from fieldshot_export import pictures as picture_sets

    stages = Stages(progress)
    if kind == "onnx":
        from fieldshot_export import onnx_source

        preprocessing = _preprocessing(stated, kind)
        with stages(f"read {onnx}") as detail:
            source = onnx_source.load(onnx, preprocessing.size, cut=cut)
            detail += source.notes
    elif kind == "torch":
        from fieldshot_export import torch_source

        preprocessing = _preprocessing(stated, kind)
        with stages(f"export {torch} to ONNX") as detail:
            source = torch_source.load(torch, preprocessing.size, weights=weights)
            detail += source.notes
    else:
        from fieldshot_export import timm_source

        with stages(f"create {timm}"):
            module, known = timm_source.create(timm, weights=weights)
        preprocessing = _preprocessing({**known, **stated}, kind)
        with stages(f"export {timm} to ONNX") as detail:
            source = timm_source.load(timm, module, preprocessing.size, weights=weights)
            detail += source.notes
    with stages("collect pictures") as detail:
        chosen = picture_sets.collect(preprocessing.size, pictures)
        detail.append(f"{len(chosen.verify)} to verify with, {chosen.description}")
    return bundling.write(
        out,
        source,
        preprocessing,
        chosen,
        stages,
        name=name or source.name,
        licence=licence or "not stated",
        with_float16=float16,
        calibration=picture_sets.calibration(calibrate, chosen) if int8 else None,
    )


def _require(kind: str) -> None:
    absent = [package for package in _NEEDED[kind] if find_spec(package) is None]
    if absent:
        alone = kind == "onnx" or absent == ["timm"]  # the extra brings torch, which ONNX files do not need
        hint = f"pip install {absent[0]}" if alone else "pip install 'fieldshot[export]'"
        raise MissingDependencyError(f"{', '.join(absent)} must be installed to export from {kind}", hint=hint)


def _check_target(out: Path, force: bool) -> None:
    """Refuse now what could only be refused after minutes of work otherwise."""
    try:
        if out.is_dir():
            raise ExportError(f"the bundle must be written to a file (got the folder {out})", hint="name OUT.fieldshot")
        if out.exists() and not force:
            raise ExportError(f"{out} must not exist yet (got a file)", hint="add --force to replace it")
        if out.exists() and not _is_bundle(out):
            raise ExportError(
                f"{out} must be a bundle to be replaced (got a file of another kind)", hint="name another file"
            )
        if not out.absolute().parent.is_dir():
            raise ExportError(f"the folder of the bundle must exist (got {out.parent})", hint="make it first")
        with tempfile.TemporaryFile(prefix=".export-", dir=out.absolute().parent):
            pass  # permission bits alone do not tell: the disk may be read-only, the user root
    except OSError as error:
        raise ExportError(
            f"{out} must be writable (got: {error.strerror or error})",
            hint="name a file in a folder that is yours to write to",
        ) from error


def _is_bundle(path: Path) -> bool:
    """Whether a file is a bundle by its name, damaged or not, or by what is in it."""
    if path.suffix == ".fieldshot" or not path.stat().st_size:
        return True
    try:
        with zipfile.ZipFile(path) as archive:
            return "manifest.json" in archive.namelist()
    except zipfile.BadZipFile:
        return False


def _preprocessing(stated: dict[str, object], kind: str) -> Preprocessing:
    absent = [key for key in ("size", "mean", "std") if key not in stated]
    if absent:
        raise ExportError(
            f"the preprocessing of {kind} networks must be stated (got no {', no '.join(absent)})",
            hint="give what the network was trained with, in units of pixels scaled to [0, 1]: for instance "
            "--size 224 --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 (torchvision), "
            "or --mean 0.5,0.5,0.5 --std 0.5,0.5,0.5 (inputs in [-1, 1])",
        )
    preprocessing = Preprocessing(**stated)  # type: ignore[arg-type]
    _check_units(preprocessing.mean, preprocessing.std)
    return preprocessing


def _check_units(mean: Sequence[float], std: Sequence[float]) -> None:
    if max(map(abs, mean)) <= 1 and max(std) <= 1:
        return

    def listed(values: Sequence[float], unit: float = 1) -> str:
        return ",".join(f"{value / unit:.4g}" for value in values)

    raise ExportError(
        "mean must lie in [-1, 1] and std in (0, 1], for their unit is pixels scaled to [0, 1] "
        f"(got mean {listed(mean)} and std {listed(std)})",
        hint="if these are in units of 0 to 255, divide both by 255: "
        f"--mean {listed(mean, 255)} --std {listed(std, 255)}",
    )
