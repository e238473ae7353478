"""Measure a network against its source, and write the bundle only if it agrees."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from onnx import ModelProto
from safetensors.numpy import save

from fieldshot.backbone import Backbone, Bundle
from fieldshot.backbone.int8 import for_cpu
from fieldshot.backbone.manifest import PRECISIONS
from fieldshot.errors import ExportError
from fieldshot.images import Pixels, Preprocessing
from fieldshot_export import emulation, float16, int8
from fieldshot_export.parity import TOLERANCES, Parity, check_embeddings, compare, statistics
from fieldshot_export.pictures import PictureSet
from fieldshot_export.report import Report, Stages
from fieldshot_export.source import INPUT, OUTPUT, Floats, Source, first_line, open_session

_WEIGHTS = {precision: member for member, precision in PRECISIONS.items()}
_BATCH = 16


def write(
    out: Path,
    source: Source,
    preprocessing: Preprocessing,
    chosen: PictureSet,
    stages: Stages,
    *,
    name: str,
    licence: str,
    with_float16: bool,
    calibration: Iterable[Pixels] | None = None,
) -> Report:
    """Check a network against its source, write the bundle, and check what was written.

    Parameters
    ----------
    out : pathlib.Path
        The bundle; written last and at once.
    source : Source
        The network and its framework.
    preprocessing : Preprocessing
        What the network is fed.
    chosen : PictureSet
        Pictures to verify with and to take statistics of.
    stages : Stages
        Told of each stage.
    name, licence : str
        For the manifest.
    with_float16 : bool
        Add a float16 copy where it agrees with the source.
    calibration : iterable of ndarray of shape (height, width, 3), dtype uint8, or None
        Add an int8 copy, calibrated on these pictures.

    Returns
    -------
    Report
        What was written and measured.

    Raises
    ------
    ExportError
        The network or its int8 copy does not agree with its source, or its embeddings cannot be right; `out` is
        untouched.
    """
    fed = np.stack([preprocessing.apply(picture) for picture in chosen.verify])
    with stages("run the source framework") as detail:
        expected = np.ascontiguousarray(source.embed(fed), np.float32)
        check_embeddings(expected)
        detail.append(f"{len(expected)} embeddings of {expected.shape[1]} dimensions")

    networks = {"float32": source.model.SerializeToString()}
    parity: dict[str, Parity] = {}
    left_out: dict[str, str] = {}
    with stages("check float32") as detail:
        parity["float32"] = compare(expected, _run(networks["float32"], fed))
        detail.append(str(parity["float32"]))
        parity["float32"].require("float32")
    if with_float16:
        with stages("make and check float16") as detail:
            reason = _add_float16(source, fed, expected, networks, parity)
            if "float16" in parity:
                detail.append(str(parity["float16"]))
            if reason:
                left_out["float16"] = reason
                detail.append(f"LEFT OUT: {reason}")
    if calibration is not None:
        with stages("make and check int8") as detail:
            inputs = np.stack([preprocessing.apply(picture) for picture in calibration])
            networks["int8"], parity["int8"] = _int8(source, inputs, fed, expected)
            detail += [f"calibrated on {len(inputs)} pictures", str(parity["int8"])]
            parity["int8"].require("int8")
    with stages("take feature statistics") as detail:
        measured = statistics(_embeddings(networks["float32"], chosen, preprocessing))
        detail.append(f"{measured['count']} pictures")

    files = {_WEIGHTS[precision]: data for precision, data in networks.items()}
    files["verify.safetensors"] = save(
        {**{f"picture_{i}": picture for i, picture in enumerate(chosen.verify)}, "embeddings": expected}
    )
    with stages(f"write and read back {out}") as detail, _temporary_folder(out) as folder:
        bundle = Bundle.write(
            folder / out.name,
            name=name,
            licence=licence,
            source=f"{source.description}; verified on {chosen.description}",
            dim=expected.shape[1],
            preprocessing=preprocessing,
            statistics=measured,
            verify={precision: parity[precision].bounds(precision) for precision in networks},
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
        seconds=stages.seconds,
    )


def _add_float16(
    source: Source, fed: Floats, expected: Floats, networks: dict[str, bytes], parity: dict[str, Parity]
) -> str | None:
    """Add the float16 network where it is right; say why where it is not."""
    try:
        half = float16.convert(source.model, fed)
        embeddings = _run(emulation.spell_out(half), fed, optimise=False)  # as it stands, casts and all
    except Exception as error:  # the bundle is whole without it
        return f"it cannot be converted ({first_line(error)})"
    parity["float16"] = compare(expected, embeddings)
    if not parity["float16"].within("float16"):
        return f"it must agree with the source to {TOLERANCES['float16']} (got {parity['float16']})"
    networks["float16"] = half.SerializeToString()
    return None


def _int8(source: Source, inputs: Floats, fed: Floats, expected: Floats) -> tuple[bytes, Parity]:
    """Make the int8 network; the worse of what it gives as it stands and as a CPU runs it is how it compares."""
    try:
        network = int8.convert(source.model, inputs).SerializeToString()
        each = [compare(expected, _run(form, fed, optimise=False)) for form in (network, for_cpu(network))]
    except ExportError:
        raise
    except Exception as error:  # ONNX Runtime's quantiser has no exceptions of its own
        raise ExportError(
            f"the network must be one that int8 is for (got: {first_line(error)})", hint="leave out --int8"
        ) from error
    return network, Parity(min(one.cosine for one in each), max(one.max_abs for one in each))


def _check_written(bundle: Bundle, networks: dict[str, bytes]) -> None:
    """Read the bundle as a device will, and hold every network in it against its verification pictures."""
    pictures, expected = bundle.verification()
    for precision in networks:
        served = Backbone.load(bundle.path, "onnxruntime", precision=precision)
        compare(expected, served.embed(pictures)).require(precision)


def _run(network: bytes | ModelProto, fed: Floats, *, optimise: bool = True) -> Floats:
    return open_session(network, optimise=optimise).run([OUTPUT], {INPUT: fed})[0]


def _embeddings(network: bytes, chosen: PictureSet, preprocessing: Preprocessing) -> Floats:
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
