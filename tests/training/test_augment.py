import dataclasses

import torch

from training.augment import augment, batch_order
from training.recipe import Recipe
from training.recipes import RECIPES

RECIPE = RECIPES["modern-resnet20"]
PLAIN = dataclasses.replace(RECIPE, flip="none", crop_padding=0)


def coordinates(count: int, side: int = 8) -> torch.Tensor:
    """Pictures whose pixels say where they were: row, column and 1."""
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    picture = torch.stack((rows + 1, columns + 1, torch.ones_like(rows)), dim=-1).float()
    return picture.repeat(count, 1, 1, 1)


def cut(recipe: Recipe, *, seed: int = 0, epoch: int = 0, step: int = 0, count: int = 64) -> torch.Tensor:
    return augment(coordinates(count), torch.arange(count), recipe, seed, epoch, step)


def test_the_order_of_an_epoch_is_a_permutation_that_follows_from_seed_and_epoch() -> None:
    first = batch_order(1, 0, 1000)
    assert torch.equal(first.sort().values, torch.arange(1000))
    assert torch.equal(first, batch_order(1, 0, 1000))
    assert not torch.equal(first, batch_order(1, 1, 1000))
    assert not torch.equal(first, batch_order(2, 0, 1000))


def test_without_padding_and_flips_pictures_stay_as_they_are() -> None:
    torch.testing.assert_close(cut(PLAIN), coordinates(64).permute(0, 3, 1, 2))


def test_crops_are_windows_of_the_picture_padded_with_zeros() -> None:
    pictures = cut(dataclasses.replace(RECIPE, flip="none", crop_padding=2))
    rows, columns, inside = pictures.unbind(1)
    for row, column, seen in zip(rows, columns, inside, strict=True):
        assert torch.equal(row > 0, seen > 0) and torch.equal(column > 0, seen > 0)
        steps = row[:, 4][row[:, 4] > 0].diff()
        assert torch.equal(steps, torch.ones_like(steps))  # consecutive rows, from the top down
    shifts = {(int(row.max()), int(row[row > 0].min())) for row in rows}
    assert len(shifts) == 5  # 2 up … 2 down


def test_alternating_flips_mirror_every_picture_in_every_second_epoch() -> None:
    recipe = dataclasses.replace(PLAIN, flip="alternating")
    even, odd = cut(recipe, epoch=0), cut(recipe, epoch=1, step=9)
    torch.testing.assert_close(even, odd.flip(3))
    mirrored = (even[:, 1, 0, 0] == 8).float().mean()
    assert 0.2 < mirrored < 0.8


def test_random_flips_mirror_about_half_of_a_batch() -> None:
    pictures = cut(dataclasses.replace(PLAIN, flip="random"))
    assert 16 < int((pictures[:, 1, 0, 0] == 8).sum()) < 48


def test_the_same_step_gives_the_same_pictures_and_another_gives_others() -> None:
    assert torch.equal(cut(RECIPE, step=5), cut(RECIPE, step=5))
    assert not torch.equal(cut(RECIPE, step=5), cut(RECIPE, step=6))


def test_pictures_come_out_channels_last() -> None:
    assert cut(RECIPE).is_contiguous(memory_format=torch.channels_last)
