"""Many samples: chunks, pieces and threads change nothing but the time; memory and head are safe."""

from __future__ import annotations

import copy
import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldshot import FewShotHead
from fieldshot.errors import EmbeddingError, FieldshotError, LabelError, OptionError
from fieldshot.head import learning
from fieldshot.ops import find_ops

DIM = 8


@pytest.fixture
def small_chunks(monkeypatch):
    """Chunks of 16 samples, pieces of 4."""
    monkeypatch.setattr(learning, "_CHUNK_BYTES", 16 * 4 * DIM)
    monkeypatch.setattr(learning, "_PIECE_BYTES", 4 * 4 * DIM)


def samples(seed, counts):
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    return rng.gamma(2.0, size=(len(y), DIM)).astype(np.float32), y


def assert_same(one, other):
    assert list(one) == list(other)
    for a, b in zip(one.values(), other.values(), strict=True):
        assert a.count == b.count
        np.testing.assert_allclose(a.total, b.total, rtol=1e-6)
        np.testing.assert_array_equal(a.samples, b.samples)
        assert (a.moment is None) == (b.moment is None)
        if a.moment is not None:
            np.testing.assert_allclose(a.moment, b.moment, rtol=1e-5)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(1, 150), min_size=1, max_size=8),
    st.integers(1, 40),
    st.integers(1, 20),
    st.sampled_from(["reference", "host"]),
    st.integers(0, 2**31),
)
def test_chunks_and_pieces_change_nothing(counts, chunk, piece, device, seed):
    Z, y = samples(seed, counts)
    ops = find_ops(device)
    whole = {}
    for k in range(len(counts)):
        whole |= learning.learned({}, Z[y == k], y[y == k], ops)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learning, "_CHUNK_BYTES", chunk * 4 * DIM)
        patch.setattr(learning, "_PIECE_BYTES", piece * 4 * DIM)
        parts = learning.learned({}, Z, y, ops)
    assert_same(dict(sorted(parts.items())), whole)


def test_threads_share_the_classes(small_chunks, monkeypatch):
    Z, y = samples(0, [30, 5, 1, 60])
    alone = learning.learned({}, Z, y, find_ops("reference"))
    monkeypatch.setattr(type(find_ops("reference")), "threads", 3)
    assert_same(learning.learned({}, Z, y, find_ops("reference")), alone)


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_samples_may_lie_in_a_file(tmp_path, small_chunks, mode):
    Z, y = samples(1, [40, 40])
    np.save(tmp_path / "Z.npy", Z)
    mapped = np.load(tmp_path / "Z.npy", mmap_mode=mode)
    if mode == "c":
        mapped[0] = Z[0] = 7.0  # in memory only, and not to be lost there
    part = slice(3, None)
    learned = FewShotHead().fit(mapped[part], y[part])
    np.testing.assert_allclose(learned.predict_proba(Z), FewShotHead().fit(Z[part], y[part]).predict_proba(Z))
    np.testing.assert_array_equal(mapped, Z)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_file_larger_than_the_memory_allowed_streams_through(tmp_path):
    Z = np.lib.format.open_memmap(tmp_path / "Z.npy", "w+", np.float32, (80_000, 256))
    Z[:] = np.random.default_rng(0).random(256, np.float32)
    Z.flush()
    script = f"""
import numpy as np
from fieldshot import FewShotHead
from fieldshot.head import learning
learning._CHUNK_BYTES = 1 << 22
def resident():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1]) >> 10
Z = np.load({str(tmp_path / "Z.npy")!r}, mmap_mode="r")
y = np.arange(len(Z)) % 2
before, most = resident(), []
FewShotHead(device="host").fit(Z, y, progress=lambda done, total: most.append(resident() - before))
print(max(most))
"""
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert int(done.stdout) < 40  # MB, of 80


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int16, np.bool_])
def test_any_real_type_is_converted_piece_by_piece(small_chunks, dtype):
    Z, y = samples(2, [30, 30])
    Z = (Z > 2).astype(dtype) if dtype == np.bool_ else (8 * Z).astype(dtype)
    learned = FewShotHead().fit(Z, y).predict_proba(Z)
    np.testing.assert_allclose(learned, FewShotHead().fit(Z.astype(np.float32), y).predict_proba(Z), atol=1e-6)


def test_progress_is_told_within_each_chunk(small_chunks):
    Z = np.ones((40, DIM), np.float32)
    y = np.array([0] * 5 + [1] * 9 + [2, 3] + [0] * 16 + [4, 5, 6, 7, 8, 9, 9, 9])
    told = []
    FewShotHead().fit(Z, y, progress=lambda *numbers: told.append(numbers))
    # Of the chunks of 16 after a class, or classes that are a piece of 4 together.
    assert told == [(done, 40) for done in (5, 14, 16, 32, 36, 40)]


def test_cancelled_work_that_has_not_begun_never_does(small_chunks, monkeypatch):
    Z, y = np.ones((16, DIM), np.float32), np.repeat(range(4), 4)
    begun, turn, ops = [], threading.Event(), find_ops("reference")
    monkeypatch.setattr(type(ops), "threads", 2)
    absorb = ops.absorb

    def slow(Z, starts):
        begun.append(len(begun))
        if len(begun) > 1:
            turn.wait(10)
        return absorb(Z, starts)

    monkeypatch.setattr(ops, "absorb", slow)

    def stop(done, total):
        threading.Timer(0.3, turn.set).start()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learning.learned({}, Z, y, ops, stop)
    assert len(begun) < 4


@pytest.mark.parametrize("change", ["fit", "partial_fit", "merge", "forget"])
@pytest.mark.parametrize("learn", ["fit", "partial_fit"])
def test_a_change_by_progress_is_no_silent_loss(small_chunks, learn, change):
    Z, y = samples(6, [20, 20])
    other = FewShotHead().fit(Z[:10], y[:10] + 2)
    doing = {"fit": (Z[:10], y[:10] + 2), "partial_fit": (Z[:10], y[:10] + 2), "merge": (other,), "forget": (1,)}

    def changed():
        head = FewShotHead().fit(Z[:10], y[:10])
        return head, lambda *told: getattr(head, change)(*doing[change])

    expected, at_once = changed()
    at_once()
    head, progress = changed()
    with pytest.raises(FieldshotError, match="one thing after the other"):
        getattr(head, learn)(Z, y, progress=progress)
    np.testing.assert_array_equal(head.predict_proba(Z), expected.predict_proba(Z))
    fresh = FewShotHead()
    with pytest.raises(FieldshotError, match="one thing after the other"):
        fresh.fit(Z, y, progress=lambda *told: fresh.fit(Z[:10], y[:10]))


def test_progress_may_ask_the_head_and_change_a_copy(small_chunks):
    Z, y = samples(7, [20, 20])
    head = FewShotHead().fit(Z[:10], y[:10])
    before, asked = head.predict_proba(Z), []

    def ask(done, total):
        asked.append(head.predict_proba(Z))
        copy.copy(head).partial_fit(Z[:1], [7])

    head.partial_fit(Z, y, progress=ask)
    for answers in asked:
        np.testing.assert_array_equal(answers, before)
    assert head.classes_.tolist() == [0, 1]


@pytest.mark.parametrize("learn", ["fit", "partial_fit"])
def test_progress_must_be_callable(learn):
    with pytest.raises(OptionError, match=r"progress must be callable \(got True\)"):
        getattr(FewShotHead(), learn)([[1.0, 2.0]], [0], progress=True)


def test_what_progress_raises_cancels_and_leaves_the_head_as_it_was(small_chunks):
    Z, y = samples(4, [20, 20])
    head = FewShotHead().fit(Z[:10], y[:10])
    before = head.predict_proba(Z)

    def stop(done, total):
        if done > 16:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        head.partial_fit(Z, y, progress=stop)
    np.testing.assert_array_equal(head.predict_proba(Z), before)
    assert FewShotHead().partial_fit(Z, y, progress=print).classes_.tolist() == [0, 1]


def test_an_error_names_the_row_in_all_samples(small_chunks):
    Z, y = samples(5, [30, 30])
    Z[41, 3] = np.nan
    with pytest.raises(EmbeddingError, match=r"in row 41\)"):
        FewShotHead().fit(Z, y)


def test_labels_that_do_not_sort_are_refused_across_chunks(small_chunks):
    Z, _ = samples(6, [32])
    labels = np.array([1] * 16 + ["a"] * 16, dtype=object)
    with pytest.raises(LabelError, match="sort"):
        FewShotHead().fit(Z, labels)
