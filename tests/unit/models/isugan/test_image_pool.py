"""What the discriminators are shown."""

import torch

from anomalib_defect_plugins.models.isugan.image_pool import ImagePool


def numbered(*numbers: int) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float32)[:, None, None, None].expand(-1, 1, 2, 2).clone()


def shown(pool: ImagePool, numbers: range, rng: torch.Generator) -> list[int]:
    return [int(pool.exchange(numbered(number), rng)[0, 0, 0, 0]) for number in numbers]


def test_images_come_back_as_they_are_until_the_pool_is_full():
    pool, rng = ImagePool(3), torch.Generator().manual_seed(0)
    assert shown(pool, range(3), rng) == [0, 1, 2]
    assert [int(image[0, 0, 0]) for image in pool.images] == [0, 1, 2]


def test_half_of_the_later_images_come_back_and_the_others_take_the_place_of_an_earlier_one_that_does():
    pool, rng = ImagePool(5), torch.Generator().manual_seed(0)
    shown(pool, range(5), rng)
    kept, numbers = set(range(5)), range(5, 1005)
    for number, back in zip(numbers, shown(pool, numbers, rng), strict=True):
        if back != number:
            kept.remove(back)  # fails if it was not there
            kept.add(number)
    assert kept == {int(image[0, 0, 0]) for image in pool.images}
    same = sum(number == back for number, back in zip(numbers, shown(pool, numbers, rng), strict=True))
    assert 440 < same < 560  # 500 expected, standard deviation 16


def test_a_pool_without_places_gives_images_back():
    assert shown(ImagePool(0), range(4), torch.Generator().manual_seed(0)) == [0, 1, 2, 3]


def test_images_of_a_pool_hold_no_graph():
    pool = ImagePool(2)
    given = numbered(1).requires_grad_()
    assert not pool.exchange(given, torch.Generator()).requires_grad
    assert not pool.images[0].requires_grad
