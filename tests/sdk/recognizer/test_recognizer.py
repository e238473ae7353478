"""The main job: enrol, recognise, reject, forget, undo, across threads and processes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bundles import coarse, tiny_onnx, write_tiny_bundle
from fieldshot import Backbone, FieldshotError, Recognizer
from fieldshot.errors import (
    ContractError,
    GalleryError,
    LabelError,
    MissingFileError,
    OptionError,
    PictureError,
)

COLOURS = {"red": (200, 30, 30), "green": (30, 190, 40), "blue": (40, 40, 210), "yellow": (210, 200, 30)}


def picture(colour: str, seed: int) -> np.ndarray:
    """A noisy picture of one colour; another seed gives other pixels."""
    random = np.random.default_rng([seed, *COLOURS[colour]])
    noise = random.normal(0, 25, (40, 48, 3))
    return np.clip(np.array(COLOURS[colour]) + noise, 0, 255).astype(np.uint8)


def several(colour: str, count: int, first: int = 0) -> list[np.ndarray]:
    return [picture(colour, seed) for seed in range(first, first + count)]


def save(folder: Path, colour: str, count: int) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number}.png" for number in range(count)]
    for number, path in enumerate(paths):
        Image.fromarray(picture(colour, number)).save(path)
    return paths


@pytest.fixture(scope="module")
def backbone(tiny_bundle: Path) -> Backbone:
    return Backbone.load(tiny_bundle)


@pytest.fixture
def recognizer(tmp_path: Path, backbone: Backbone) -> Iterator[Recognizer]:
    with Recognizer.create(tmp_path / "site.gallery", backbone=backbone) as opened:
        yield opened


@pytest.fixture
def trained(recognizer: Recognizer) -> Recognizer:
    recognizer.enroll_many({colour: several(colour, 4) for colour in ("red", "green", "blue")})
    return recognizer


def test_enrolled_classes_are_recognised(recognizer: Recognizer) -> None:
    results = [recognizer.enroll(colour, several(colour, 4)) for colour in ("red", "green", "blue")]
    assert [(r.label, r.added, r.duplicates, r.version) for r in results] == [
        ("red", 4, 0, 1),
        ("green", 4, 0, 2),
        ("blue", 4, 0, 3),
    ]
    answer = recognizer.recognize(picture("green", 99))
    assert answer.label == "green" and answer.known
    assert list(answer.scores) == sorted(answer.scores, key=answer.scores.__getitem__, reverse=True)
    assert set(answer.scores) == {"red", "green", "blue"}
    assert sum(answer.scores.values()) == pytest.approx(1)
    assert answer.confidence == answer.scores["green"] > 0.4
    assert answer.version == 3
    assert answer.latency_ms > 0


def test_any_kind_of_picture(recognizer: Recognizer, tmp_path: Path) -> None:
    (path, other) = save(tmp_path / "pictures", "red", 2)
    assert recognizer.enroll("red", path).added == 1
    assert recognizer.enroll("red", str(other)).added == 1
    assert recognizer.enroll("green", picture("green", 0)).added == 1
    assert recognizer.enroll("green", (Image.fromarray(p) for p in several("green", 3))).added == 2
    assert recognizer.enroll("green", np.stack(several("green", 4))).added == 1
    for image in (path, str(path), Image.open(path), picture("red", 0)):
        assert recognizer.recognize(image).label == "red"


def test_a_batch_answers_as_one_by_one(trained: Recognizer) -> None:
    images = [picture(colour, 50) for colour in ("blue", "red", "green")]
    batch = trained.recognize_batch(images)
    assert [r.label for r in batch] == ["blue", "red", "green"]
    for alone, together in zip(map(trained.recognize, images), batch, strict=True):
        assert alone.scores == pytest.approx(together.scores, abs=1e-5)
    assert trained.recognize_batch([]) == []


def test_a_later_opening_answers_the_same(trained: Recognizer, backbone: Backbone) -> None:
    before = trained.recognize(picture("red", 70))
    with Recognizer.open(trained.gallery.path) as again:
        assert again.backbone.path == backbone.path  # found by the path that the gallery recorded
        after = again.recognize(picture("red", 70))
    assert after.label == before.label
    assert after.scores == pytest.approx(before.scores, abs=1e-4)


def test_one_picture_under_two_names_is_one(recognizer: Recognizer, tmp_path: Path) -> None:
    (path,) = save(tmp_path / "a", "red", 1)
    copy = shutil.copy(path, tmp_path / "copy.png")
    Image.open(path).save(tmp_path / "same.bmp")  # other bytes, the same pixels
    result = recognizer.enroll("red", [path, copy, tmp_path / "same.bmp", picture("red", 0)])
    assert (result.added, result.duplicates, result.version) == (1, 3, 1)
    result = recognizer.enroll("red", path)
    assert (result.added, result.duplicates, result.version) == (0, 1, 1)
    with pytest.raises(LabelError, match=r"same\.bmp for 'green', which is enrolled as 'red' from .*0\.png"):
        recognizer.enroll("green", [picture("green", 0), tmp_path / "same.bmp"])
    assert recognizer.gallery.version() == 1


def test_rejected_pictures_do_not_get_the_label_any_more(trained: Recognizer) -> None:
    yellow = picture("yellow", 0)
    wrong = trained.recognize(yellow)
    assert wrong.label is not None
    result = trained.reject(wrong.label, several("yellow", 2))
    assert (result.added, result.version) == (2, 4)
    for seed in (0, 10, 11):
        answer = trained.recognize(picture("yellow", seed))
        assert answer.label is None and not answer.known
        assert set(answer.scores) == {"red", "green", "blue"}
        assert sum(answer.scores.values()) < 1
    for colour in ("red", "green", "blue"):
        assert trained.recognize(picture(colour, 30)).label == colour
    trained.undo()
    assert trained.recognize(yellow).label == wrong.label


def test_one_label_and_what_it_is_not_is_enough(recognizer: Recognizer) -> None:
    recognizer.enroll("red", several("red", 3))
    with pytest.raises(FieldshotError, match=r"two labels.*only 'red'.*Hint: enrol another"):
        recognizer.recognize(picture("red", 9))
    recognizer.reject("red", several("blue", 3))
    assert recognizer.recognize(picture("red", 9)).label == "red"
    assert recognizer.recognize(picture("blue", 9)).label is None


def test_rejecting_an_enrolled_picture_takes_it_out(trained: Recognizer) -> None:
    trained.enroll("red", [picture("blue", 77)])  # a mistake
    result = trained.reject("red", [picture("blue", 77)])
    assert (result.added, result.removed) == (1, 1)
    assert trained.info()["classes"]["red"] == {"pictures": 4, "negatives": 1}
    assert trained.history()[-1].removed == 1


def test_an_answer_is_corrected_by_enrolling_rightly(trained: Recognizer) -> None:
    yellow = picture("yellow", 0)
    wrong = trained.recognize(yellow).label
    assert wrong is not None
    trained.reject(wrong, yellow)
    assert trained.recognize(yellow).label is None
    assert trained.enroll("yellow", yellow).removed == 1
    assert trained.recognize(yellow).label == "yellow"
    result = trained.reject(wrong, yellow)
    assert (result.added, result.duplicates) == (0, 1)
    assert trained.recognize(yellow).label == "yellow"


def test_a_picture_is_taken_out_by_its_name_though_the_file_is_gone(trained: Recognizer, tmp_path: Path) -> None:
    path = save(tmp_path, "yellow", 1)[0]
    trained.enroll("red", path)
    path.unlink()
    assert trained.forget("red", path).removed == 1
    assert trained.info()["classes"]["red"] == {"pictures": 4, "negatives": 0}
    with pytest.raises(PictureError, match="must be enrolled as 'red'"):
        trained.forget("red", [path])


def test_only_an_enrolled_label_can_be_rejected(trained: Recognizer) -> None:
    with pytest.raises(LabelError, match=r"must be enrolled \(got 'Red'\).*knows 'blue', 'green', 'red'"):
        trained.reject("Red", [picture("blue", 1)])


def test_an_empty_gallery_says_what_to_do(recognizer: Recognizer) -> None:
    with pytest.raises(FieldshotError, match=r"two labels.*\(got none\)"):
        recognizer.recognize(picture("red", 0))
    with pytest.raises(GalleryError, match="operation to undo"):
        recognizer.undo()
    with pytest.raises(LabelError, match="no label yet"):
        recognizer.forget("red")


def test_forget_undo_and_rollback_are_answered_at_once(trained: Recognizer) -> None:
    green = picture("green", 40)
    forgotten = trained.forget("green")
    assert (forgotten.kind, forgotten.label, forgotten.removed, forgotten.version) == ("forget", "green", 4, 4)
    assert "green" not in trained.recognize(green).scores
    undone = trained.undo()
    assert (undone.kind, undone.target, undone.added) == ("undo", 4, 4)
    assert trained.recognize(green).label == "green"
    trained.rollback(2)
    assert set(trained.recognize(green).scores) == {"red", "green"}
    trained.rollback(5)
    assert set(trained.recognize(green).scores) == {"red", "green", "blue"}
    assert [o.kind for o in trained.history()][3:] == ["forget", "undo", "rollback", "rollback"]


def test_adding_step_by_step_equals_fitting_at_once(trained: Recognizer, backbone: Backbone) -> None:
    trained.recognize(picture("red", 0))
    trained.enroll("yellow", several("yellow", 3))
    trained.enroll("red", several("red", 3, first=20))
    trained.reject("red", several("yellow", 2, first=60))
    with Recognizer.open(trained.gallery.path, backbone=backbone) as fresh:
        for colour in COLOURS:
            step, once = (r.recognize(picture(colour, 90)) for r in (trained, fresh))
            assert step.label == once.label
            assert step.scores == pytest.approx(once.scores, abs=1e-3)


def test_a_folder_of_classes(recognizer: Recognizer, tmp_path: Path) -> None:
    for colour in ("red", "green"):
        save(tmp_path / "pictures" / colour, colour, 20)
    seen: list[tuple[int, int | None]] = []
    results = recognizer.enroll_folder(tmp_path / "pictures", progress=lambda *done: seen.append(done))
    assert [(r.label, r.added, r.version) for r in results] == [("green", 20, 1), ("red", 20, 2)]
    assert seen == [(done, 40) for done in range(2, 41, 2)]
    assert recognizer.recognize(picture("red", 99)).label == "red"


def test_a_folder_without_pictures(recognizer: Recognizer, tmp_path: Path) -> None:
    with pytest.raises(PictureError, match="Hint"):
        recognizer.enroll_folder(tmp_path)
    with pytest.raises(PictureError, match="'red' must get at least one picture"):
        recognizer.enroll("red", [])
    assert recognizer.gallery.version() == 0


def test_an_unreadable_picture_stops_its_class_and_those_after_it(recognizer: Recognizer, tmp_path: Path) -> None:
    for colour in ("blue", "green", "red"):
        save(tmp_path / "pictures" / colour, colour, 3)
    bad = tmp_path / "pictures" / "green" / "1.png"
    bad.write_bytes(bad.read_bytes()[:200])
    with pytest.raises(PictureError, match=r"green/1\.png"):
        recognizer.enroll_folder(tmp_path / "pictures")
    assert list(recognizer.gallery.counts()) == ["blue"]
    blue, green, red = recognizer.enroll_folder(tmp_path / "pictures", skip_unreadable=True)
    assert (blue.added, blue.duplicates) == (0, 3)
    assert (green.added, green.unreadable) == (2, (str(bad),))
    assert (red.added, red.unreadable) == (3, ())


def test_an_unreadable_array_is_named(recognizer: Recognizer) -> None:
    with pytest.raises(PictureError, match="picture 1 of 'red'"):
        recognizer.enroll("red", [picture("red", 0), np.zeros((4, 4), np.float64)])
    result = recognizer.enroll(
        "red", [picture("red", 0), "no such file.png", np.zeros((4, 4), np.float64)], skip_unreadable=True
    )
    assert (result.added, result.unreadable) == (1, ("no such file.png", "picture 2 of 'red'"))
    assert recognizer.enroll("green", ["no such file.png"], skip_unreadable=True).added == 0


def test_an_unreadable_picture_is_told_before_all_others_are_read(recognizer: Recognizer) -> None:
    taken: list[int] = []

    def images() -> Iterator[object]:
        for number in range(400):
            taken.append(number)
            yield "no such file.png" if number == 3 else picture("red", number)

    with pytest.raises(MissingFileError, match=r"no such file\.png"):
        recognizer.enroll("red", images())
    assert len(taken) < 200


def test_an_error_in_the_gallery_stops_the_classes_after_it(recognizer: Recognizer) -> None:
    recognizer.enroll("red", [picture("red", 0)])
    with pytest.raises(LabelError, match="one label"):
        recognizer.enroll_many(
            {"blue": several("blue", 2), "green": [picture("red", 0)], "yellow": several("yellow", 40)}
        )
    assert sorted(recognizer.gallery.counts()) == ["blue", "red"]


@pytest.mark.parametrize("label", ["", "x" * 10_000, "a\nb", 7])
def test_a_bad_label_is_refused_before_any_work(recognizer: Recognizer, label: object) -> None:
    with pytest.raises(LabelError):
        recognizer.enroll_many({"red": several("red", 2), label: several("blue", 2)})  # type: ignore[dict-item]
    assert recognizer.gallery.version() == 0


def test_labels_of_any_script(recognizer: Recognizer) -> None:
    recognizer.enroll_many({"../é/🔩": several("red", 2), "  шайба ": several("green", 2)})
    assert recognizer.recognize(picture("red", 5)).label == "../é/🔩"
    assert recognizer.recognize(picture("green", 5)).label == "шайба"


def test_kept_pictures_are_the_original_bytes(tmp_path: Path, backbone: Backbone) -> None:
    (path,) = save(tmp_path / "a", "red", 1)
    with Recognizer.create(tmp_path / "g", backbone=backbone, keep_pictures=True) as recognizer:
        recognizer.enroll("red", [path, picture("red", 1)])
    db = sqlite3.connect(tmp_path / "g")
    (file, array), hashes = (
        [row[0] for row in db.execute(query)]
        for query in ("SELECT data FROM picture ORDER BY sample_id", "SELECT hash FROM sample ORDER BY id")
    )
    db.close()
    assert file == path.read_bytes()
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(array))), picture("red", 1))
    pixels = picture("red", 1)
    assert hashes[1] == hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).digest()


# --- the right backbone


def test_another_backbone_is_refused(trained: Recognizer, tmp_path: Path) -> None:
    other = write_tiny_bundle(tmp_path / "other.fieldshot", seed=1)
    with pytest.raises(ContractError, match=r"'tiny-0' .*'tiny-1'.*other weights.*Hint: .*new gallery"):
        Recognizer.open(trained.gallery.path, backbone=other)


def test_another_preprocessing_is_refused(trained: Recognizer, tmp_path: Path, tiny_bundle: Path) -> None:
    bundle = Backbone.load(tiny_bundle).bundle
    facts = json.loads(trained.gallery.meta["preprocessing"])
    facts["mean"] = [0.25, 0.5, 0.5]
    db = sqlite3.connect(trained.gallery.path)
    db.execute("UPDATE meta SET value = ? WHERE key = 'preprocessing'", (json.dumps(facts, sort_keys=True),))
    db.execute("UPDATE meta SET value = 'c0ffee' WHERE key = 'contract'")
    db.commit()
    db.close()
    with pytest.raises(ContractError, match=r"\(mean \[0\.5, 0\.5, 0\.5\], not \[0\.25, 0\.5, 0\.5\]\)"):
        Recognizer.open(trained.gallery.path, backbone=bundle.path)


def test_a_gallery_keeps_to_its_precision(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "tiny.fieldshot", others={"backbone.int8.onnx": coarse(tiny_onnx())})
    with Recognizer.create(tmp_path / "g", backbone=bundle, precision="int8") as recognizer:
        recognizer.enroll_many({"red": several("red", 1), "blue": several("blue", 1)})
    for backbone in (None, bundle, Backbone.load(bundle, precision="int8")):
        with Recognizer.open(tmp_path / "g", backbone=backbone) as recognizer:
            assert recognizer.backbone.precision == "int8"
            assert recognizer.recognize(picture("red", 3)).label == "red"
    with pytest.raises(ContractError, match=r"other precision \(float32, not int8\)"):
        Recognizer.open(tmp_path / "g", backbone=Backbone.load(bundle))
    anew = write_tiny_bundle(tmp_path / "anew.fieldshot", others={"backbone.int8.onnx": tiny_onnx()})
    with pytest.raises(ContractError, match=r"\(got 'tiny-0' with contract \w+: another calibration of int8\)"):
        Recognizer.open(tmp_path / "g", backbone=anew)


def test_a_bundle_that_moved(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "tiny.fieldshot")
    with Recognizer.create(tmp_path / "g", backbone=bundle) as recognizer:
        recognizer.enroll_many({"red": several("red", 1), "blue": several("blue", 1)})
    moved = bundle.rename(tmp_path / "moved.fieldshot")
    with pytest.raises(MissingFileError, match=r"tiny\.fieldshot.*Hint: pass .*backbone"):
        Recognizer.open(tmp_path / "g")
    with Recognizer.open(tmp_path / "g", backbone=moved) as recognizer:
        assert recognizer.recognize(picture("red", 3)).label == "red"


def test_create_leaves_nothing_behind_when_the_bundle_is_bad(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError):
        Recognizer.create(tmp_path / "g", backbone=tmp_path / "no.fieldshot")
    assert not (tmp_path / "g").exists()


def test_create_never_overwrites(trained: Recognizer, backbone: Backbone) -> None:
    with pytest.raises(GalleryError, match="must be free"):
        Recognizer.create(trained.gallery.path, backbone=backbone)
    assert trained.recognize(picture("red", 3)).label == "red"


def test_info_is_json(trained: Recognizer) -> None:
    trained.reject("red", [picture("yellow", 0)])
    info = json.loads(json.dumps(trained.info(), allow_nan=False))
    assert info["version"] == 4
    assert info["samples"] == 13
    assert info["classes"]["red"] == {"pictures": 4, "negatives": 1}
    assert info["contract"] == info["backbone"]["contract"]
    assert info["size_bytes"] > 0


# --- threads and processes


def test_recognising_while_a_thread_enrols_sees_whole_versions(recognizer: Recognizer) -> None:
    """Version n of this gallery has n labels, so an answer of version n must have scored n labels."""
    recognizer.enroll_many({f"label {n}": [picture("red", n)] for n in range(2)})
    errors: list[BaseException] = []
    versions: set[int] = set()
    done = threading.Event()

    def recognise() -> None:
        try:
            while not done.is_set():
                answer = recognizer.recognize(picture("blue", 1))
                assert len(answer.scores) == answer.version
                versions.add(answer.version)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=recognise) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(2, 30):
        recognizer.enroll(f"label {number}", [picture("red", number)])
        assert recognizer.recognize(picture("blue", 1)).version == number + 1
    done.set()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(versions) > 3


ENROL_ELSEWHERE = """
import sys
import numpy as np
from fieldshot import Recognizer
path, name = sys.argv[1:]
random = np.random.default_rng(len(name))
with Recognizer.open(path) as recognizer:
    for number in range(15):
        image = random.integers(0, 256, (40, 40, 3), np.uint8)
        print(recognizer.enroll(f"{name} {number}", [image]).version, flush=True)
"""


def test_recognising_while_two_processes_enrol(recognizer: Recognizer) -> None:
    recognizer.enroll_many({f"label {n}": [picture("red", n)] for n in range(2)})
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", ENROL_ELSEWHERE, recognizer.gallery.path, name],
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("a", "bb")
    ]
    seen = []
    while any(writer.poll() is None for writer in writers):
        answer = recognizer.recognize(picture("blue", 1))
        assert len(answer.scores) == answer.version
        seen.append(answer.version)
    acknowledged = [int(line) for writer in writers for line in writer.communicate()[0].split()]
    assert [writer.returncode for writer in writers] == [0, 0]
    assert sorted(acknowledged) == list(range(3, 33))
    assert seen == sorted(seen)
    assert recognizer.recognize(picture("blue", 1)).version == 32


def test_an_operation_of_another_opening_is_seen_at_once(trained: Recognizer, backbone: Backbone) -> None:
    with Recognizer.open(trained.gallery.path, backbone=backbone) as other:
        assert other.recognize(picture("red", 8)).version == 3
        trained.forget("red")
        assert "red" not in other.recognize(picture("red", 8)).scores
        other.undo()
        assert trained.recognize(picture("red", 8)).label == "red"


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # of fork, from Python 3.12 on
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user who may not write")
def test_a_read_only_gallery_recognises(tiny_bundle: Path) -> None:
    folder = Path(tempfile.mkdtemp(prefix="fieldshot-readonly-"))  # pytest's own folders are closed to others
    path = folder / "site.gallery"
    child = os.fork()
    if child == 0:
        status = 1
        try:
            backbone = Backbone.load(tiny_bundle, threads=1)
            with Recognizer.create(path, backbone=backbone) as recognizer:
                recognizer.enroll_many({colour: several(colour, 3) for colour in ("red", "blue")})
            os.chmod(path, 0o444)
            os.chmod(folder, 0o555)
            os.setuid(65534)
            with Recognizer.open(path, backbone=backbone) as recognizer:
                assert recognizer.recognize(picture("red", 8)).label == "red"
                with pytest.raises(GalleryError, match="must be writable"):
                    recognizer.enroll("red", [picture("red", 50)])
                assert recognizer.recognize(picture("blue", 8)).label == "blue"
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    shutil.rmtree(folder)


def test_a_gallery_keeps_to_the_views_that_there_was_time_for(tmp_path: Path, backbone: Backbone) -> None:
    path = tmp_path / "a.gallery"
    with Recognizer.create(path, backbone, budget_ms=10_000.0) as made:
        assert made.backbone.views == 3
        made.enroll_many({colour: several(colour, 3) for colour in COLOURS})
        expected = made.recognize(picture("red", 50)).scores
    for given in (None, backbone, backbone.path):
        with Recognizer.open(path, backbone=given) as again:
            assert again.backbone.views == again.info()["backbone"]["views"] == 3
            assert again.recognize(picture("red", 50)).scores == expected
    with Recognizer.open(path) as again, pytest.raises(ContractError, match=r"other views \(1, not 3\)"):
        Recognizer(again.gallery, backbone)
    with Recognizer.create(tmp_path / "b.gallery", backbone, budget_ms=1e-6) as made:
        assert made.backbone.views == 1


def test_a_gallery_from_before_there_were_views_is_one_of_one(tmp_path: Path, backbone: Backbone) -> None:
    with Recognizer.create(tmp_path / "a.gallery", backbone) as made:
        made.enroll("red", several("red", 2))
    with sqlite3.connect(tmp_path / "a.gallery") as db:
        db.execute("DELETE FROM meta WHERE key IN ('views', 'precision')")
    with Recognizer.open(tmp_path / "a.gallery", backbone=backbone.with_views(3)) as again:
        assert again.backbone.views == 1


@pytest.mark.parametrize("version", [1.5, 0.5, True, "1", None])
def test_a_version_is_a_whole_number(trained: Recognizer, version: object) -> None:
    before = trained.history()
    with pytest.raises(OptionError, match="version must be a whole number"):
        trained.rollback(version)  # type: ignore[arg-type]
    assert trained.history() == before


@pytest.mark.parametrize("rate", [0, 1, -0.5, float("nan"), True, "0.05"])
def test_a_false_accept_rate_is_a_share(trained: Recognizer, rate: object) -> None:
    with pytest.raises(OptionError, match="false_accept_rate must be between 0 and 1"):
        Recognizer.open(trained.gallery.path, false_accept_rate=rate)  # type: ignore[arg-type]
