"""What a user would write without fieldshot: Pillow, NumPy and ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnxruntime
from PIL import Image

from fieldshot.images import Preprocessing


def session(network: bytes) -> onnxruntime.InferenceSession:
    """With the options of the backbone's own: a session that spins on after its run slows whatever is timed next."""
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.spin_duration_us", "20")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])


def run(network: onnxruntime.InferenceSession, inputs: np.ndarray) -> np.ndarray:
    return network.run(["embedding"], {"input": inputs})[0]


def preprocess(picture: Image.Image | np.ndarray, spec: Preprocessing) -> np.ndarray:
    """The plainest way, and the quickest with these two: a resize, a crop, a multiplication and an addition."""
    image = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    to_height, to_width, top, left = spec.placed(image.height, image.width)
    image = image.resize((to_width, to_height), Image.Resampling[spec.interpolation.upper()])
    seen = np.asarray(image.crop((left, top, left + spec.size[1], top + spec.size[0]))).transpose(2, 0, 1)
    std = np.array(spec.std, np.float32).reshape(3, 1, 1)
    mean = np.array(spec.mean, np.float32).reshape(3, 1, 1)
    inputs = np.multiply(seen, 1 / (255 * std), dtype=np.float32)
    return np.subtract(inputs, mean / std, out=inputs)
