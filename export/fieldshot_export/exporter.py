"""From a network of any framework to a bundle that was checked against it: `export`."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from fieldshot.backbone.bundle import Bundle
from fieldshot.errors import ExportError, FieldshotError
from fieldshot.images import Preprocessing
from fieldshot_export import pictures as picture_sets
from fieldshot_export.parity import TOLERANCES, Parity, check_embeddings, compare, statistics
from fieldshot_export.source import INPUT, OUTPUT, Floats, Source, open_session

Progress = Callable[[str, float], None]
"""Called at the end of each stage with what was done and how long it took, in seconds."""

_WEIGHTS = {"float32": "backbone.onnx", "float16": "backbone.fp16.onnx"}
_BATCH = 16


@dataclass(frozen=True)
class Report:
    """What `export` wrote and measured.

    Parameters
    ----------
    path : pathlib.Path
        The bundle.
    name, source, licence : str
        As in its manifest.
    dim : int
        Width D of the embedding.
    preprocessing : dict
        As in its manifest.
    size_bytes : int
        Size of the bundle.
    files : dict of str to int
        Size in bytes of each member but the manifest.
    parity : dict of str to Parity
        Per precision, how the embeddings compare to those of the source framework; also of a precision that failed.
    left_out : dict of str to str
        Precisions that are not in the bundle, and why.
    notes : tuple of str
        What was changed in the network on the way.
    seconds : float
        Wall time.
    """

    path: Path
    name: str
    source: str
    licence: str
    dim: int
    preprocessing: dict[str, object]
    size_bytes: int
    files: dict[str, int]
    parity: dict[str, Parity]
    left_out: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    seconds: float = 0.0


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
        Side, or height and width, of what the network sees, in pixels. Must be given for `onnx` and `torch`, as must
        `mean` and `std`; timm knows its own.
    mean, std : three floats, optional
        In units of pixels scaled to [0, 1], in the order of `channels`.
    crop, resize, interpolation, channels : optional
        The rest of the preprocessing; see `fieldshot.images.Preprocessing`.
    pictures : path, optional
        Folder of pictures to verify with and to take feature statistics of; procedural ones otherwise.
    name, licence : str, optional
        For the manifest.
    float16 : bool
        Add a float16 copy, if it agrees with the source.
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
        The network cannot be exported faithfully, or arguments contradict each other; nothing is at `out` that was
        not there before.
    MissingFileError, MissingDependencyError, BundleError
        A file or package is absent; the preprocessing makes no sense.
    """
    started = time.perf_counter()
    stage = _Stages(progress)
    out = Path(out)
    _check_target(out, force)
    sources = {
        key: value for key, value in (("onnx", onnx), ("torch", torch), ("timm", timm)) if value is not None
    }
    if len(sources) != 1:
        raise ExportError(
            f"exactly one of onnx, torch and timm must be given (got {', '.join(sources) or 'none'})",
            hint="name one source",
        )
    (kind,) = sources
    if cut is not None and kind != "onnx":
        raise ExportError(
            f"cut must go with an ONNX file (got a {kind} source)", hint="pool in the module itself"
        )
    if weights is not None and kind == "onnx":
        raise ExportError(
            "weights must go with torch or timm (got an ONNX file)", hint="an ONNX file has its own"
        )
    stated = {
        "size": (size, size) if isinstance(size, int) else size and tuple(size),
        "mean": mean and tuple(mean),
        "std": std and tuple(std),
        "crop": crop,
        "resize": resize,
        "interpolation": interpolation,
        "channels": channels,
    }
    stated = {key: value for key, value in stated.items() if value is not None}
    module = None
    if kind == "timm":
        with stage(f"create {timm}"):
            from fieldshot_export import timm_source

            module, known = timm_source.create(timm, weights=weights)
        stated = {**known, **stated}
    preprocessing = _preprocessing(stated, kind)

    with stage(f"read {sources[kind]}") as detail:
        if kind == "onnx":
            from fieldshot_export import onnx_source

            source = onnx_source.load(onnx, preprocessing.size, cut=cut)
        elif kind == "torch":
            from fieldshot_export import torch_source

            source = torch_source.load(torch, preprocessing.size, weights=weights)
        else:
            source = timm_source.load(timm, module, preprocessing.size, weights=weights)
        detail += source.notes
    with stage("collect pictures") as detail:
        chosen = picture_sets.collect(preprocessing.size, pictures)
        detail.append(f"{len(chosen.verify)} to verify with: {chosen.description}")
    return _write(
        out,
        source,
        preprocessing,
        chosen,
        stage,
        name=name or source.name,
        licence=licence or "not stated",
        float16=float16,
        started=started,
    )


def _write(
    out: Path,
    source: Source,
    preprocessing: Preprocessing,
    chosen: picture_sets.PictureSet,
    stage: _Stages,
    *,
    name: str,
    licence: str,
    float16: bool,
    started: float,
) -> Report:
    fed = np.stack([preprocessing.apply(picture) for picture in chosen.verify])
    with stage("run the source framework") as detail:
        expected = np.ascontiguousarray(source.embed(fed), np.float32)
        check_embeddings(expected)
        detail.append(f"{len(expected)} embeddings of {expected.shape[1]} dimensions")

    networks = {"float32": source.model.SerializeToString()}
    parity: dict[str, Parity] = {}
    left_out: dict[str, str] = {}
    with stage("check float32") as detail:
        parity["float32"] = compare(expected, _run(networks["float32"], fed))
        detail.append(str(parity["float32"]))
        parity["float32"].require("float32")
    if float16:
        with stage("make and check float16") as detail:
            reason = _add_float16(source, fed, expected, networks, parity)
            if "float16" in parity:
                detail.append(str(parity["float16"]))
            if reason:
                left_out["float16"] = reason
                detail.append(f"LEFT OUT: {reason}")
    with stage("take feature statistics") as detail:
        measured = statistics(_embeddings(networks["float32"], chosen, preprocessing))
        detail.append(f"{measured['count']} pictures")

    files = {_WEIGHTS[precision]: data for precision, data in networks.items()}
    files["verify.safetensors"] = save(
        {**{f"picture_{i}": picture for i, picture in enumerate(chosen.verify)}, "embeddings": expected}
    )
    with stage(f"write and read back {out}") as detail, _temporary_folder(out) as folder:
        bundle = Bundle.write(
            folder / out.name,
            name=name,
            licence=licence,
            source=f"{source.description}; verified on {chosen.description}",
            dim=expected.shape[1],
            preprocessing=preprocessing,
            statistics=measured,
            verify={precision: TOLERANCES[precision] for precision in networks},
            files=files,
        )
        _check_written(bundle, networks)
        os.replace(bundle.path, out)
        size_bytes = out.stat().st_size
        detail.append(f"{size_bytes:,} bytes")
    return Report(
        path=out,
        name=name,
        source=bundle.manifest["source"],
        licence=licence,
        dim=expected.shape[1],
        preprocessing=preprocessing.to_json(),
        size_bytes=size_bytes,
        files={member: len(data) for member, data in files.items()},
        parity=parity,
        left_out=left_out,
        notes=source.notes,
        seconds=time.perf_counter() - started,
    )


def _add_float16(
    source: Source, fed: Floats, expected: Floats, networks: dict[str, bytes], parity: dict[str, Parity]
) -> str | None:
    """Add the float16 network where it is right; say why where it is not."""
    from fieldshot_export import float16

    try:
        data = float16.convert(source.model).SerializeToString()
        embeddings = _run(data, fed)
    except Exception as error:  # the bundle is whole without it
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return f"it cannot be converted ({lines[0][:200]})"
    parity["float16"] = compare(expected, embeddings)
    if not parity["float16"].within("float16"):
        return f"it must agree with the source to {TOLERANCES['float16']} (got {parity['float16']})"
    networks["float16"] = data
    return None


def _check_written(bundle: Bundle, networks: dict[str, bytes]) -> None:
    """Read the bundle as a device will, and hold every network in it against its verification pictures."""
    pictures, expected = bundle.verification()
    fed = np.stack([bundle.preprocessing.apply(picture) for picture in pictures])
    for precision in networks:
        compare(expected, _run(bundle.read(_WEIGHTS[precision]), fed)).require(precision)


def _run(network: bytes, fed: Floats) -> Floats:
    return open_session(network).run([OUTPUT], {INPUT: fed})[0]


def _embeddings(network: bytes, chosen: picture_sets.PictureSet, preprocessing: Preprocessing) -> Floats:
    session = open_session(network)
    rows, fed = [], []
    for picture in chosen.statistics():
        fed.append(preprocessing.apply(picture))
        if len(fed) == _BATCH:
            rows.append(session.run([OUTPUT], {INPUT: np.stack(fed)})[0])
            fed = []
    if fed:
        rows.append(session.run([OUTPUT], {INPUT: np.stack(fed)})[0])
    return np.concatenate(rows)


def _check_target(out: Path, force: bool) -> None:
    if out.is_dir():
        raise ExportError(
            f"the bundle must be written to a file (got the folder {out})", hint="name OUT.fieldshot"
        )
    if out.exists() and not force:
        raise ExportError(f"{out} must not exist yet (got a file)", hint="add --force to replace it")
    if not out.absolute().parent.is_dir():
        raise ExportError(f"the folder of the bundle must exist (got {out.parent})", hint="make it first")


def _preprocessing(stated: dict[str, object], kind: str) -> Preprocessing:
    absent = [key for key in ("size", "mean", "std") if key not in stated]
    if absent:
        raise ExportError(
            f"the preprocessing must be stated for a {kind} source (got no {', no '.join(absent)})",
            hint="give what the network was trained with, in units of pixels scaled to [0, 1]: for instance "
            "--size 224 --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 (torchvision), or --mean 0.5,0.5,0.5 "
            "--std 0.5,0.5,0.5 for inputs in [-1, 1]",
        )
    return Preprocessing(**stated)  # type: ignore[arg-type]


@contextlib.contextmanager
def _temporary_folder(out: Path) -> Iterator[Path]:
    """Give a folder beside the target, on the same file system, and leave nothing of it."""
    try:
        folder = Path(tempfile.mkdtemp(prefix=".export-", dir=out.absolute().parent))
    except OSError as error:
        raise ExportError(
            f"the folder of the bundle must be writable (got {error.strerror}: {out.parent})",
            hint="write elsewhere",
        ) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Stages:
    """Times the stages of an export and reports each to the callback when it ends."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress

    @contextlib.contextmanager
    def __call__(self, what: str) -> Iterator[list[str]]:
        started, detail = time.perf_counter(), []
        try:
            yield detail
        except FieldshotError:
            raise
        finally:
            if self._progress is not None:
                self._progress(
                    ": ".join([what, "; ".join(detail)]) if detail else what, time.perf_counter() - started
                )
