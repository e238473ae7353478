"""A network that comes from timm by name, together with the preprocessing that timm knows for it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from torch import nn

from fieldshot.errors import ExportError, MissingDependencyError
from fieldshot_export import torch_source
from fieldshot_export.source import Source, first_line

_RESIZE = {
    "center": "shortest",
    "squash": "stretch",
}  # timm's crop modes; "border" pads, which bundles do not


def create(name: str, *, weights: str | Path | None = None) -> tuple[nn.Module, dict[str, Any]]:
    """Create a timm model without its classifier.

    Parameters
    ----------
    name : str
        timm's name, for instance ``mobilenetv3_small_100``.
    weights : path, optional
        A checkpoint of that model, with or without classifier; without it timm loads the pretrained weights.

    Returns
    -------
    module : torch.nn.Module
        Network in evaluation mode.
    preprocessing : dict
        The fields of `fieldshot.images.Preprocessing` as timm states them for this model.

    Raises
    ------
    MissingDependencyError
        timm is not installed.
    ExportError
        timm has no such model, or cannot get its weights.
    """
    try:
        import timm
    except ModuleNotFoundError as error:
        raise MissingDependencyError("timm must be installed for --timm", hint="pip install timm") from error
    if not timm.is_model(name):
        near = timm.list_models(f"*{name.split('.')[0].split('_')[0]}*")[:8]
        raise ExportError(
            f"the model must be one of timm's (got {name!r})",
            hint=f"timm has {', '.join(near)}" if near else "timm.list_models() lists them",
        )
    try:
        module = timm.create_model(name, pretrained=weights is None, num_classes=0)
    except Exception as error:
        raise ExportError(
            f"timm must be able to create {name} (got {type(error).__name__}: {first_line(error)})",
            hint="pretrained weights need a network: download them elsewhere, give the file with --weights",
        ) from error
    if weights is not None:
        classifier = module.pretrained_cfg.get("classifier") or ()
        prefixes = (classifier,) if isinstance(classifier, str) else tuple(classifier)
        torch_source.fill(module, weights, ignore=prefixes)
    config = timm.data.resolve_model_data_config(module)
    return module.eval(), _preprocessing(config)


def load(name: str, module: nn.Module, size: tuple[int, int], *, weights: str | Path | None = None) -> Source:
    """Make a model from `create` a backbone; see `torch_source.from_module`."""
    described = f"timm {name}, " + ("pretrained" if weights is None else f"weights {os.path.basename(weights)}")
    return torch_source.from_module(module, size, name, described)


def _preprocessing(config: dict[str, Any]) -> dict[str, Any]:
    channels, *size = config["input_size"]
    mode = config.get("crop_mode", "center")
    if channels != 3 or mode not in _RESIZE:
        raise ExportError(
            f"the model must see 3 channels, cropped or squashed (got {channels} channels, crop mode {mode})",
            hint="export it with --torch and state the preprocessing yourself",
        )
    return {
        "size": tuple(size),
        "resize": _RESIZE[mode],
        "crop": config["crop_pct"],
        "interpolation": config["interpolation"],
        "mean": config["mean"],
        "std": config["std"],
    }
