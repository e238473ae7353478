"""The embedded default backbone: a small convolutional network trained by the project itself.

The network is a RegNetX (Radosavovic et al., "Designing Network Design Spaces", CVPR 2020, section 4): a
stem, four stages of residual blocks whose 3x3 convolution is grouped, and no bottleneck. Two things differ
from the paper, both for small pictures: the first stage keeps the stem's resolution, so the total stride is
16, and a last 1x1 convolution widens the features before the mean pool. `export/train_default.py` trains it
by distillation (Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015).

Only convolution, batch norm, ReLU, addition and a mean occur, which ONNX Runtime and TensorRT know how to
fuse.
"""

from __future__ import annotations

import torch
from torch import nn

DIM = 512
"""Width D of the embedding."""

MEAN = (0.5, 0.5, 0.5)
"""Mean per RGB channel that inputs are normalised with, of pixels scaled to [0, 1]."""

STD = (0.5, 0.5, 0.5)
"""Standard deviation per RGB channel that inputs are normalised with, of pixels scaled to [0, 1]."""

_STEM_WIDTH = 32
_GROUP_WIDTH = 16
# Width, number of blocks and stride of each stage.
_STAGES = ((32, 1, 1), (64, 2, 2), (128, 5, 2), (256, 3, 2))


def _conv(n_in: int, n_out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution without bias, then batch norm, whose shift is the bias."""
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(n_out)
    )


class Block(nn.Module):
    """The X block of RegNet with bottleneck ratio 1: 1x1, grouped 3x3, 1x1, and a shortcut.

    Parameters
    ----------
    n_in, n_out : int
        Channels of input and output; `n_out` is a multiple of the group width.
    stride : int
        Stride of the grouped convolution and of the shortcut.
    """

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.reduce = _conv(n_in, n_out, 1)
        self.spatial = _conv(n_out, n_out, 3, stride, groups=n_out // _GROUP_WIDTH)
        self.expand = _conv(n_out, n_out, 1)
        # A projection only where the shape changes: elsewhere the identity costs nothing and trains better.
        self.shortcut = nn.Identity() if n_in == n_out and stride == 1 else _conv(n_in, n_out, 1, stride)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, n_in, H, W) to (N, n_out, H / stride, W / stride)."""
        y = self.relu(self.spatial(self.relu(self.reduce(x))))
        return self.relu(self.expand(y) + self.shortcut(x))


class Compact(nn.Module):
    """Fully convolutional backbone: from pictures of about 32 pixels or more to embeddings of width `DIM`."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _conv(3, _STEM_WIDTH, 3, stride=2)
        blocks: list[nn.Module] = []
        width = _STEM_WIDTH
        for n_out, depth, stride in _STAGES:
            for i in range(depth):
                blocks.append(Block(width, n_out, stride if i == 0 else 1))
                width = n_out
        self.stages = nn.Sequential(*blocks)
        self.last = _conv(width, DIM, 1)
        self.relu = nn.ReLU(inplace=True)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, Block):
                # Each residual branch starts at zero: the untrained network is shallow and learns quickly.
                nn.init.zeros_(module.expand[1].weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Embed pictures.

        Parameters
        ----------
        x : torch.Tensor of shape (N, 3, H, W)
            RGB pixels, float32, normalised with `MEAN` and `STD`.

        Returns
        -------
        torch.Tensor of shape (N, 512)
            Non-negative embeddings, not normalised.
        """
        x = self.stages(self.relu(self.stem(x)))
        return self.relu(self.last(x)).mean(dim=(2, 3))


def compact() -> nn.Module:
    """Build the default backbone with untrained weights, in evaluation mode.

    Returns
    -------
    torch.nn.Module
        Network of about 0.9 million parameters; see `Compact.forward` for its input and output.
    """
    return Compact().eval()
