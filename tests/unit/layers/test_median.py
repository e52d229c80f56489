"""The median filter, compared with SciPy's."""

import numpy as np
import pytest
import torch
from scipy.ndimage import median_filter

from anomalib_defect_plugins.layers import MedianFilter


@pytest.mark.parametrize("size", [1, 3, 5, 7])
def test_the_result_is_the_median_of_the_square_around_each_pixel(size: int) -> None:
    images = torch.rand(2, 1, 17, 23, generator=torch.Generator().manual_seed(size))
    expected = np.stack([median_filter(image[0].numpy(), size, mode="mirror") for image in images])
    assert np.allclose(MedianFilter(size)(images)[:, 0].numpy(), expected)
