"""What a label may be."""

from __future__ import annotations

import pytest

from fieldshot.errors import LabelError
from fieldshot.gallery import clean_label


@pytest.mark.parametrize(
    ("label", "stored"),
    [
        ("bolt", "bolt"),
        ("  M8 bolt\n", "M8 bolt"),
        ("../../etc/passwd", "../../etc/passwd"),
        ("\N{NUT AND BOLT}", "\N{NUT AND BOLT}"),
        ("\N{MAN}\N{ZERO WIDTH JOINER}\N{WRENCH}", "\N{MAN}\N{ZERO WIDTH JOINER}\N{WRENCH}"),
        ("Schlu\u0308ssel", "Schl\u00fcssel"),
        ("ボルト", "ボルト"),
        ("x" * 200, "x" * 200),
    ],
)
def test_any_script_is_welcome_in_one_form(label: str, stored: str) -> None:
    assert clean_label(label) == stored
    assert clean_label(stored) == stored


@pytest.mark.parametrize(
    "label", ["", " \t ", "x" * 201, "a\0b", "a\nb", "a\x1b[31mb", "\ud800", "a\u2028b", "unknown", " Unknown "]
)
def test_what_cannot_be_shown_as_a_label_is_refused(label: str) -> None:
    with pytest.raises(LabelError, match="label must"):
        clean_label(label)


@pytest.mark.parametrize("label", [None, 3, b"bolt", ["bolt"]])
def test_only_strings(label: object) -> None:
    with pytest.raises(LabelError, match=r"must be a string .*Hint"):
        clean_label(label)


def test_a_long_label_is_not_echoed() -> None:
    with pytest.raises(LabelError, match="10,000 characters") as caught:
        clean_label("x" * 10_000)
    assert len(str(caught.value)) < 200
