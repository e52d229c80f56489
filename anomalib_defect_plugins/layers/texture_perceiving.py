"""Texture-perceiving module: directional convolutions, https://arxiv.org/abs/2106.06792, eq. 2.

The directional maps T_i are constants, so a branch's convolution over cat(features, T_i) is the sum of a convolution
over the features and a fixed map. The eight branches are therefore implemented as one convolution of the features plus
a bias map computed from the weights. At inference, two more channels take the place of the bias map, the positions of
the rows and of the columns, since each T_i is a weighted sum of these and of 1: OpenVINO takes longer to add the map.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))


def directional_maps(size: tuple[int, int]) -> Tensor:
    """Return the maps T_i, which fall linearly from 1 to 0 down, up, right, left and along the four diagonals.

    Args:
        size: Height and width.

    Returns:
        Maps, shape (8, H, W), float in [0, 1].
    """
    y = torch.linspace(0, 1, size[0])[:, None].expand(size)
    x = torch.linspace(0, 1, size[1])[None, :].expand(size)
    ramps = torch.stack([dy * y + dx * x for dy, dx in DIRECTIONS])
    low, high = ramps.amin((1, 2), keepdim=True), ramps.amax((1, 2), keepdim=True)
    return (high - ramps) / (high - low)


class TexturePerceivingModule(nn.Module):
    """Eight branches c_n, each a 3x3 convolution over features and one directional map, batch norm and ReLU.

    Args:
        in_channels: Number of channels of the features.
        branch_width: Number of output channels of each branch.
        size: Height and width of the features.
    """

    maps: Tensor
    positions: Tensor

    def __init__(self, in_channels: int, branch_width: int, size: tuple[int, int]) -> None:
        super().__init__()
        out_channels = len(DIRECTIONS) * branch_width
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, padding_mode="reflect", bias=False)
        self.conv_map = nn.Conv2d(
            len(DIRECTIONS), out_channels, 3, padding=1, padding_mode="reflect", groups=len(DIRECTIONS), bias=False
        )
        self.norm = nn.BatchNorm2d(out_channels)
        maps = directional_maps(size)
        self.register_buffer("maps", maps[None], persistent=False)
        # The second and the fourth direction rise from 0 to 1 with the row and with the column.
        self.register_buffer("positions", maps[None, [1, 3]], persistent=False)
        bound = (9 * (in_channels + 1)) ** -0.5  # the default of a convolution over in_channels + 1
        nn.init.uniform_(self.conv.weight, -bound, bound)
        nn.init.uniform_(self.conv_map.weight, -bound, bound)

    def forward(self, features: Tensor) -> Tensor:
        """Return cat(P_1 .. P_8): (B, C, H, W) to (B, 8 * branch_width, H, W), non-negative."""
        if self.training:
            return functional.relu(self.norm(self.conv(features) + self.conv_map(self.maps)))
        inputs = torch.cat([features, self.positions.expand(features.shape[0], -1, -1, -1)], 1)
        padded = functional.pad(inputs, (1, 1, 1, 1), mode="reflect")
        return functional.relu(self.norm(functional.conv2d(padded, *self._over_positions())))

    def _over_positions(self) -> tuple[Tensor, Tensor]:
        """Return weight and bias of one convolution over the features and the positions."""
        directions = torch.tensor(DIRECTIONS, dtype=self.conv.weight.dtype, device=self.conv.weight.device)
        length = directions.abs().sum(1, keepdim=True)
        slopes = -directions / length
        heights = directions.clamp(min=0).sum(1, keepdim=True) / length  # of T_i at the origin
        of_branches = self.conv_map.weight.reshape(len(DIRECTIONS), -1, 1, 3, 3)
        weight = (of_branches * slopes[:, None, :, None, None]).flatten(0, 1)
        bias = (of_branches.sum((2, 3, 4)) * heights).flatten()
        return torch.cat([self.conv.weight, weight], 1), bias
