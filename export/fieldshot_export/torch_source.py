"""A network that comes as a torch module, made by a factory and filled from a checkpoint."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from fieldshot.errors import ExportError, MissingDependencyError, MissingFileError
from fieldshot_export import batch, graph
from fieldshot_export.source import INPUT, OUTPUT, Floats, Source, first_line

OPSET = 18
"""First with GroupNormalization and without training-mode leftovers; every TensorRT 10 reads it."""

_WRAPPERS = ("state_dict", "model_state_dict", "model", "module")  # where training loops put the weights
_SHOWN = 4  # names of weights in an error


def load(factory: str, size: tuple[int, int], *, weights: str | Path | None = None) -> Source:
    """Build a module, fill it and make it a backbone.

    Parameters
    ----------
    factory : str
        ``package.module:function``; the function takes no arguments and returns a `torch.nn.Module` that maps
        (N, 3, H, W) to (N, D), both float32. The current directory is searched first.
    size : (int, int)
        Height and width in pixels of what the network will see.
    weights : path, optional
        Checkpoint, .safetensors or a .pth that holds nothing but weights, named as in the module.

    Returns
    -------
    Source
        The network, and the module itself to measure it against.

    Raises
    ------
    ExportError
        The factory or checkpoint is not what it must be, or the module cannot be exported.
    MissingFileError
        There is no such checkpoint.
    """
    module = _make(factory)
    if weights is not None:
        fill(module, weights)
    described = factory if weights is None else f"{factory}, weights {Path(weights).name}"
    return from_module(module, size, factory.rpartition(":")[2], described)


def from_module(module: nn.Module, size: tuple[int, int], name: str, description: str) -> Source:
    """Export a module that is in memory; see `load` for what it must be."""
    module = module.eval().float().cpu()
    probe = torch.from_numpy(batch.noise(2, size))
    try:
        with torch.inference_mode():
            embedding = module(probe)
    except Exception as error:
        raise ExportError(
            f"the module must take float32 of shape (N, 3, {size[0]}, {size[1]}) (got {first_line(error)})",
            hint="check --size, and that the module's forward takes the picture alone",
        ) from error
    _check(embedding, len(probe))
    program = _to_onnx(module, probe)
    graph.lift_constants(program)
    graph.strip(program)
    hint = "its forward must not fix the number of pictures: x.shape[0], not len(x), which torch takes for constant"
    model, note = batch.make_dynamic(program, size, hint=hint)
    return Source(name, description, model, partial(_embed, module), (note,) if note else ())


def fill(module: nn.Module, weights: str | Path, *, ignore: tuple[str, ...] = ()) -> None:
    """Load a checkpoint into a module, all of it and nothing else.

    Parameters
    ----------
    module : torch.nn.Module
        Module to fill.
    weights : path
        .safetensors, or what torch.save wrote if it holds nothing but weights.
    ignore : tuple of str
        Prefixes of names in the file that the module need not have, such as a classifier's.

    Raises
    ------
    MissingFileError, ExportError
        See `load`.
    """
    path = Path(weights)
    if not path.is_file():
        raise MissingFileError(f"the file of weights must exist (got {path})", hint="check the path after --weights")
    tensors = _read(path)
    own = module.state_dict()
    if not own.keys() & tensors.keys() and all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}  # as DataParallel saves
    missing = [name for name in own if name not in tensors and not name.endswith("num_batches_tracked")]
    unexpected = [
        name for name in tensors if name not in own and not any(name.startswith(f"{prefix}.") for prefix in ignore)
    ]
    differing = [
        f"{name} {tuple(tensors[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    ]
    faults = {"missing": missing, "unexpected": unexpected, "of another shape": differing}
    if any(faults.values()):
        got = "; ".join(f"{len(names)} {what}: {_some(names)}" for what, names in faults.items() if names)
        raise ExportError(
            f"the weights in {path.name} must be those of the module (got {got})",
            hint="use the factory that the checkpoint was trained with, its classifier removed from both",
        )
    module.load_state_dict({name: tensors[name] for name in own if name in tensors}, strict=False)


def _make(factory: str) -> nn.Module:
    module_name, colon, function = factory.partition(":")
    if not (colon and module_name and function):
        raise ExportError(
            f"the factory must be named package.module:function (got {factory!r})",
            hint="for instance --torch torchvision.models:resnet18",
        )
    with _current_directory_first():
        try:
            made = importlib.import_module(module_name)
            for part in function.split("."):
                made = getattr(made, part)
            made = made() if not isinstance(made, nn.Module) else made
        except ModuleNotFoundError as error:
            if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
                raise ExportError(
                    f"the module of the factory must be importable (got no {error.name})",
                    hint="install it, or run the command in the folder that holds it",
                ) from error
            raise MissingDependencyError(
                f"{module_name} must find all that it imports (got no {error.name})", hint="install it"
            ) from error
        except Exception as error:
            raise ExportError(
                f"{factory} must make a module when called without arguments (got {type(error).__name__}: "
                f"{first_line(error)})",
                hint="write a small function of no arguments around it, and name that",
            ) from error
    if not isinstance(made, nn.Module):
        raise ExportError(
            f"{factory} must return a torch.nn.Module (got {type(made).__name__})",
            hint="return the network itself",
        )
    return made


def _read(path: Path) -> dict[str, torch.Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # weights_only: a pickle may run any program when read; this refuses all but tensors and containers.
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError) as error:
        raise ExportError(
            f"{path.name} must be whole safetensors (got {first_line(error)})", hint="copy the file again"
        ) from error
    except Exception as error:
        raise ExportError(
            f"{path.name} must hold nothing but weights (got {first_line(error)})",
            hint="it may be damaged, or run a program when read: ask for .safetensors, or for its state_dict() alone",
        ) from error
    for wrapper in _WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(wrapper), Mapping):
            found = found[wrapper]
    if not isinstance(found, Mapping) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        kind = "other things too" if isinstance(found, Mapping) else type(found).__name__
        raise ExportError(
            f"{path.name} must hold names and tensors (got {kind})",
            hint="save the module's state_dict() alone",
        )
    return dict(found)


def _embed(module: nn.Module, pictures: Floats) -> Floats:
    with torch.inference_mode():
        return torch.cat([module(torch.from_numpy(picture[None])) for picture in pictures]).numpy()


def _check(embedding: object, n: int) -> None:
    ok = isinstance(embedding, torch.Tensor) and embedding.dtype == torch.float32
    if not ok or embedding.ndim != 2 or len(embedding) != n:
        got = f"{embedding.dtype} of shape {tuple(embedding.shape)}" if hasattr(embedding, "shape") else type(embedding)
        raise ExportError(
            f"the module must return one float32 tensor of shape (N, D) (got {got})",
            hint="have the factory return the network without its classifier, pooled and flattened: "
            "for instance model.fc = torch.nn.Identity()",
        )


def _to_onnx(module: nn.Module, example: torch.Tensor):
    try:
        with _quiet():
            program = torch.onnx.export(
                module,
                (example,),
                input_names=[INPUT],
                output_names=[OUTPUT],
                opset_version=OPSET,
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("N")},),
                verbose=False,
            )
            return program.model_proto
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"{error.name} must be installed to export from torch", hint="pip install 'fieldshot[export]'"
        ) from error
    except Exception as error:
        cause = error.__cause__ or error
        raise ExportError(
            f"the module must be traceable for any number of pictures (got {type(cause).__name__}: "
            f"{first_line(cause)})",
            hint="its forward must not depend on the values of the pictures, or on their number",
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch's own progress, warnings and logs of an export to itself."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def _current_directory_first() -> Iterator[None]:
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
