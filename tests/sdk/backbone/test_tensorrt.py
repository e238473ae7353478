"""The TensorRT engine from plan to embedding, through PyCUDA, on stand-ins for TensorRT and for NVIDIA's driver."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from textwrap import dedent

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import builds
from bundles import TINY_PREPROCESSING, coarse, tiny_onnx, verification, write_tiny_bundle
from driver_build import build_driver, driver_environment, missing, quick_nvcc
from fieldshot.backbone import Bundle
from fieldshot.images import Preprocessing
from fieldshot.ops import sources

pytestmark = pytest.mark.skipif(missing() is not None, reason=missing() or "")

PREAMBLE = """
import ctypes, logging, os, sys, threading, time
import numpy as np
from fieldshot import Backbone, Recognizer
from fieldshot.errors import ContractError, DeviceError, EngineError

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
BUNDLE = sys.argv[1]
PICTURES = list(np.random.default_rng(0).integers(0, 256, (40, 40, 48, 3), np.uint8))

def tensorrt(**options):
    return Backbone.load(BUNDLE, "tensorrt", **options)
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    kernels, *_ = sorted(sources.FOLDER.glob(f"host-*.{sources.digest()}.so"))  # quick; elsewhere the checked ones run
    folder = tmp_path_factory.mktemp("driver")
    environment = driver_environment(build_driver(folder), kernels)
    environment["PATH"] = f"{quick_nvcc(folder)}{os.pathsep}{os.environ['PATH']}"
    paths = [str(builds.ROOT / "tests/standin_tensorrt"), environment.get("PYTHONPATH", "")]
    return {**environment, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


@pytest.fixture
def environment(driver: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """With a cache of its own, in which nothing is built yet."""
    return {**driver, "FIELDSHOT_CACHE": str(tmp_path / "cache")}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    others = {"backbone.fp16.onnx": halved(tiny_onnx()), "backbone.int8.onnx": coarse(tiny_onnx())}
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny.fieldshot", others=others)


def halved(network: bytes) -> bytes:
    """The same network with its weights kept in float16: enough for the stand-in to tell it apart."""
    model = onnx.load_from_string(network)
    for tensor in list(model.graph.initializer):
        half = numpy_helper.from_array(numpy_helper.to_array(tensor).astype("float16"), f"{tensor.name}_half")
        cast = onnx.helper.make_node("Cast", [half.name], [tensor.name], to=onnx.TensorProto.FLOAT)
        model.graph.initializer.remove(tensor)
        model.graph.initializer.append(half)
        model.graph.node.insert(0, cast)
    return model.SerializeToString()


def run(program: str, bundle: Path, environment: dict[str, str], **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PREAMBLE + dedent(program), str(bundle)]
    done = subprocess.run(command, capture_output=True, text=True, env={**environment, **more}, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def plans(environment: dict[str, str]) -> list[Path]:
    return sorted(Path(environment["FIELDSHOT_CACHE"], "plans").glob("*.plan"))


SHOWN = "print(tensorrt().info()['engine'])"


def test_the_embeddings_are_those_of_onnxruntime(bundle: Path, environment: dict[str, str]) -> None:
    program = """
        here, there = tensorrt(), Backbone.load(BUNDLE, "onnxruntime")
        assert (here.engine, here.precision, here.contract) == ("tensorrt", "float32", there.contract)
        want = there.embed(PICTURES)
        for count in (1, 2, 40):
            np.testing.assert_allclose(here.embed(PICTURES[:count]), want[:count], atol=1e-5)
        inputs = np.stack([here.preprocessing.apply(picture) for picture in PICTURES])
        np.testing.assert_allclose(here.run(inputs), want, atol=1e-5)
        assert here.run(inputs[:0]).shape == (0, 16)
        np.testing.assert_allclose(here.with_views(3).embed(PICTURES), there.with_views(3).embed(PICTURES), atol=1e-5)
        """
    run(program, bundle, environment)


def test_many_threads_at_once(bundle: Path, environment: dict[str, str]) -> None:
    program = """
        backbone = tensorrt()
        want = backbone.embed(PICTURES)
        wrong = []
        def work(first):
            for i in range(first, first + 10):
                if not np.allclose(backbone.embed([PICTURES[i]]), want[i : i + 1], atol=1e-6):
                    wrong.append(i)
        threads = [threading.Thread(target=work, args=(10 * t,)) for t in range(4)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        assert not wrong, wrong
        """
    run(program, bundle, environment)


def test_a_plan_is_built_once(bundle: Path, environment: dict[str, str]) -> None:
    assert "building the TensorRT plan of tiny-0 in float32 for Stand-in" in run(SHOWN, bundle, environment).stderr
    (kept,) = plans(environment)
    written = kept.stat().st_ino
    again = run(SHOWN, bundle, environment)
    assert "building" not in again.stderr
    assert kept.stat().st_ino == written
    assert "'version': 'TensorRT 10.3.0'" in again.stdout
    assert "'passed over': 'nothing'" in again.stdout


@pytest.mark.parametrize(
    "setting",
    [{"STANDIN_TENSORRT_VERSION": "10.4.0"}, {"FIELDSHOT_STANDIN_DRIVER": "13010"}],
    ids=["another TensorRT", "another driver"],
)
def test_what_a_plan_depends_on_has_a_plan_of_its_own(
    bundle: Path, environment: dict[str, str], setting: dict[str, str]
) -> None:
    run(SHOWN, bundle, environment)
    run(SHOWN, bundle, environment, **setting)
    assert len(plans(environment)) == 2


def test_another_network_has_a_plan_of_its_own(bundle: Path, environment: dict[str, str], tmp_path: Path) -> None:
    run(SHOWN, bundle, environment)
    run(SHOWN, write_tiny_bundle(tmp_path / "other.fieldshot", seed=1), environment)
    assert len(plans(environment)) == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-100],
        lambda data: data[:10],
        lambda data: b"",
        lambda data: data[:-100] + bytes(100),
        lambda data: data.replace(b"plan of 10.3.0", b"plan of 10.9.0"),
        lambda data: b"[]" + data[data.index(b"\n") :],
    ],
    ids=["cut short", "cut in its first line", "empty", "changed", "of another version", "another first line"],
)
def test_a_damaged_plan_is_built_anew(
    bundle: Path, environment: dict[str, str], damage: Callable[[bytes], bytes]
) -> None:
    run(SHOWN, bundle, environment)
    (kept,) = plans(environment)
    whole = kept.read_bytes()
    kept.write_bytes(damage(whole))
    done = run(SHOWN, bundle, environment)
    assert "is built anew, for it is damaged" in done.stderr or "cannot be read" in done.stderr
    assert kept.read_bytes()[whole.index(b"\n") :] == whole[whole.index(b"\n") :]


def test_a_plan_that_tensorrt_refuses_is_built_anew(bundle: Path, environment: dict[str, str]) -> None:
    """As that of another version may be under the same name."""
    run(SHOWN, bundle, environment)
    (kept,) = plans(environment)
    header, _, data = kept.read_bytes().partition(b"\n")
    changed = data.replace(b"plan of 10.3.0", b"plan of 10.2.9")
    digests = [hashlib.sha256(part).hexdigest().encode() for part in (data, changed)]
    kept.write_bytes(header.replace(*digests) + b"\n" + changed)
    done = run(SHOWN, bundle, environment)
    assert "the one that was kept cannot be used: TensorRT 10.3.0 must load the plan (got: Version tag" in done.stderr
    assert kept.read_bytes().endswith(data)


def test_a_plan_that_cannot_be_kept_serves_all_the_same(bundle: Path, environment: dict[str, str]) -> None:
    cache = Path(environment["FIELDSHOT_CACHE"])
    cache.touch()  # a file where the folder should be, as root may write anywhere
    done = run("assert tensorrt().embed(PICTURES).shape == (40, 16)", bundle, environment)
    assert "WARNING the plan is built but cannot be kept in" in done.stderr


def test_a_full_disk_leaves_no_half_plan(bundle: Path, environment: dict[str, str]) -> None:
    program = """
        import contextlib
        from fieldshot.backbone.tensorrt import plans
        @contextlib.contextmanager
        def full(path):
            raise OSError(28, "No space left on device", str(path))
            yield
        plans.replacing = full
        assert tensorrt().embed(PICTURES).shape == (40, 16)
        """
    assert "No space left on device" in run(program, bundle, environment).stderr
    assert plans(environment) == []


def test_two_processes_build_one_plan(bundle: Path, environment: dict[str, str]) -> None:
    command = [sys.executable, "-c", PREAMBLE + SHOWN, str(bundle)]
    slow = {**environment, "STANDIN_TENSORRT_BUILD_S": "3"}
    both = [
        subprocess.Popen(command, env=slow, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in "ab"
    ]
    errors = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    assert sum("building the TensorRT plan" in error for error in errors) == 1
    assert sum(error.count("another process builds the plan: this one waits") for error in errors) == 1
    assert len(plans(environment)) == 1


def test_progress_and_cancelling(bundle: Path, environment: dict[str, str]) -> None:
    program = """
        told = []
        tensorrt(progress=lambda done, total: told.append((done, total)))
        assert told[0][0] < told[-1][0] == told[-1][1] == 100, told
        def cancel(done, total):
            raise KeyboardInterrupt("enough")
        try:
            tensorrt(precision="float16", progress=cancel)
        except KeyboardInterrupt as error:
            assert str(error) == "enough"
        else:
            raise SystemExit("not cancelled")
        tensorrt(precision="float16")
        """
    run(program, bundle, environment)


def test_auto_waits_where_progress_is_watched(bundle: Path, environment: dict[str, str]) -> None:
    run("assert Backbone.load(BUNDLE, progress=lambda done, total: None).engine == 'tensorrt'", bundle, environment)


def test_a_budget_is_measured_on_the_engine_that_will_serve(bundle: Path, environment: dict[str, str]) -> None:
    """The gallery keeps for good to the views that there was time for."""
    program = """
        import tempfile
        from fieldshot.backbone import Backbone
        within = Backbone.views_within
        def views_within(backbone, budget_ms):
            print(backbone.engine)
            return within(backbone, budget_ms)
        Backbone.views_within = views_within
        Recognizer.create(tempfile.mkdtemp() + "/site.gallery", BUNDLE, budget_ms=1000)
        """
    assert run(program, bundle, environment, STANDIN_TENSORRT_BUILD_S="1").stdout == "tensorrt\n"


def test_auto_serves_at_once_and_hands_over(bundle: Path, environment: dict[str, str]) -> None:
    program = """
        backbone = Backbone.load(BUNDLE)
        assert backbone.engine == "onnxruntime"
        before = backbone.embed(PICTURES)
        while backbone.engine == "onnxruntime":
            note = backbone.info()["engine"]["passed over"]
            assert note.startswith("tensorrt: its plan is being built") or backbone.engine == "tensorrt", note
            time.sleep(0.05)
        assert backbone.info()["engine"]["passed over"] == "nothing"
        np.testing.assert_allclose(backbone.embed(PICTURES), before, atol=1e-5)
        assert Backbone.load(BUNDLE).engine == "tensorrt"
        """
    assert (
        "tensorrt serves now in the place of onnxruntime"
        in run(program, bundle, environment, STANDIN_TENSORRT_BUILD_S="1").stderr
    )


@pytest.mark.parametrize("count", [1, 9])
def test_a_recognition_names_the_engine_that_ran_it(bundle: Path, environment: dict[str, str], count: int) -> None:
    """Also where another one takes over meanwhile; and all pictures of a call are run by one."""
    program = f"""
        import tempfile
        backbone = Backbone.load(BUNDLE)
        recognizer = Recognizer.create(tempfile.mkdtemp() + "/site.gallery", backbone)
        recognizer.enroll_many({{"one": PICTURES[:4], "two": PICTURES[4:8]}})
        serving, ran = backbone._engine, []
        def slow(run):
            def waits(batch):
                while backbone.engine == "onnxruntime":
                    time.sleep(0.01)
                ran.extend(batch)
                return run(batch)
            return waits
        serving.run, serving.run_beside = slow(serving.run), slow(serving.run_beside)
        found = recognizer.recognize_batch(PICTURES[:{count}])
        assert {{one.engine for one in found}} == {{"onnxruntime float32"}}, found
        assert len(ran) == {count}
        assert recognizer.recognize(PICTURES[0]).engine == "tensorrt float32"
        """
    run(program, bundle, environment, STANDIN_TENSORRT_BUILD_S="2")


def test_a_process_that_ends_leaves_its_build(bundle: Path, environment: dict[str, str]) -> None:
    start = time.monotonic()
    run("Backbone.load(BUNDLE)", bundle, environment, STANDIN_TENSORRT_BUILD_S="60")
    assert time.monotonic() - start < 40
    assert plans(environment) == []


CUDA_PROVIDER = """
    import onnxruntime
    class Session(onnxruntime.InferenceSession):
        def __init__(self, network, sess_options, providers):
            if WORKS is None and isinstance(providers[0], tuple):
                raise RuntimeError("CUDA failure 2: out of memory")
            super().__init__(network, sess_options, providers=["CPUExecutionProvider"])
            self.asked = providers
        def get_providers(self):
            return [WORKS if isinstance(one, tuple) else one for one in self.asked]
        def run(self, *arguments):
            (Z,) = super().run(*arguments)
            return [Z * (EXACT if isinstance(self.asked[0], tuple) else 1)]
    onnxruntime.InferenceSession = Session
    onnxruntime.get_available_providers = lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    sys.modules["tensorrt"] = sys.modules["tensorrt_rtx"] = None
    backbone = Backbone.load(BUNDLE, precision=globals().get("PRECISION", "float32"))
    engine = backbone.info()["engine"]
    print(engine["provider"], engine["passed over"])
    print(backbone._engine._session.asked)
    """


def test_without_tensorrt_onnxruntime_runs_on_cuda(bundle: Path, environment: dict[str, str]) -> None:
    done = run("EXACT, WORKS = 1, 'CUDAExecutionProvider'" + dedent(CUDA_PROVIDER), bundle, environment)
    assert done.stdout.startswith("CUDAExecutionProvider tensorrt: TensorRT 10.3 or newer must be installed")
    assert "('CUDAExecutionProvider', {'device_id': 0, 'use_tf32': 0})" in done.stdout


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        ("EXACT, WORKS = 1, 'CPUExecutionProvider'", "onnxruntime 1."),
        ("EXACT, WORKS = 1, None", "onnxruntime 1."),
        ("EXACT, WORKS, PRECISION = 1, 'CUDAExecutionProvider', 'int8'", "onnxruntime must run all of an int8 network"),
        ("EXACT, WORKS = 1.01, 'CUDAExecutionProvider'", "onnxruntime must reproduce in float32"),
    ],
    ids=["it does not load", "there is no memory for the network", "it is int8", "it is not exact"],
)
def test_a_cuda_provider_that_does_not_do(bundle: Path, environment: dict[str, str], setting: str, why: str) -> None:
    done = run(setting + dedent(CUDA_PROVIDER), bundle, environment)
    assert done.stdout.startswith("CPUExecutionProvider tensorrt: ")
    assert f"; onnxruntime on CUDA: {why}" in done.stdout
    assert "WARNING onnxruntime runs on the CPU" in done.stderr


def test_auto_says_why_it_is_onnxruntime(bundle: Path, environment: dict[str, str]) -> None:
    shown = "print(Backbone.load(BUNDLE).info()['engine']['passed over']); assert 'tensorrt' not in sys.modules"
    for setting, why in (
        ({"FIELDSHOT_DEVICE": "host"}, "tensorrt: FIELDSHOT_DEVICE names no GPU"),
        ({"FIELDSHOT_STANDIN_DEVICES": "0"}, "tensorrt: there must be a CUDA device that can be used"),
        ({"LD_LIBRARY_PATH": ""}, "tensorrt: PyCUDA must find a CUDA driver"),
    ):
        assert run(shown, bundle, environment, **setting).stdout.startswith(why), why


def test_a_tensorrt_that_does_not_start(bundle: Path, environment: dict[str, str]) -> None:
    broken = {"STANDIN_TENSORRT_BROKEN": "1"}
    program = "b = Backbone.load(BUNDLE, progress=print); print(b.engine, b.info()['engine']['passed over'])"
    assert "onnxruntime tensorrt: TensorRT 10.3.0 must start" in run(program, bundle, environment, **broken).stdout
    run(SHOWN, bundle, environment)  # now there is a plan, but the runtime does not start
    program = """
        backbone = Backbone.load(BUNDLE)
        while "being built" in backbone.info()["engine"]["passed over"]:
            time.sleep(0.05)
        print(backbone.engine, backbone.info()["engine"]["passed over"])
        """
    assert "onnxruntime tensorrt: TensorRT 10.3.0 must start" in run(program, bundle, environment, **broken).stdout
    assert len(plans(environment)) == 1


@pytest.mark.parametrize(
    ("setting", "what"),
    [
        ({"FIELDSHOT_STANDIN_MEMORY": "100000"}, "this"),
        ({"STANDIN_TENSORRT_FULL": "1"}, "the plan (got: Error Code 2"),
    ],
)
def test_a_plan_without_memory_for_it_is_passed_over_and_not_built_anew(
    setting: dict[str, str], what: str, bundle: Path, environment: dict[str, str]
) -> None:
    run(SHOWN, bundle, environment)
    program = "b = Backbone.load(BUNDLE); print(b.engine, b.info()['engine']['passed over'])"
    done = run(program, bundle, environment, **setting)
    assert done.stdout.startswith(f"onnxruntime tensorrt: Stand-in must have memory for {what}")
    assert "WARNING onnxruntime serves, for tensorrt is passed over: Stand-in must have memory" in done.stderr
    assert "anew" not in done.stderr and "building" not in done.stderr


def test_an_old_tensorrt(bundle: Path, environment: dict[str, str]) -> None:
    shown = "sys.modules['tensorrt_rtx'] = None; print(Backbone.load(BUNDLE).info()['engine']['passed over'])"
    done = run(shown, bundle, environment, STANDIN_TENSORRT_VERSION="8.6.1")
    assert "TensorRT 8.6.1, older than 10.3" in done.stdout


def test_a_file_system_without_locks(bundle: Path, environment: dict[str, str]) -> None:
    program = """
        import fcntl
        def no_lock(file, how):
            raise OSError(37, "No locks available")
        fcntl.flock = no_lock
        assert tensorrt().embed(PICTURES).shape == (40, 16)
        """
    run(program, bundle, environment)
    assert len(plans(environment)) == 1


def test_plans_that_nobody_uses_go_with_the_next_one(environment: dict[str, str], tmp_path: Path) -> None:
    program = """
        from fieldshot.backbone.tensorrt import plans
        def obtain(number):
            return plans.obtain({"a": number}, lambda: b"plan", lambda: None).kept
        def after(days):
            for file in os.scandir(os.path.join(os.environ["FIELDSHOT_CACHE"], "plans")):
                os.utime(file, times=(0, file.stat().st_mtime - 86400 * days))
        assert not obtain(1) and not obtain(2)
        after(80)
        assert obtain(2)
        after(20)
        assert not obtain(3) and obtain(2) and not obtain(1)
        """
    run(program, tmp_path, environment)
    assert len(plans(environment)) == 3


def test_a_fork_does_not_hold_the_lock(bundle: Path, environment: dict[str, str]) -> None:
    """Of a build: it lives on after that, and another process wants the plan anew."""
    program = """
        from fieldshot.backbone.tensorrt import plans
        child = []
        def build():
            child.append(os.fork())
            if not child[0]:
                time.sleep(60)
                os._exit(0)
            return b"plan"
        plans.obtain({"a": 1}, build, lambda: None)
        def waits():
            raise SystemExit("still locked")
        plans.obtain({"a": 1}, lambda: b"plan", waits, anew=True)
        os.kill(child[0], 9)
        """
    run(program, bundle, environment)


def test_named_it_is_not_replaced(bundle: Path, environment: dict[str, str]) -> None:
    program = """
        try:
            tensorrt()
        except DeviceError as error:
            print(error)
        """
    done = run(program, bundle, environment, FIELDSHOT_STANDIN_DEVICES="0")
    assert "there must be a CUDA device" in done.stdout


@pytest.mark.parametrize(
    ("wrong", "got"),
    [({"STANDIN_TENSORRT_WRONG": "float16"}, "float32"), ({"STANDIN_TENSORRT_REFUSES": "float16"}, "float32")],
    ids=["wrong embeddings", "a network it cannot read"],
)
def test_the_next_safer_precision_is_taken_and_it_says_so(
    bundle: Path, environment: dict[str, str], wrong: dict[str, str], got: str
) -> None:
    program = """
        backbone = tensorrt(precision="float16")
        print(backbone.precision, backbone.contract == backbone.bundle.contract("float32"))
        print(backbone.info()["engine"]["passed over"])
        """
    done = run(program, bundle, environment, **wrong)
    first, second = done.stdout.splitlines()
    assert first == f"{got} True"
    assert second.startswith("float16: ")
    assert "WARNING tensorrt in float16 is passed over" in done.stderr


def test_the_gate_is_at_every_batch_size(bundle: Path, environment: dict[str, str]) -> None:
    done = run(REFUSED, bundle, environment, STANDIN_TENSORRT_WRONG_FROM="16")
    assert "tensorrt must reproduce in float32, 16 at a time, the verification embeddings of" in done.stdout
    auto = "b = Backbone.load(BUNDLE); print(b.engine, b.info()['engine']['passed over'])"
    done = run(auto, bundle, environment, STANDIN_TENSORRT_WRONG_FROM="16")
    assert done.stdout.startswith("onnxruntime tensorrt: tensorrt must reproduce in float32")


def test_an_engine_that_fails_the_gate_is_not_handed_over_to(bundle: Path, environment: dict[str, str]) -> None:
    program = """
        backbone = Backbone.load(BUNDLE, precision="float16")
        while "being built" in backbone.info()["engine"]["passed over"]:
            time.sleep(0.05)
        print(backbone.engine, backbone.precision, backbone.info()["engine"]["passed over"])
        """
    done = run(program, bundle, environment, STANDIN_TENSORRT_WRONG="float16", STANDIN_TENSORRT_BUILD_S="0.5")
    assert done.stdout.startswith("onnxruntime float16 tensorrt: tensorrt must reproduce in float16")
    assert "WARNING onnxruntime goes on serving" in done.stderr


def changed(path: Path, network: bytes, preprocessing: Preprocessing, **others: bytes) -> Path:
    """A bundle that states the embeddings of the tiny network, and runs another or feeds it otherwise."""
    Bundle.write(
        path,
        name="changed",
        licence="MIT",
        source="tests",
        dim=16,
        preprocessing=preprocessing,
        verify={
            "float32": {"cosine": 0.99999, "max_abs": 0.001},
            "float16": {"cosine": 0.999, "max_abs": 0.05},
        },
        files={
            "backbone.onnx": network,
            **{f"backbone.{name}.onnx": other for name, other in others.items()},
            "verify.safetensors": verification(tiny_onnx(), TINY_PREPROCESSING),
        },
    )
    return path


def perturbed(network: bytes, scale: float, name: str = "w2") -> bytes:
    """The network with one weight changed, or a whole tensor of them."""
    model = onnx.load_from_string(network)
    (tensor,) = [tensor for tensor in model.graph.initializer if tensor.name == name]
    values = numpy_helper.to_array(tensor).copy()
    if scale > 1:
        with np.errstate(over="ignore"):  # that is what it is about
            values *= scale
    else:
        values[0, 0, 0, 0] += scale
    tensor.CopyFrom(numpy_helper.from_array(values, name))
    return model.SerializeToString()


REFUSED = """
    try:
        tensorrt()
    except EngineError as error:
        print(error)
    else:
        raise SystemExit("not refused")
    """


def test_a_network_with_a_perturbed_weight_is_refused(environment: dict[str, str], tmp_path: Path) -> None:
    path = changed(tmp_path / "a.fieldshot", perturbed(tiny_onnx(), 0.05), TINY_PREPROCESSING)
    assert "tensorrt must reproduce in float32" in run(REFUSED, path, environment).stdout


def test_swapped_channels_are_refused(environment: dict[str, str], tmp_path: Path) -> None:
    path = changed(tmp_path / "a.fieldshot", tiny_onnx(), replace(TINY_PREPROCESSING, channels="BGR"))
    assert "tensorrt must reproduce in float32" in run(REFUSED, path, environment).stdout


def test_an_overflow_in_float16_is_float32(environment: dict[str, str], tmp_path: Path) -> None:
    over = perturbed(halved(tiny_onnx()), 65504.0 * 4, "w2_half")
    path = changed(tmp_path / "a.fieldshot", tiny_onnx(), TINY_PREPROCESSING, fp16=over)
    program = "b = tensorrt(precision='float16'); print(b.precision, b.info()['engine']['passed over'])"
    done = run(program, path, environment)
    assert done.stdout.startswith("float32 float16: tensorrt must reproduce in float16")
    assert "(got NaN or infinity)" in done.stdout


def replaced(environment: dict[str, str], bundle: Path, other: Path) -> None:
    """Put another backbone's plan under the name and the terms of the bundle's, with a digest that is right."""
    run(SHOWN, bundle, environment)
    (ours,) = plans(environment)
    run(SHOWN, other, environment)
    (theirs,) = set(plans(environment)) - {ours}
    header, _, data = ours.read_bytes().partition(b"\n")
    other_data = theirs.read_bytes().partition(b"\n")[2]
    digests = [hashlib.sha256(part).hexdigest().encode() for part in (data, other_data)]
    ours.write_bytes(header.replace(*digests) + b"\n" + other_data)


def test_a_plan_of_another_backbone_is_refused(bundle: Path, environment: dict[str, str], tmp_path: Path) -> None:
    replaced(environment, bundle, write_tiny_bundle(tmp_path / "other.fieldshot", seed=1))
    assert "tensorrt must reproduce in float32" in run(REFUSED, bundle, environment).stdout
    assert run("print(Backbone.load(BUNDLE).engine)", bundle, environment).stdout == "onnxruntime\n"


def test_a_plan_of_other_shapes_does_not_run(bundle: Path, environment: dict[str, str], tmp_path: Path) -> None:
    """It would write embeddings past the end of their memory."""
    replaced(environment, bundle, write_tiny_bundle(tmp_path / "other.fieldshot", dim=40))
    done = run(SHOWN, bundle, environment)
    assert "the one that was kept cannot be used: a plan of this network must have the tensors" in done.stderr
    assert "embedding FLOAT (-1, 16) (got input FLOAT (-1, 3, 32, 32), embedding FLOAT (-1, 40))" in done.stderr
    assert "building" not in run(SHOWN, bundle, environment).stderr


def test_memory_that_runs_out(bundle: Path, environment: dict[str, str]) -> None:
    program = """
        backbone = tensorrt()
        want = backbone.embed(PICTURES[:1])
        driver = ctypes.CDLL("libcuda.so.1")
        from fieldshot.device import find_device
        device = find_device(0)
        while True:  # give up what is idle, so that the next run has to ask
            try:
                device._idle.pop().close()
            except IndexError:
                break
        for nth in range(1, 5):  # PyCUDA asks again, and so do we
            driver.standin_fail(b"cuMemAlloc_v2", nth, 2)
        try:
            backbone.embed(PICTURES[:1])
        except MemoryError as error:
            print(error)
        np.testing.assert_array_equal(backbone.embed(PICTURES[:1]), want)
        """
    assert "must have memory for this" in run(program, bundle, environment).stdout


def test_a_gallery_is_read_by_the_other_engine_too(bundle: Path, environment: dict[str, str], tmp_path: Path) -> None:
    program = f"""
        path = {str(tmp_path / "site.gallery")!r}
        with Recognizer.create(path, BUNDLE, engine="tensorrt") as recognizer:
            recognizer.enroll("one", PICTURES[:3])
            recognizer.enroll("two", PICTURES[3:6])
            there = recognizer.recognize(PICTURES[0])
        with Recognizer.open(path, engine="onnxruntime") as recognizer:
            here = recognizer.recognize(PICTURES[0])
        assert here.label == there.label and abs(here.confidence - there.confidence) < 1e-3
        """
    run(program, bundle, environment)


def test_the_command_waits_for_the_plan_and_says_what_runs(bundle: Path, environment: dict[str, str]) -> None:
    command = [
        sys.executable,
        "-c",
        "import sys; from fieldshot.cli import main; sys.exit(main())",
        "info",
        "--backbone",
        str(bundle),
        "--precision",
        "float16",
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "name tensorrt, version TensorRT 10.3.0, device Stand-in" in done.stdout
    assert "WARNING: building the TensorRT plan of tiny-0 in float16 for Stand-in, once" in done.stderr


ENROLLED = """
    import tempfile
    recognizer = Recognizer.create(tempfile.mkdtemp() + "/site.gallery", BUNDLE, engine="tensorrt")
    recognizer.enroll("one", [PICTURES[i] // 2 for i in range(0, 8)])
    recognizer.enroll("two", [PICTURES[i] // 2 + 120 for i in range(8, 16)])
    driver = ctypes.CDLL("libcuda.so.1")
    driver.standin_calls.restype = ctypes.c_long
    def calls(name):
        return driver.standin_calls(name.encode())
    """


def test_a_recognition_is_one_wait(bundle: Path, environment: dict[str, str]) -> None:
    program = """
        recognizer.recognize(PICTURES[0])  # the head's classifier goes to the device
        for picture in PICTURES[16:20]:
            waits = calls("cuStreamSynchronize"), calls("cuMemcpyDtoH_v2"), calls("cuCtxSynchronize")
            found = recognizer.recognize(picture)
            assert calls("cuStreamSynchronize") == waits[0] + 1
            assert (calls("cuMemcpyDtoH_v2"), calls("cuCtxSynchronize")) == waits[1:]
            assert found.engine == "tensorrt float32"
            model = recognizer._current()
            (apart,) = model.answers(recognizer.backbone.embed([picture]))
            assert apart.label == found.label
            for name, score in apart.scores.items():
                assert abs(found.scores[name] - score) < 1e-5
        """
    run(dedent(ENROLLED) + dedent(program), bundle, environment)


def test_what_comes_again_is_one_graph(bundle: Path, environment: dict[str, str]) -> None:
    program = """
        sizes = [PICTURES[n][: 30 + 5 * (n % 2)] for n in range(16, 32)]  # two sizes in turn
        want = [recognizer._current().answers(recognizer.backbone.embed([picture]))[0] for picture in sizes]
        for picture in sizes[:6]:
            recognizer.recognize(picture)
        before = {name: calls(name) for name in ("cuGraphLaunch", "cuLaunchKernel", "cuMemcpyHtoDAsync_v2")}
        for picture, answer in zip(sizes, want):
            found = recognizer.recognize(picture)
            assert found.label == answer.label
            for name, score in answer.scores.items():
                assert abs(found.scores[name] - score) < 1e-5
        after = {name: calls(name) for name in before}
        assert after == {**before, "cuGraphLaunch": before["cuGraphLaunch"] + len(sizes)}, (before, after)
        recognizer.enroll("two", PICTURES[32:34])  # another classifier is another graph
        changed = recognizer._current().answers(recognizer.backbone.embed([sizes[0]]))[0]
        for _ in range(4):
            assert abs(recognizer.recognize(sizes[0]).confidence - changed.confidence) < 1e-5
        assert changed.confidence != want[0].confidence
        """
    run(dedent(ENROLLED) + dedent(program), bundle, environment)


def test_what_does_not_become_a_graph_goes_on_kernel_by_kernel(bundle: Path, environment: dict[str, str]) -> None:
    program = """
        (want,) = recognizer._current().answers(recognizer.backbone.embed(PICTURES[16:17]))
        before = calls("cuGraphLaunch")
        for nth in (1, 2, 3):
            driver.standin_fail(FUNCTION, nth, 900)
        for _ in range(6):
            found = recognizer.recognize(PICTURES[16])
            assert (found.label, round(found.confidence, 4)) == (want.label, round(want.confidence, 4))
        assert calls("cuGraphLaunch") == before + (3 if FUNCTION == b"cuGraphLaunch" else 0)
        """
    for function in (
        "cuStreamBeginCapture_v2",
        "cuStreamEndCapture",
        "cuGraphInstantiateWithFlags",
        "cuGraphLaunch",
    ):
        run(dedent(ENROLLED) + f"FUNCTION = b{function!r}\n" + dedent(program), bundle, environment)


def test_batches_in_between_do_not_change_a_graph(bundle: Path, environment: dict[str, str]) -> None:
    program = """
        (want,) = recognizer._current().answers(recognizer.backbone.embed(PICTURES[16:17]))
        large = np.random.default_rng(1).integers(0, 256, (1700, 1700, 3), np.uint8)  # its memory comes and goes
        for _ in range(5):
            assert abs(recognizer.recognize(PICTURES[16]).confidence - want.confidence) < 1e-5
            recognizer.backbone.embed(PICTURES[:20])
            recognizer.recognize(large)
        """
    run(dedent(ENROLLED) + dedent(program), bundle, environment)


def test_a_network_that_needs_much_memory_is_a_graph_too(bundle: Path, environment: dict[str, str]) -> None:
    """One picture needs a sixteenth of what the largest batch does."""
    program = """
        for _ in range(2):
            recognizer.recognize(PICTURES[16])
        before = {name: calls(name) for name in ("cuGraphLaunch", "cuMemAlloc_v2", "cuLaunchKernel")}
        for n in range(16, 20):
            recognizer.recognize(PICTURES[n])
        after = {name: calls(name) for name in before}
        assert after == {**before, "cuGraphLaunch": before["cuGraphLaunch"] + 4}, (before, after)
        """
    memory = {"STANDIN_TENSORRT_MEMORY": str(300 << 20), "FIELDSHOT_STANDIN_MEMORY": str(1 << 30)}
    run(dedent(ENROLLED) + dedent(program), bundle, environment, **memory)


def test_the_gate_is_what_serves_a_recognition(bundle: Path, environment: dict[str, str]) -> None:
    done = run(REFUSED, bundle, environment, STANDIN_TENSORRT_WRONG_GRAPH="1")
    assert "tensorrt must reproduce in float32, from the picture, the second time, the" in done.stdout


def test_an_enrolment_sends_its_pictures_too(bundle: Path, environment: dict[str, str]) -> None:
    program = """
        from fieldshot.errors import PictureError
        here = Backbone.load(BUNDLE, "onnxruntime")
        sizes = [picture[: 20 + n % 7, : 30 + n % 5] for n, picture in enumerate(PICTURES)]
        from fieldshot.backbone.tensorrt.running import Running
        Running.run = None  # prepared inputs are for parity and views alone
        np.testing.assert_allclose(recognizer.backbone.embed(sizes), here.embed(sizes), atol=1e-5)
        np.testing.assert_allclose(recognizer.backbone.embed(sizes[:1]), here.embed(sizes[:1]), atol=1e-5)
        recognizer.enroll("three", sizes)
        assert recognizer.info()["classes"]["three"]["pictures"] == len(sizes)
        try:
            recognizer.backbone.embed([*sizes[:3], np.zeros((2, 1 << 20, 3), np.uint8), *sizes])
        except PictureError as error:
            assert str(error).startswith("picture 3: picture must not be that long"), error
        else:
            raise SystemExit("not refused")
        """
    run(dedent(ENROLLED) + dedent(program), bundle, environment)


def test_a_batch_tells_its_progress(bundle: Path, environment: dict[str, str]) -> None:
    program = """
        for count, want in ((1, [(1, 1)]), (3, [(2, 3), (3, 3)])):
            told = []
            recognizer.recognize_batch(PICTURES[:count], progress=lambda done, total: told.append((done, total)))
            assert told == want, told
        """
    run(dedent(ENROLLED) + dedent(program), bundle, environment)


def test_what_prepares_pictures_is_told(bundle: Path, environment: dict[str, str]) -> None:
    program = """
        backbone = tensorrt()
        assert backbone.info()["pictures"] == "prepared by kernels on the device"
        for other in (backbone.with_views(2), Backbone.load(BUNDLE, "onnxruntime")):  # those go through the CPU
            assert other.info()["pictures"].startswith("prepared by CPU kernels"), other.info()
        """
    run(program, bundle, environment)


def test_threads_recognise_at_once(bundle: Path, environment: dict[str, str]) -> None:
    program = """
        want = [a.confidence for a in recognizer._current().answers(recognizer.backbone.embed(PICTURES[16:40]))]
        wrong = []
        def work(first):
            for n in range(first, 40, 3):
                got = recognizer.recognize(PICTURES[n]).confidence
                if abs(got - want[n - 16]) > 1e-5:
                    wrong.append((n, got, want[n - 16]))
        threads = [threading.Thread(target=work, args=(16 + t,)) for t in range(3)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        assert not wrong, wrong
        """
    run(dedent(ENROLLED) + dedent(program), bundle, environment)


def test_where_the_head_computes_elsewhere_the_embedding_comes_back(bundle: Path, environment: dict[str, str]) -> None:
    program = """
        pending = recognizer.backbone.embed_alone(PICTURES[0])
        np.testing.assert_allclose(pending.fetch(), recognizer.backbone.embed(PICTURES[:1]), atol=1e-5)
        from fieldshot import FewShotHead
        Z = recognizer.backbone.embed(PICTURES[:12])
        there, here = (FewShotHead(device=d).fit(Z, np.arange(12) % 2) for d in ("cuda", "host"))
        for head in (there, here):
            got = head.predict_all(recognizer.backbone.embed_alone(PICTURES[20]))
            want = head.predict_all(recognizer.backbone.embed(PICTURES[20:21]))
            for ours, theirs in zip(got, want, strict=True):
                np.testing.assert_allclose(ours, theirs, atol=1e-4)
        """
    run(dedent(ENROLLED) + dedent(program), bundle, environment)


def test_an_embedding_that_is_not_finite_is_no_answer(bundle: Path, environment: dict[str, str]) -> None:
    program = """
        from fieldshot.errors import EmbeddingError
        try:
            recognizer.recognize(PICTURES[0])
        except EmbeddingError as error:
            print(error)
        """
    done = run(dedent(ENROLLED) + "os.environ['STANDIN_TENSORRT_NAN'] = '1'" + dedent(program), bundle, environment)
    assert "embeddings must be finite (got NaN in row 0)" in done.stdout


def test_bad_frames(bundle: Path, environment: dict[str, str]) -> None:
    program = """
        from fieldshot.errors import PictureError
        for shape in ((0, 0, 3), (4, 4, 7), (2, 1 << 20, 3)):
            try:
                recognizer.recognize(np.zeros(shape, np.uint8))
            except PictureError as error:
                print(error)
            else:
                raise SystemExit("not refused")
        grey, alpha = np.full((50, 40), 90, np.uint8), np.full((50, 40, 4), 90, np.uint8)
        from PIL import Image
        for picture in (Image.fromarray(grey), Image.fromarray(alpha, "RGBA")):
            recognizer.recognize(picture)
        """
    run(dedent(ENROLLED) + dedent(program), bundle, environment)
