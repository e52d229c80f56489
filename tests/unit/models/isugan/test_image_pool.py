"""Image pool: which images the discriminators see."""

import torch

from anomalib_defect_plugins.models.isugan.image_pool import ImagePool


def numbered(*numbers: int) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float32)[:, None, None, None].expand(-1, 1, 2, 2).clone()


def shown(pool: ImagePool, numbers: range, rng: torch.Generator) -> list[int]:
    return [int(pool.exchange(numbered(number), rng)[0, 0, 0, 0]) for number in numbers]


def test_images_are_returned_unchanged_until_the_pool_is_full():
    pool, rng = ImagePool(3), torch.Generator().manual_seed(0)
    assert shown(pool, range(3), rng) == [0, 1, 2]
    assert [int(image[0, 0, 0]) for image in pool.images] == [0, 1, 2]


def test_half_of_the_later_images_are_returned_and_the_others_replace_a_stored_one_that_is_returned():
    pool, rng = ImagePool(5), torch.Generator().manual_seed(0)
    shown(pool, range(5), rng)
    stored, numbers = set(range(5)), range(5, 1005)
    for number, returned in zip(numbers, shown(pool, numbers, rng), strict=True):
        if returned != number:
            stored.remove(returned)  # fails if it was not stored
            stored.add(number)
    assert stored == {int(image[0, 0, 0]) for image in pool.images}
    same = sum(number == returned for number, returned in zip(numbers, shown(pool, numbers, rng), strict=True))
    assert 440 < same < 560  # 500 expected, standard deviation 16


def test_a_pool_of_size_0_returns_images_unchanged():
    assert shown(ImagePool(0), range(4), torch.Generator().manual_seed(0)) == [0, 1, 2, 3]


def test_images_of_a_pool_are_detached():
    pool = ImagePool(2)
    images = numbered(1).requires_grad_()
    assert not pool.exchange(images, torch.Generator()).requires_grad
    assert not pool.images[0].requires_grad
