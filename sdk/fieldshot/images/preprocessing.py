"""The preprocessing that a bundle states (docs/bundle.md): uint8 RGB becomes what the network sees.

    resize -> centre crop -> channel order -> (pixel / 255 - mean) / std -> channels first

Resize is Pillow's, to the bit. The other side of a ``shortest`` resize is rounded down and an odd margin of the crop is
halved to even, as torchvision does both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from fieldshot.errors import BundleError, PictureError

__all__ = ["Picture", "Preprocessing", "size_of"]

Picture = npt.NDArray[np.uint8] | Image.Image
"""uint8 RGB pixels of shape (H, W, 3), or a PIL image of mode RGB."""

Interpolation = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]


def size_of(picture: Picture) -> tuple[int, int]:
    """Height and width of a picture, in pixels."""
    return picture.shape[:2] if isinstance(picture, np.ndarray) else picture.size[::-1]


_FILTERS: Final = {
    name: Image.Resampling[name.upper()] for name in ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
}
_CHOICES: Final = {
    "resize": ("shortest", "stretch"),
    "interpolation": tuple(_FILTERS),
    "channels": ("RGB", "BGR"),
}
_MAX_SIDE: Final = 8192
_MAX_RESIZED: Final = 64_000_000


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes the input of a network.

    Parameters
    ----------
    size : (int, int)
        Height and width of the input, in pixels.
    resize : {"shortest", "stretch"}
        ``shortest`` keeps the aspect ratio and covers ``size / crop``; ``stretch`` does not keep it.
    crop : float
        Share of the resized side that the centre crop keeps, in (0, 1].
    interpolation : {"nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"}
        Filter, antialiased as Pillow does it.
    channels : {"RGB", "BGR"}
        Order of the channels of the input, and of ``mean`` and ``std``.
    mean, std : (float, float, float)
        In units of pixels scaled to [0, 1].

    Raises
    ------
    BundleError
        If a value is not one of these.
    """

    size: tuple[int, int]
    resize: Literal["shortest", "stretch"] = "shortest"
    crop: float = 1.0
    interpolation: Interpolation = "bilinear"
    channels: Literal["RGB", "BGR"] = "RGB"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        size = self.size
        if len(size) != 2 or not all(_is_int(side) and 1 <= side <= _MAX_SIDE for side in size):
            raise _wrong("size", f"two whole numbers from 1 to {_MAX_SIDE}, height and width", size)
        for field, choices in _CHOICES.items():
            if getattr(self, field) not in choices:
                raise _wrong(field, f"one of {', '.join(choices)}", getattr(self, field))
        if not (_is_number(self.crop) and 0.05 <= self.crop <= 1):
            raise _wrong("crop", "a number from 0.05 to 1", self.crop)
        if len(self.mean) != 3 or not all(map(_is_number, self.mean)):
            raise _wrong("mean", "three numbers", self.mean)
        if len(self.std) != 3 or not all(_is_number(value) and value > 0 for value in self.std):
            raise _wrong("std", "three numbers above 0", self.std)
        # One spelling of equal values, since the contract of a bundle is a digest of them.
        object.__setattr__(self, "size", (int(size[0]), int(size[1])))
        object.__setattr__(self, "crop", float(self.crop))
        object.__setattr__(self, "mean", tuple(map(float, self.mean)))
        object.__setattr__(self, "std", tuple(map(float, self.std)))

    @classmethod
    def from_json(cls, values: object) -> Preprocessing:
        """Read the ``preprocessing`` of a manifest; every field must be there.

        Raises
        ------
        BundleError
            If a field is missing, unknown or wrong.
        """
        if not isinstance(values, Mapping):
            raise BundleError(f"preprocessing must be an object (got {type(values).__name__})", hint=_HINT)
        names = {field.name for field in fields(cls)}
        if set(values) != names:
            odd = ", ".join(sorted(map(str, names ^ set(values))))
            raise BundleError(f"preprocessing must have exactly its {len(names)} fields (check {odd})", hint=_HINT)
        for field in ("size", "mean", "std"):
            if not isinstance(values[field], (list, tuple)):
                raise _wrong(field, "a list of numbers", values[field])
        read: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**read)

    def to_json(self) -> dict[str, Any]:
        """Return the ``preprocessing`` of a manifest: what ``from_json`` reads."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    def apply(self, picture: Picture, out: npt.NDArray[np.float32] | None = None) -> npt.NDArray[np.float32]:
        """Turn one picture into the input of the network.

        Parameters
        ----------
        picture : ndarray of shape (H, W, 3), dtype uint8, or PIL.Image.Image of mode RGB
            As ``fieldshot.images.read`` or ``decode`` returns it.
        out : ndarray of shape (3, height, width), dtype float32, optional
            Where to write the result, for instance one row of a batch.

        Returns
        -------
        ndarray of shape (3, height, width), dtype float32
            ``out``, or a new array.

        Raises
        ------
        PictureError
            If the picture is so long and narrow that covering ``size`` would take more than 64 million pixels.
        """
        height, width = self.size
        if out is None:
            out = np.empty((3, height, width), np.float32)
        seen = self._crop(picture).transpose(2, 0, 1)
        if self.channels == "BGR":
            seen = seen[::-1]
        scale, shift = self.affine.reshape(2, 3, 1, 1)
        np.multiply(seen, scale, out=out)
        return np.add(out, shift, out=out)

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Return the (height, width) to which a picture of this height and width is resized before the crop."""
        to_height, to_width = round(self.size[0] / self.crop), round(self.size[1] / self.crop)
        if self.resize == "stretch":
            return to_height, to_width
        if to_height * width >= to_width * height:
            return to_height, to_height * width // height
        return to_width * height // width, to_width

    def placed(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Return what `resized` does, and where in that the top and the left of the crop are.

        Raises
        ------
        PictureError
            As in ``apply``.
        """
        to_height, to_width = self.resized(height, width)
        if to_height * to_width > _MAX_RESIZED and (to_height, to_width) != (height, width):
            raise PictureError(
                f"picture must not be that long and narrow (got {width} x {height})",
                hint="cut out the part that matters",
            )
        return to_height, to_width, round((to_height - self.size[0]) / 2), round((to_width - self.size[1]) / 2)

    @cached_property
    def affine(self) -> npt.NDArray[np.float32]:
        """Scale and shift of 8 bits for each channel of the input: (2, 3) float32. A product is rounded, then a sum."""
        mean, std = np.array(self.mean), np.array(self.std)
        return np.stack([1 / (255 * std), -mean / std]).astype(np.float32)

    def _crop(self, picture: Picture) -> npt.NDArray[np.uint8]:
        height, width = size_of(picture)
        to_height, to_width, top, left = self.placed(height, width)
        bottom, right = top + self.size[0], left + self.size[1]
        if isinstance(picture, np.ndarray) and (to_height, to_width) == (height, width):
            return picture[top:bottom, left:right]
        image = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
        image = image.resize((to_width, to_height), _FILTERS[self.interpolation])
        return np.asarray(image.crop((left, top, right, bottom)))


_HINT: Final = "see docs/bundle.md, or export the bundle again"


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -1e30 < value < 1e30


def _wrong(field: str, must: str, got: object) -> BundleError:
    return BundleError(f"preprocessing {field} must be {must} (got {got!r})", hint=_HINT)
