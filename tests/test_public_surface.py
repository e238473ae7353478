"""Names and signatures that programs outside the project call; a change here is a change for all of them."""

from __future__ import annotations

import inspect

import pytest

import fieldshot
from fieldshot import Backbone, FewShotHead, Recognizer, errors

# Class -> method -> parameters. A list may grow at its end, by what has a default.
SURFACE = {
    Backbone: {
        "default": "*, engine='auto', threads=None",
        "load": "path, engine='auto', *, threads=None",
        "embed": "self, images, *, batch_size=32, progress=None",
    },
    FewShotHead: {
        "fit": "self, Z, y",
        "partial_fit": "self, Z, y",
        "forget": "self, label",
        "predict": "self, Z",
        "predict_proba": "self, Z",
        "decision_function": "self, Z",
        "adapt": "self, Z",
        "save": "self, path",
        "load": "path",
    },
    Recognizer: {
        "create": "path, backbone=None",
        "open": "path, *, backbone=None",
        "enroll": "self, label, images",
        "recognize": "self, image",
        "reject": "self, label, images",
        "forget": "self, label",
        "undo": "self",
        "history": "self",
        "rollback": "self, version",
        "report": "self",
        "info": "self",
    },
}
METHODS = [(owner, name, pinned) for owner, methods in SURFACE.items() for name, pinned in methods.items()]


def parameters(function: object) -> list[inspect.Parameter]:
    """Parameters without their annotations."""
    return [
        part.replace(annotation=inspect.Parameter.empty) for part in inspect.signature(function).parameters.values()
    ]


def test_exported_names() -> None:
    assert fieldshot.__all__ == ["Backbone", "FewShotHead", "FieldshotError", "Recognition", "Recognizer"]
    for name in fieldshot.__all__:
        assert getattr(fieldshot, name).__name__ == name
    assert set(fieldshot.__all__) <= set(dir(fieldshot))
    with pytest.raises(AttributeError, match="no attribute 'Recogniser'"):
        fieldshot.Recogniser  # noqa: B018


@pytest.mark.parametrize(("owner", "name", "pinned"), METHODS)
def test_signature(owner: type, name: str, pinned: str) -> None:
    wanted = parameters(eval(f"lambda {pinned}: None"))
    found = parameters(getattr(owner, name))
    assert found[: len(wanted)] == wanted
    for extra in found[len(wanted) :]:
        assert extra.default is not inspect.Parameter.empty


def test_head_is_made_with_keywords_that_all_have_defaults() -> None:
    for part in parameters(FewShotHead):
        assert part.kind is inspect.Parameter.KEYWORD_ONLY
        assert part.default is not inspect.Parameter.empty


def test_recognition_has_its_fields() -> None:
    assert {"label", "confidence", "scores", "latency_ms"} <= set(fieldshot.Recognition.__dataclass_fields__)


def test_every_error_is_exported_and_has_one_root() -> None:
    classes = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert sorted(classes) == errors.__all__
    for name in errors.__all__:
        error = getattr(errors, name)("size must be above 0 (got 0)", hint="leave it out")
        assert isinstance(error, fieldshot.FieldshotError)
        assert str(error) == "size must be above 0 (got 0). Hint: leave it out"
        assert name in errors.__doc__
