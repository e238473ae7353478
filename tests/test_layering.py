"""Who may import whom (ARCHITECTURE.md), read from the sources, so that those inside functions count too."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

BASE = {"errors", "system", "writing"}
ENGINE = BASE | {"device", "images"}
CORE = ENGINE | {"backbone", "gallery", "head"}
TOP = CORE | {"recognizer"}

# Part of the SDK -> the parts that it may import, besides itself.
MAY_IMPORT = {
    "errors": set(),
    "system": set(),
    "writing": set(),
    "images": BASE,
    "gallery": BASE,
    "device": BASE,
    "ops": ENGINE,
    "backbone": ENGINE | {"ops"},
    "head": BASE | {"ops"},
    "recognizer": CORE | {"ops"},
    "evaluation": TOP,
    "bench": TOP | {"ops"},
    "demo": TOP | {"evaluation"},
    "cli": TOP | {"bench", "demo", "evaluation", "ops"},
    "__main__": {"cli"},
    "fieldshot_export": BASE | {"backbone", "images"},
}

# Third-party package -> the modules that may import it, each with all below it. A package not named: nobody.
USERS = {
    "numpy": {"fieldshot", "fieldshot_export"},
    "PIL": {
        "fieldshot.images",
        "fieldshot.bench.probe",
        "fieldshot.demo",
        "fieldshot_export",
    },
    "onnxruntime": {"fieldshot.backbone", "fieldshot_export"},
    "safetensors": {"fieldshot.backbone", "fieldshot.head", "fieldshot.gallery", "fieldshot_export"},
    "tqdm": {"fieldshot.cli", "fieldshot_export"},
    "skimage": {"fieldshot.demo"},
    # fieldshot.head.contract only where scikit-learn asks
    "sklearn": {"fieldshot.demo", "fieldshot.evaluation.inductive", "fieldshot.head.contract"},
    "threadpoolctl": {"fieldshot.evaluation.work"},
    "matplotlib": {"fieldshot.evaluation.report"},
    "pycuda": {"fieldshot.device", "fieldshot.ops.cuda", "fieldshot.backbone.tensorrt"},
    "tensorrt": {"fieldshot.backbone.tensorrt"},
    "tensorrt_rtx": {"fieldshot.backbone.tensorrt"},
    "onnx": {"fieldshot_export"},
    "onnxscript": {"fieldshot_export"},
    "timm": {"fieldshot_export"},
    "torch": {"fieldshot_export"},
}


def modules() -> Iterator[tuple[str, Path]]:
    """Every module of the two packages: (dotted name, file)."""
    for root in (ROOT / "sdk", ROOT / "export"):
        for path in sorted(root.glob("fieldshot*/**/*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports(name: str, path: Path) -> Iterator[str]:
    """Dotted names that a module imports; not those under `if TYPE_CHECKING`, which never run."""
    tree = ast.parse(path.read_text("utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            up = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*up, *([node.module] if node.module else [])])
            # `from fieldshot import images` is fieldshot.images; any other name is at least within `source`.
            yield from (f"{source}.{alias.name}" for alias in node.names)


MODULES = dict(modules())


def part_of(name: str) -> str:
    """Part of the SDK that a dotted name belongs to; "" for the package itself."""
    return name.removeprefix("fieldshot").removeprefix(".").partition(".")[0]


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_within_the_project_follow_the_rule(name: str) -> None:
    part = "fieldshot_export" if name.startswith("fieldshot_export") else part_of(name)
    for imported in imports(name, MODULES[name]):
        package = imported.partition(".")[0]
        if package == "fieldshot_export":
            assert part == "fieldshot_export", f"{name} imports {imported}: the device knows nothing of the workstation"
        elif package == "fieldshot":
            target = part_of(imported)
            if f"fieldshot.{target}" not in MODULES:  # the package itself
                assert target in {"", "__version__"}, f"{name} imports {imported}: name the module it comes from"
                continue
            allowed = MAY_IMPORT[part] | {part} if part else {"errors"}
            assert target in allowed, f"{name} imports {imported}; it may import {sorted(allowed)}"


@pytest.mark.parametrize("name", sorted(MODULES))
def test_third_party_packages_stay_where_they_belong(name: str) -> None:
    for imported in imports(name, MODULES[name]):
        package = imported.partition(".")[0]
        if package in sys.stdlib_module_names or package in {"fieldshot", "fieldshot_export"}:
            continue
        users = USERS.get(package, set())
        assert any(name == user or name.startswith(f"{user}.") for user in users), (
            f"{name} imports {imported}; only {sorted(users) or 'nobody'} may"
        )


def test_every_part_has_a_rule() -> None:
    parts = {part_of(name) for name in MODULES if name.startswith("fieldshot.")}
    assert parts <= set(MAY_IMPORT)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import torch.nn", ["torch.nn"]),
        ("from fieldshot import images", ["fieldshot.images"]),
        ("from . import b, c", ["fieldshot.head.b", "fieldshot.head.c"]),
        ("from ..ops import Ops", ["fieldshot.ops.Ops"]),
        ("def f():\n    import pycuda.driver", ["pycuda.driver"]),
        ("if TYPE_CHECKING:\n    import torch", []),
    ],
)
def test_reading_of_imports(tmp_path: Path, source: str, expected: list[str]) -> None:
    path = tmp_path / "a.py"
    path.write_text(source)
    assert list(imports("fieldshot.head.a", path)) == expected
