"""Which backbone a gallery belongs to: found again by its path, refused when its embeddings differ."""

from __future__ import annotations

import json
import os
from typing import Any

from fieldshot.backbone import Backbone
from fieldshot.errors import ContractError, MissingFileError
from fieldshot.gallery import Gallery

__all__ = [
    "backbone_facts",
    "check_contract",
    "find_backbone",
    "load_backbone",
    "precision_of_gallery",
    "views_of_gallery",
]


def load_backbone(backbone: Backbone | str | os.PathLike[str] | None, **options: Any) -> Backbone:
    """Give the backbone itself, load it from a path, or take the embedded one for None; options of `Backbone.load`."""
    if isinstance(backbone, Backbone):
        return backbone
    return Backbone.default(**options) if backbone is None else Backbone.load(backbone, **options)


def find_backbone(gallery: Gallery, **options: Any) -> Backbone:
    """Load the backbone that the gallery recorded.

    Raises
    ------
    MissingFileError
        Its bundle has moved.
    """
    path = gallery.meta["bundle"] or None  # empty: the embedded one
    if path is not None and not os.path.exists(path):
        raise MissingFileError(
            f"bundle of the gallery must exist (got {path})",
            hint=f"pass where {gallery.meta['backbone']!r} is now as backbone (in a command: --backbone)",
        )
    return load_backbone(path, **options)


def precision_of_gallery(gallery: Gallery) -> str:
    """The precision that its pictures were embedded in; those before there was a choice, in float32."""
    return gallery.meta.get("precision", "float32")


def views_of_gallery(gallery: Gallery) -> int:
    """The views that its pictures were embedded by; those before there were views, by one."""
    return int(gallery.meta.get("views", "1"))


def backbone_facts(backbone: Backbone) -> dict[str, str]:
    """What a gallery records of its backbone: enough to find it, and to say what differs from another."""
    return {
        "backbone": backbone.name,
        "bundle": "" if backbone.path is None else os.path.abspath(backbone.path),
        "weights": backbone.bundle.manifest["files"]["backbone.onnx"]["sha256"],
        "preprocessing": json.dumps(backbone.preprocessing.to_json(), sort_keys=True),
        "views": str(backbone.views),
        "precision": backbone.precision,
    }


def check_contract(gallery: Gallery, backbone: Backbone) -> None:
    """Refuse a backbone whose embeddings are not those that the gallery holds.

    Raises
    ------
    ContractError
        It says what differs and how to go on.
    """
    if backbone.contract == gallery.contract:
        return
    theirs, ours = gallery.meta, backbone_facts(backbone)
    differences = []
    if theirs["weights"] != ours["weights"]:
        differences.append(f"other weights ({ours['weights'][:12]}, not {theirs['weights'][:12]})")
    if theirs["preprocessing"] != ours["preprocessing"]:
        then, now = json.loads(theirs["preprocessing"]), json.loads(ours["preprocessing"])
        keys = [key for key in now if now[key] != then.get(key)]
        differences += [f"other preprocessing ({key} {now[key]}, not {then.get(key)})" for key in keys]
    views = str(views_of_gallery(gallery))
    if views != ours["views"]:
        differences.append(f"other views ({ours['views']}, not {views})")
    precision = precision_of_gallery(gallery)
    if precision != ours["precision"]:
        differences.append(f"other precision ({ours['precision']}, not {precision})")
    kept = " from the pictures that this one keeps" if gallery.keep_pictures else " from the original pictures"
    raise ContractError(
        f"backbone must be {theirs['backbone']!r} with contract {gallery.contract}, which the gallery was"
        f" enrolled with (got {ours['backbone']!r} with contract {backbone.contract}:"
        f" {', '.join(differences) or 'another calibration of int8'})",
        hint=f"open it with that bundle, or create a new gallery with this one and enrol again{kept}",
    )
