"""Pictures: found in folders, read as a person sees them, and turned into what a network sees."""

from __future__ import annotations

from fieldshot.images.files import SUFFIXES, find, find_classes
from fieldshot.images.memory import InPlace, pixels_in_place
from fieldshot.images.preprocessing import Picture, Preprocessing, size_of
from fieldshot.images.reading import MAX_PIXELS, Pixels, as_items, decode, encode, read

__all__ = [
    "MAX_PIXELS",
    "SUFFIXES",
    "InPlace",
    "Picture",
    "Pixels",
    "Preprocessing",
    "as_items",
    "decode",
    "encode",
    "find",
    "find_classes",
    "pixels_in_place",
    "read",
    "size_of",
]
