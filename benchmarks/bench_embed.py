"""What `embed` costs over its bare parts: Pillow's decoding and `InferenceSession.run`, timed in turn in one process.

Resizing, normalising, batching and threads are not in the bare time: all of them count as overhead of `embed`, which
wins them back by preparing pictures while the network runs. A lone picture leaves nothing to overlap, so it is held
against Pillow's resize too.
"""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from bundles import write_bundle
from fieldshot import Backbone, Recognizer
from fieldshot.images import Preprocessing, find_classes
from fieldshot.recognizer import EnrollResult
from turns import in_turn

NETWORKS = {"mobilenet_v2_1.0_224": (224, 1280), "mobilenet_v1_0.5_160": (160, 512)}


class Bare:
    """ONNX Runtime with the options of the backbone's own session, Pillow, and nothing else."""

    def __init__(self, backbone: Backbone, network: bytes) -> None:
        options = onnxruntime.SessionOptions()
        # As in fieldshot: a session that spins on after its run would steal the time of whatever is timed next.
        options.add_session_config_entry("session.intra_op.spin_duration_us", "20")
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self.session = onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
        self.spec = backbone.preprocessing
        self.ready = np.random.default_rng(0).normal(size=(32, 3, *self.spec.size)).astype(np.float32)

    def embed(self, paths: list[Path], batch_size: int) -> None:
        """Decode each picture, and run the network on tensors that were ready before."""
        for start in range(0, len(paths), batch_size):
            batch = paths[start : start + batch_size]
            for path in batch:
                with Image.open(path) as image:
                    image.convert("RGB")
            self.session.run(["embedding"], {"input": self.ready[: len(batch)]})

    def embed_resized(self, path: Path) -> np.ndarray:
        """Decode, resize and normalise one picture in the plainest NumPy, and run the network on it."""
        with Image.open(path) as image:
            rgb = image.convert("RGB")
        (height, width), (rows, columns) = self.spec.size, self.spec.resized(rgb.height, rgb.width)
        top, left = (rows - height) // 2, (columns - width) // 2
        rgb = rgb.resize((columns, rows), Image.Resampling.BILINEAR).crop((left, top, left + width, top + height))
        inputs = (np.asarray(rgb).transpose(2, 0, 1)[None] / np.float32(127.5) - np.float32(1)).astype(np.float32)
        return self.session.run(["embedding"], {"input": inputs})[0]


@pytest.fixture(scope="module", params=NETWORKS)
def pair(
    request: pytest.FixtureRequest, shared: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Backbone, Bare]:
    name, (side, dim) = request.param, NETWORKS[request.param]
    network = (shared / f"models/{name}.onnx").read_bytes()
    spec = Preprocessing(size=(side, side), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    path = tmp_path_factory.mktemp("bundle") / f"{name}.fieldshot"
    backbone = Backbone.load(write_bundle(path, network, name=name, dim=dim, preprocessing=spec))
    return backbone, Bare(backbone, network)


def pictures_of(shared: Path, data: str, number: int) -> list[Path]:
    paths = [path for of in find_classes(shared / "data" / data).values() for path in of]
    return paths[:: 599 // number][:number]


@pytest.mark.parametrize("batch_size", [1, 8])
@pytest.mark.parametrize("data", ["trashnet", "signdigits"])
@pytest.mark.parametrize("pair", ["mobilenet_v2_1.0_224"], indirect=True)
def bench_embed(benchmark: Any, pair: tuple[Backbone, Bare], shared: Path, data: str, batch_size: int) -> None:
    """`embed` of 48 pictures costs less than 10 % over decoding them and running the network."""
    backbone, bare = pair
    paths = pictures_of(shared, data, 48)
    times = in_turn(
        12,
        bare=lambda: bare.embed(paths, batch_size),
        embed=lambda: backbone.embed(paths, batch_size=batch_size),
    )
    overhead = times["embed"] / times["bare"] - 1
    benchmark.extra_info.update(times, overhead=overhead)
    got = benchmark.pedantic(backbone.embed, (paths,), {"batch_size": batch_size}, rounds=5)
    np.testing.assert_allclose(got[:1], bare.embed_resized(paths[0]), rtol=1e-3, atol=1e-3)
    assert overhead < 0.10, f"{overhead:.1%} over bare {times['bare']:.1f} ms"


@pytest.mark.parametrize("data", ["trashnet", "signdigits"])
@pytest.mark.parametrize("pair", ["mobilenet_v2_1.0_224"], indirect=True)
def bench_embed_one(benchmark: Any, pair: tuple[Backbone, Bare], shared: Path, data: str) -> None:
    """`embed` of a lone picture costs less than 10 % over decoding, Pillow's resize and the network."""
    backbone, bare = pair
    (path,) = pictures_of(shared, data, 1)
    times = in_turn(
        5,
        bare=lambda: bare.embed([path], 1),
        resized=lambda: bare.embed_resized(path),
        embed=lambda: backbone.embed(path),
    )
    overhead = times["embed"] / times["resized"] - 1
    benchmark.extra_info.update(times, overhead=overhead, overhead_with_resize=times["embed"] / times["bare"] - 1)
    got = benchmark.pedantic(backbone.embed, (path,), rounds=20)
    np.testing.assert_allclose(got, bare.embed_resized(path), rtol=1e-3, atol=1e-3)
    assert overhead < 0.10, f"{overhead:.1%} over bare {times['resized']:.1f} ms"


@pytest.mark.parametrize("data", ["trashnet", "signdigits"])
@pytest.mark.parametrize("pair", ["mobilenet_v2_1.0_224"], indirect=True)
def bench_recognize(benchmark: Any, pair: tuple[Backbone, Bare], shared: Path, tmp_path: Path, data: str) -> None:
    """Recognising a file among five classes of five costs at most 10 % over decoding, Pillow's resize and the network.

    Over decoding and the network alone it costs about 1 ms: the resize, and Python that the network drove out of the
    caches.
    """
    backbone, bare = pair
    classes = {label: paths[:6] for label, paths in list(find_classes(shared / "data" / data).items())[:5]}
    path = next(reversed(classes.values()))[5]
    with Recognizer.create(tmp_path / "site.gallery", backbone) as recognizer:
        recognizer.enroll_many({name: paths[:5] for name, paths in classes.items()})
        times = in_turn(
            5,
            bare=lambda: bare.embed([path], 1),
            resized=lambda: bare.embed_resized(path),
            recognize=lambda: recognizer.recognize(path),
        )
        overhead = times["recognize"] / times["resized"] - 1
        benchmark.extra_info.update(times, overhead=overhead, overhead_over_bare=times["recognize"] / times["bare"] - 1)
        found = benchmark.pedantic(recognizer.recognize, (path,), rounds=20)
    assert set(found.scores) == set(classes)
    assert overhead < 0.10, f"{overhead:.1%} over {times['resized']:.1f} ms"


@pytest.mark.parametrize("pair", ["mobilenet_v1_0.5_160"], indirect=True)
def bench_enrol(benchmark: Any, pair: tuple[Backbone, Bare], shared: Path, tmp_path: Path) -> None:
    """Enrolling 10 classes x 20 pictures, store and fit included, costs at most 10 % over decoding and the network."""
    backbone, bare = pair
    classes = {label: paths[:20] for label, paths in find_classes(shared / "data/signdigits").items()}
    paths = [path for of in classes.values() for path in of]
    assert len(paths) == 200
    numbers = count()

    def enrol() -> list[EnrollResult]:
        with Recognizer.create(tmp_path / f"{next(numbers)}.gallery", backbone) as recognizer:
            return recognizer.enroll_many(classes)

    times = in_turn(15, bare=lambda: bare.embed(paths, 32), embed=lambda: backbone.embed(paths), enrol=enrol)
    overhead = times["enrol"] / times["bare"] - 1
    benchmark.extra_info.update(times, overhead=overhead)
    results = benchmark.pedantic(enrol, rounds=5)
    assert [result.added + result.duplicates for result in results] == [20] * 10
    assert overhead < 0.10, f"{overhead:.1%} over bare {times['bare']:.1f} ms"
