"""The gallery against a plain Python model of it, and each promise on its own."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from fieldshot.errors import EmbeddingError, GalleryError, LabelError, PictureError
from fieldshot.gallery import Gallery, Sample

DIM = 3


def sample(number: int) -> Sample:
    """Picture `number`: its hash and embedding follow from the number."""
    digest = hashlib.sha256(str(number).encode()).digest()
    return Sample(digest, np.array([number, -number, 0.5], np.float32), f"picture {number}")


def live(gallery: Gallery) -> list[tuple[str, bool, int]]:
    snapshot = gallery.snapshot()
    assert snapshot.embeddings.dtype == np.float32
    assert np.array_equal(snapshot.embeddings[:, 1], -snapshot.embeddings[:, 0])
    numbers = snapshot.embeddings[:, 0].astype(int).tolist()
    return sorted(zip(snapshot.labels, snapshot.negative.tolist(), numbers, strict=True))


@pytest.fixture
def gallery(tmp_path: Path) -> Iterator[Gallery]:
    with Gallery.create(tmp_path / "a.gallery", contract="c0ffee", dim=DIM) as opened:
        yield opened


LABELS = st.sampled_from(["bolt", "nut", "шайба", "🔩/M8"])
PICTURES = st.lists(st.integers(0, 7), min_size=1, max_size=4)


class GalleryModel(RuleBasedStateMachine):
    """Live sets as sets of (label, negative, number), one a version."""

    @initialize()
    def create(self) -> None:
        self.path = Path(self.folder) / f"{next(self.serial)}.gallery"
        self.gallery = Gallery.create(self.path, contract="c0ffee", dim=DIM)
        self.versions: list[set[tuple[str, bool, int]]] = [set()]
        self.stack: list[int] = []  # operations not undone

    def commit(self, state: set[tuple[str, bool, int]], version: int) -> None:
        self.versions.append(state)
        assert version == len(self.versions) - 1
        self.stack.append(version)

    @rule(label=LABELS, numbers=PICTURES, negative=st.booleans())
    def store(self, label: str, numbers: list[int], negative: bool) -> None:
        now = self.versions[-1]
        call = self.gallery.reject if negative else self.gallery.enroll
        unknown = negative and not any(name == label for name, _, _ in now)
        taken = not negative and any(not n and name != label and i in numbers for name, n, i in now)
        if unknown or taken:
            with pytest.raises(LabelError):
                call(label, [sample(i) for i in numbers])
            return
        new = {(label, negative, i) for i in numbers} - now
        if negative:  # what is something else is not this
            new -= {(label, True, i) for name, n, i in now if not n and name != label}
        version, added = call(label, [sample(i) for i in numbers])
        assert added == len(new)
        if new:
            stored = {i for _, _, i in new}
            gone = {(label, False, i) for i in stored} if negative else {entry for entry in now if entry[1]}
            self.commit((now | new) - {entry for entry in gone if entry[2] in stored}, version)
        else:
            assert version == len(self.versions) - 1

    @rule(label=LABELS)
    def forget(self, label: str) -> None:
        now = self.versions[-1]
        left = {entry for entry in now if entry[0] != label}
        if left == now:
            with pytest.raises(LabelError, match="must be enrolled"):
                self.gallery.forget(label)
        else:
            self.commit(left, self.gallery.forget(label))

    @rule()
    def undo(self) -> None:
        if not self.stack:
            with pytest.raises(GalleryError, match="undo"):
                self.gallery.undo()
            return
        version = self.gallery.undo()
        self.versions.append(self.versions[self.stack.pop() - 1])
        assert version == len(self.versions) - 1

    @rule(data=st.data())
    def rollback(self, data: st.DataObject) -> None:
        target = data.draw(st.integers(0, len(self.versions) - 1))
        self.commit(self.versions[target], self.gallery.rollback(target))

    @rule()
    def reopen(self) -> None:
        self.gallery.close()
        assert not Path(f"{self.path}-wal").exists()  # one file when nobody has it open
        self.gallery = Gallery.open(self.path)

    @rule(data=st.data())
    def changes_since(self, data: st.DataObject) -> None:
        since = data.draw(st.integers(1, len(self.versions)))
        if since < len(self.versions):
            then, now = self.versions[since], self.versions[-1]
            delta = self.gallery.snapshot(since)
            # One picture may die as one sample and live again as another, so at least the difference shows.
            came = set(zip(delta.labels, delta.negative.tolist(), delta.embeddings[:, 0].astype(int), strict=True))
            assert now - then <= came <= now
            assert delta.removed == len(then) + len(came) - len(now)

    @invariant()
    def same(self) -> None:
        now = self.versions[-1]
        assert live(self.gallery) == sorted(now)
        assert self.gallery.version() == len(self.versions) - 1
        assert self.gallery.counts() == {
            label: tuple(sum(entry[:2] == (label, negative) for entry in now) for negative in (False, True))
            for label in sorted({entry[0] for entry in now})
        }
        history = self.gallery.history()
        assert [operation.version for operation in history] == list(range(1, len(self.versions)))
        assert [o.version for o in history if o.kind != "undo" and not o.undone] == self.stack
        for operation in history:
            before, after = self.versions[operation.version - 1 : operation.version + 1]
            assert operation.added - operation.removed == len(after) - len(before)

    def teardown(self) -> None:
        self.gallery.close()


def test_behaves_as_the_model(tmp_path_factory: pytest.TempPathFactory) -> None:
    from itertools import count

    from hypothesis.stateful import run_state_machine_as_test

    GalleryModel.folder = str(tmp_path_factory.mktemp("model"))  # type: ignore[attr-defined]
    GalleryModel.serial = count()  # type: ignore[attr-defined]
    run_state_machine_as_test(
        GalleryModel,
        settings=settings(
            max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


def test_history_tells_what_happened(gallery: Gallery) -> None:
    gallery.enroll("bolt", [sample(1), sample(2)])
    gallery.forget("bolt")
    gallery.undo()
    gallery.rollback(0)
    kinds = [(o.kind, o.label, o.target, o.added, o.removed, o.undone) for o in gallery.history()]
    assert kinds == [
        ("enroll", "bolt", None, 2, 0, False),
        ("forget", "bolt", None, 0, 2, True),
        ("undo", None, 2, 2, 0, False),
        ("rollback", None, 0, 0, 2, False),
    ]
    assert all(o.time.endswith("+00:00") for o in gallery.history())


def test_a_picture_has_one_label(gallery: Gallery) -> None:
    gallery.enroll("bolt", [sample(1)])
    with pytest.raises(LabelError, match=r"picture 1 for 'nut', which is enrolled as 'bolt' from picture 1"):
        gallery.enroll("nut", [sample(2), sample(1)])
    assert live(gallery) == [("bolt", False, 1)]


def test_rejecting_an_enrolled_picture_takes_it_from_the_label(gallery: Gallery) -> None:
    gallery.enroll("bolt", [sample(1), sample(2)])
    version, added = gallery.reject("bolt", [sample(1)])
    assert (version, added) == (2, 1)
    assert live(gallery) == [("bolt", False, 2), ("bolt", True, 1)]
    gallery.enroll("bolt", [sample(1)])  # and back: the last word counts
    assert live(gallery) == [("bolt", False, 1), ("bolt", False, 2)]


def test_what_a_picture_is_says_what_it_is_not(gallery: Gallery) -> None:
    gallery.enroll("bolt", [sample(1)])
    gallery.enroll("nut", [sample(2)])
    assert gallery.reject("bolt", [sample(2)]) == (2, 0)
    gallery.reject("bolt", [sample(3)])
    gallery.reject("nut", [sample(3)])
    assert live(gallery)[1:3] == [("bolt", True, 3), ("nut", False, 2)]
    gallery.enroll("washer", [sample(3)])
    assert live(gallery) == [("bolt", False, 1), ("nut", False, 2), ("washer", False, 3)]
    gallery.undo()
    assert ("bolt", True, 3) in live(gallery) and ("nut", True, 3) in live(gallery)


def test_some_of_a_label_can_be_forgotten(gallery: Gallery) -> None:
    gallery.enroll("bolt", [sample(1), sample(2), sample(3)])
    gallery.enroll("nut", [sample(4)])
    gallery.reject("bolt", [sample(5)])
    with pytest.raises(PictureError, match=r"enrolled as 'bolt' or rejected for it \(got picture 4\)"):
        gallery.forget("bolt", ["picture 1", "picture 4"])
    assert gallery.forget("bolt", ["picture 1", "picture 5"]) == 4
    assert live(gallery) == [("bolt", False, 2), ("bolt", False, 3), ("nut", False, 4)]
    gallery.enroll("nut", [sample(1)])
    assert gallery.forget("bolt", []) == 6


def test_rollback_needs_a_version_that_exists(gallery: Gallery) -> None:
    for version in (-1, 1):
        with pytest.raises(GalleryError, match=rf"0 to 0 \(got {version}\)"):
            gallery.rollback(version)


@pytest.mark.parametrize(
    ("embedding", "message"),
    [([1.0, 2.0], r"shape \(3,\) \(got \(2,\)"), ([1.0, np.nan, 0.0], "finite"), ([np.inf, 0, 0], "finite")],
)
def test_bad_embeddings_write_nothing(gallery: Gallery, embedding: list[float], message: str) -> None:
    bad = Sample(b"x", np.array(embedding, np.float32), "bad.png")
    with pytest.raises(EmbeddingError, match=message):
        gallery.enroll("bolt", [sample(1), bad])
    assert gallery.version() == 0


def test_original_pictures_are_kept_byte_by_byte(tmp_path: Path) -> None:
    import sqlite3

    with Gallery.create(tmp_path / "a", contract="c", dim=DIM, keep_pictures=True) as gallery:
        kept = Sample(b"h", np.zeros(DIM, np.float32), "a.png", b"\x89PNG...")
        gallery.enroll("bolt", [kept])
        assert gallery.keep_pictures
    db = sqlite3.connect(tmp_path / "a")
    assert db.execute("SELECT data FROM picture").fetchall() == [(b"\x89PNG...",)]
    db.close()


def test_another_opening_sees_each_operation(gallery: Gallery) -> None:
    with Gallery.open(gallery.path) as other:
        assert other.version() == 0
        gallery.enroll("bolt", [sample(1)])
        assert other.version() == 1
        assert live(other) == [("bolt", False, 1)]


def test_readers_do_not_wait_for_a_writer(gallery: Gallery) -> None:
    gallery.enroll("bolt", [sample(1)])
    with gallery._write() as db:  # a transaction that takes its time, here and elsewhere
        db.execute("DELETE FROM meta WHERE key = 'created'")
        with Gallery.open(gallery.path) as other:
            start = time.perf_counter()
            for reader in (gallery, other):
                assert reader.version() == 1
                assert live(reader) == [("bolt", False, 1)]
            assert time.perf_counter() - start < 1.0


def test_a_lock_held_for_long_is_an_error_that_says_so(gallery: Gallery) -> None:
    late = pytest.raises(GalleryError, match=r"lock held by another program.*Hint: wait")
    with gallery._write(), Gallery.open(gallery.path, timeout_s=0.05) as other, late:
        other.enroll("bolt", [sample(1)])
    with Gallery.open(gallery.path) as other:
        assert other.enroll("bolt", [sample(1)]) == (1, 1)


def test_many_threads_write_and_read(gallery: Gallery) -> None:
    errors: list[BaseException] = []
    done = threading.Event()

    def write(first: int) -> None:
        for number in range(first, first + 20):
            gallery.enroll(f"label {first}", [sample(number)])

    def read() -> None:
        try:
            while not done.is_set():
                snapshot = gallery.snapshot()
                assert len(snapshot.labels) == snapshot.version  # each operation added one sample
        except BaseException as error:
            errors.append(error)

    writers = [threading.Thread(target=write, args=(first,)) for first in (0, 100, 200)]
    readers = [threading.Thread(target=read) for _ in range(2)]
    for thread in [*readers, *writers]:
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    for thread in readers:
        thread.join()
    assert not errors
    assert gallery.version() == 60


def test_a_closed_gallery_says_so(gallery: Gallery) -> None:
    gallery.close()
    with pytest.raises(GalleryError, match="must be open"):
        gallery.version()
    with pytest.raises(GalleryError, match="must be open"):
        gallery.undo()
