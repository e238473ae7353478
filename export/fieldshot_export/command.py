"""The command `fieldshot export`. Importing this module loads neither torch nor onnx."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

_EXAMPLES = """\
examples:
  fieldshot export --onnx mobilenet_v2.onnx --size 224 --mean 0.5,0.5,0.5 --std 0.5,0.5,0.5 -o v2.fieldshot
  fieldshot export --torch networks:resnet --weights resnet.safetensors --size 224 \\
      --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 --crop 0.875 -o resnet.fieldshot
  fieldshot export --timm mobilenetv3_small_100 -o mobilenetv3.fieldshot
  fieldshot export --onnx resnet.onnx ... --int8 --calibrate pictures/ -o resnet.fieldshot
"""


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-command `export`."""
    parser = commands.add_parser(
        "export",
        help="make a bundle of a network, checked against its own framework",
        description="Make a bundle of a network: an ONNX file cut at a tensor, a torch module or a timm model.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    source = parser.add_argument_group("source").add_mutually_exclusive_group(required=True)
    source.add_argument("--onnx", metavar="FILE", help="ONNX network")
    source.add_argument("--torch", metavar="MODULE:FACTORY", help="function that makes a torch module")
    source.add_argument("--timm", metavar="NAME", help="timm model, with its own preprocessing")
    network = parser.add_argument_group("network")
    network.add_argument("--cut", metavar="TENSOR", help="tensor of the ONNX file that becomes the embedding")
    network.add_argument("--weights", metavar="FILE", help="checkpoint for --torch or --timm: .safetensors or .pth")
    spec = parser.add_argument_group("preprocessing", "what the network was trained with; --timm knows its own")
    spec.add_argument("--size", type=_size, metavar="SIDE|HxW", help="pixels that the network sees")
    spec.add_argument("--mean", type=_three, metavar="R,G,B", help="of pixels scaled to [0, 1]")
    spec.add_argument("--std", type=_three, metavar="R,G,B", help="of pixels scaled to [0, 1]")
    spec.add_argument("--crop", type=float, metavar="SHARE", help="share of the side that the centre crop keeps (1.0)")
    spec.add_argument("--resize", choices=("shortest", "stretch"), help="keep the proportions (shortest), or not")
    spec.add_argument("--interpolation", metavar="FILTER", help="one of Pillow's (bilinear)")
    spec.add_argument("--channels", choices=("RGB", "BGR"), help="order of the colours (RGB)")
    bundle = parser.add_argument_group("bundle")
    bundle.add_argument("-o", "--out", required=True, metavar="OUT.fieldshot", help="bundle to write")
    bundle.add_argument("--force", action="store_true", help="replace OUT if it exists")
    bundle.add_argument("--pictures", metavar="DIR", help="pictures to verify with instead of procedural ones")
    bundle.add_argument("--name", help="name of the backbone (from the source)")
    bundle.add_argument("--licence", metavar="TEXT", help="licence of the weights")
    bundle.add_argument("--no-float16", dest="float16", action="store_false", help="leave out the float16 copy")
    bundle.add_argument("--int8", action="store_true", help="add an int8 copy, for speed at some cost in accuracy")
    bundle.add_argument("--calibrate", metavar="DIR", help="pictures for int8 to learn from which values to expect")
    parser.add_argument("--json", action="store_true", help="print a summary for programs")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Export as the arguments say; print stages on stderr and the summary on stdout.

    Raises
    ------
    FieldshotError
        See `fieldshot_export.export`.
    """
    from fieldshot_export.exporter import export

    options = {key: value for key, value in vars(arguments).items() if key not in ("json", "run", "debug")}
    report = export(options.pop("out"), **options, progress=_show)
    summary = json.loads(json.dumps(asdict(report), default=str))
    if arguments.json:
        print(json.dumps(summary, indent=2))
        return 0
    pre = report.preprocessing
    size = "x".join(map(str, pre["size"]))
    print(f"{report.path}: {report.name}, {report.dim} dimensions, {report.size_bytes:,} bytes, {report.seconds:.1f} s")
    for name, size_bytes in report.files.items():
        print(f"  {name:20} {size_bytes:12,} bytes")
    for precision, parity in report.parity.items():
        print(f"  {precision}: {parity}")
    for precision, reason in report.left_out.items():
        print(f"  {precision} IS NOT IN THE BUNDLE: {reason}")
    print(
        f"  preprocessing, stated and not checkable: {pre['resize']} to {size}, crop {pre['crop']}, "
        f"{pre['interpolation']}, {pre['channels']}, mean {pre['mean']}, std {pre['std']}"
    )
    if report.licence == "not stated":
        print("  licence not stated: give --licence before you pass the bundle on")
    return 0


def _show(what: str, seconds: float | None) -> None:
    """Print one line a stage; a terminal shows it already while the stage runs."""
    on_terminal = sys.stderr.isatty()
    if seconds is not None:
        line = f"[{seconds:6.1f} s] {what}"
        print(f"\r\x1b[2K{line}" if on_terminal else line, file=sys.stderr, flush=True)
    elif on_terminal:
        print(f"[     ...] {what}", end="", file=sys.stderr, flush=True)


def _size(text: str) -> tuple[int, int]:
    try:
        sides = [int(side) for side in text.lower().split("x")]
    except ValueError:
        sides = []
    if len(sides) not in (1, 2) or min(sides) < 1:
        raise argparse.ArgumentTypeError(f"must be a side in pixels, or HEIGHTxWIDTH (got {text!r})")
    return sides[0], sides[-1]


def _three(text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(value) for value in text.split(","))
    except ValueError:
        values = ()
    if len(values) != 3:
        raise argparse.ArgumentTypeError(f"must be three numbers with commas between (got {text!r})")
    return values
