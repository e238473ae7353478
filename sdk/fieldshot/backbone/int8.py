"""The int8 network as a CPU computes it fastest: unsigned activations.

TensorRT takes signed activations around zero only, so that half of the range of what comes out of a ReLU stays empty;
ONNX Runtime on a CPU can do nothing quickly with that, and runs the ReLU in float32 between two conversions. With the
whole range for what is never negative the ReLU is the rounding itself, and every layer runs in int8 from end to end.
Weights and ranges are the same: in a copy of the file's bytes a few numbers are replaced by others of equal length.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

__all__ = ["RECTIFIED", "RECTIFIED_SCALE", "SIGNED", "for_cpu"]

SIGNED: Final = "zero_point.signed"
RECTIFIED: Final = "zero_point.rectified"
"""Names of the two zero points of activations: of any, and of those that a ReLU made."""

RECTIFIED_SCALE: Final = ":rectified"
"""How the names of the scales of the latter end."""

_ZERO_POINTS: Final = {SIGNED.encode(): 128, RECTIFIED.encode(): 0}
_UINT8: Final = 2  # of ONNX's types
_FINER: Final = 127 / 255

# Fields of ONNX's messages (onnx.proto), by number.
_GRAPH, _INITIALIZER = 7, 5
_DATA_TYPE, _NAME, _RAW_DATA = 2, 8, 9
_VARINT, _BYTES, _LENGTHS = 0, 2, {1: 8, 5: 4}  # how fields are written


def for_cpu(network: bytes) -> bytes:
    """Turn the int8 network of a bundle into one of unsigned activations.

    Parameters
    ----------
    network : bytes
        ONNX file of signed activations, its zero points and scales named as docs/bundle.md says; any other comes back
        as it is.

    Returns
    -------
    bytes
        ONNX file of the same length.

    Raises
    ------
    ValueError
        It is no ONNX file.
    """
    changed = bytearray(network)
    for field, graph in _fields(network, slice(0, len(network))):
        if field != _GRAPH:
            continue
        for inner, tensor in _fields(network, graph):
            if inner == _INITIALIZER:
                _change(network, changed, dict(_fields(network, tensor)))
    return bytes(changed)


def _change(network: bytes, changed: bytearray, parts: dict[int, slice]) -> None:
    name = network[parts[_NAME]] if _NAME in parts else b""
    is_scale = name.endswith(RECTIFIED_SCALE.encode())
    if not is_scale and name not in _ZERO_POINTS:
        return
    data = parts.get(_RAW_DATA, slice(0, 0))
    if data.stop - data.start != (4 if is_scale else 1):
        raise ValueError(f"{name.decode()} must be one number, in raw data")
    if is_scale:
        (scale,) = struct.unpack("<f", network[data])
        changed[data] = struct.pack("<f", scale * _FINER)
    else:
        changed[parts[_DATA_TYPE]] = bytes([_UINT8])
        changed[data] = bytes([_ZERO_POINTS[name]])


def _fields(data: bytes, within: slice) -> Iterator[tuple[int, slice]]:
    """Yield number and place of each field of a message in protobuf's encoding."""
    at = within.start
    while at < within.stop:
        key, at = _varint(data, at)
        number, kind = divmod(key, 8)
        if kind == _VARINT:
            _, end = _varint(data, at)
        elif kind == _BYTES:
            length, at = _varint(data, at)
            end = at + length
        elif kind in _LENGTHS:
            end = at + _LENGTHS[kind]
        else:
            end = within.stop + 1
        if end > within.stop:
            raise ValueError("an ONNX file must be whole")
        yield number, slice(at, end)
        at = end


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Decode the number at a place, and say where it ends."""
    value = 0
    for shift, byte in enumerate(data[at : at + 10]):
        value |= (byte & 127) << 7 * shift
        if byte < 128:
            return value, at + shift + 1
    raise ValueError("an ONNX file must be whole")
