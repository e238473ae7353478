"""Power off at any instant: SIGKILL at 200 points of an enrolment, spread over all of it."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from fieldshot import Backbone, Recognizer
from fieldshot.gallery import Gallery

KILLS = 200
CLASSES = 6
SHOTS = 5


def pictures(number: int) -> list[np.ndarray]:
    random = np.random.default_rng(number)
    return [random.integers(0, 256, (36, 36, 3), np.uint8) for _ in range(SHOTS)]


def enrol(path: Path, bundle: Path, acknowledge: int) -> None:
    """What the killed process does: open, then a folder's worth of classes, one class alone, one undone."""

    def tell(version: int) -> None:
        os.write(acknowledge, bytes([version]))

    with Recognizer.open(path, backbone=Backbone.load(bundle, threads=1)) as recognizer:
        os.write(acknowledge, b"\xff")  # the enrolment begins here
        for result in recognizer.enroll_many({f"class {n}": pictures(n) for n in range(CLASSES)}):
            tell(result.version)
        tell(recognizer.enroll("alone", pictures(CLASSES)).version)
        tell(recognizer.forget("class 0").version)
        tell(recognizer.undo().version)


def run(path: Path, bundle: Path, kill_after_s: float | None) -> tuple[int, float]:
    """Last version that the process had acknowledged when it ended, and how long it was left to enrol."""
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(readable)
            enrol(path, bundle, writable)
            status = 0
        finally:
            os._exit(status)
    os.close(writable)
    with open(readable, "rb", buffering=0) as told:
        assert told.read(1) == b"\xff", "the process must get as far as the enrolment"
        start = time.perf_counter()
        if kill_after_s is not None:
            time.sleep(kill_after_s)
            os.kill(child, signal.SIGKILL)
        acknowledged = b"".join(iter(lambda: told.read(100), b""))
        took_s = time.perf_counter() - start
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code == 0 or (kill_after_s is not None and code == -signal.SIGKILL)
    return max(acknowledged, default=0), took_s


def check(path: Path, acknowledged: int) -> int:
    """Everything acknowledged is there, nothing half: returns the version that survived."""
    with Gallery.open(path) as gallery:
        version = gallery.version()
        assert version >= acknowledged
        expected = [("enroll", f"class {n}", SHOTS, 0) for n in range(CLASSES)]
        expected += [("enroll", "alone", SHOTS, 0), ("forget", "class 0", 0, SHOTS), ("undo", None, SHOTS, 0)]
        history = [(o.kind, o.label, o.added, o.removed) for o in gallery.history()]
        assert history == expected[:version]
        live = sum(added - removed for _, _, added, removed in history)
        assert len(gallery.snapshot().labels) == live
        assert all(count == (SHOTS, 0) for count in gallery.counts().values())
        # And it goes on working.
        gallery.rollback(0)
        gallery.rollback(version)
        assert len(gallery.snapshot().labels) == live
        gallery.undo()
    db = sqlite3.connect(path)
    try:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        stored = sum(added for kind, _, added, _ in history if kind == "enroll")
        assert db.execute("SELECT count(*) FROM sample").fetchone() == (stored,)
    finally:
        db.close()
    return version


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # of fork, from Python 3.12 on
def test_a_kill_at_any_point_leaves_the_last_completed_operation(tmp_path: Path, tiny_bundle: Path) -> None:
    backbone = Backbone.load(tiny_bundle, threads=1)

    def fresh(name: object) -> Path:
        path = tmp_path / f"{name}.gallery"
        Recognizer.create(path, backbone=backbone).close()
        return path

    # How long a whole enrolment takes here, so that the kills fall all over it and a little beyond.
    path = fresh("whole")
    last, takes_s = run(path, tiny_bundle, None)
    assert check(path, last) == last == CLASSES + 3

    survived = Counter[int]()
    points = random.Random(0)
    for trial in range(KILLS):
        path = fresh(trial)
        acknowledged, _ = run(path, tiny_bundle, points.uniform(0, 1.1 * takes_s))
        survived[check(path, acknowledged)] += 1
    assert survived[0] and survived[last]  # before the first operation and after the last,
    assert len(survived) > last / 2  # and between them
