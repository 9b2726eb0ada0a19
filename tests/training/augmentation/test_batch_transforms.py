import dataclasses

import torch

from training.augmentation.batch_transforms import augment, batch_indices, batch_order, colour_shifts, erased
from training.recipes.catalog import RECIPES
from training.recipes.recipe import Recipe

RECIPE = RECIPES["modern-resnet20"]
PLAIN = dataclasses.replace(RECIPE, flip="none", crop_padding=0)


def coordinates(count: int, side: int = 8) -> torch.Tensor:
    """Images whose pixels say where they were: row, column and 1."""
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    image = torch.stack((rows + 1, columns + 1, torch.ones_like(rows)), dim=-1).float()
    return image.repeat(count, 1, 1, 1)


def cut(recipe: Recipe, *, seed: int = 0, epoch: int = 0, step: int = 0, count: int = 64) -> torch.Tensor:
    return augment(coordinates(count), torch.arange(count), recipe, seed, epoch, step)


def test_the_order_of_an_epoch_is_a_permutation_that_follows_from_seed_and_epoch() -> None:
    first = batch_order(1, 0, 1000)
    assert torch.equal(first.sort().values, torch.arange(1000))
    assert torch.equal(first, batch_order(1, 0, 1000))
    assert not torch.equal(first, batch_order(1, 1, 1000))
    assert not torch.equal(first, batch_order(2, 0, 1000))


def test_without_padding_and_flips_images_stay_as_they_are() -> None:
    torch.testing.assert_close(cut(PLAIN), coordinates(64).permute(0, 3, 1, 2))


def test_crops_are_windows_of_the_image_padded_with_zeros() -> None:
    images = cut(dataclasses.replace(RECIPE, flip="none", crop_padding=2))
    rows, columns, inside = images.unbind(1)
    for row, column, seen in zip(rows, columns, inside, strict=True):
        assert torch.equal(row > 0, seen > 0) and torch.equal(column > 0, seen > 0)
        steps = row[:, 4][row[:, 4] > 0].diff()
        assert torch.equal(steps, torch.ones_like(steps))  # consecutive rows, from the top down
    shifts = {(int(row.max()), int(row[row > 0].min())) for row in rows}
    assert len(shifts) == 5  # 2 up … 2 down


def test_alternating_flips_mirror_every_image_in_every_second_epoch() -> None:
    recipe = dataclasses.replace(PLAIN, flip="alternating")
    even, odd = cut(recipe, epoch=0), cut(recipe, epoch=1, step=9)
    torch.testing.assert_close(even, odd.flip(3))
    mirrored = (even[:, 1, 0, 0] == 8).float().mean()
    assert 0.2 < mirrored < 0.8


def test_random_flips_mirror_about_half_of_a_batch() -> None:
    images = cut(dataclasses.replace(PLAIN, flip="random"))
    assert 16 < int((images[:, 1, 0, 0] == 8).sum()) < 48


def test_the_same_step_gives_the_same_images_and_another_gives_others() -> None:
    assert torch.equal(cut(RECIPE, step=5), cut(RECIPE, step=5))
    assert not torch.equal(cut(RECIPE, step=5), cut(RECIPE, step=6))


def test_images_come_out_channels_last() -> None:
    assert cut(RECIPE).is_contiguous(memory_format=torch.channels_last)


def test_a_step_takes_the_next_places_of_its_epochs_order() -> None:
    steps = [batch_indices(3, step, 10, 4) for step in range(4)]
    assert torch.equal(torch.cat(steps[:2]), batch_order(3, 0, 10)[:8])
    assert torch.equal(torch.cat(steps[2:]), batch_order(3, 1, 10)[:8])
    assert len(batch_indices(3, 5, 6, 6)) == 6


def test_colours_shift_along_imagenets_components_by_a_tenth_of_their_deviations() -> None:
    shifts = colour_shifts(20_000, 0.1, seed=0, step=0).double()
    values, directions = torch.linalg.eigh(torch.cov(shifts.T))
    torch.testing.assert_close(values.sqrt(), torch.tensor([0.00045, 0.00188, 0.02175]).double(), rtol=0.05, atol=0)
    brightest = directions[:, 2].abs()
    torch.testing.assert_close(brightest, torch.tensor([0.5675, 0.5808, 0.5836]).double(), rtol=0.01, atol=0.001)
    assert torch.equal(colour_shifts(8, 0.1, 0, 5), colour_shifts(8, 0.1, 0, 5))
    assert not torch.equal(colour_shifts(8, 0.1, 0, 5), colour_shifts(8, 0.1, 0, 6))


def test_a_share_of_the_images_loses_one_rectangle_of_allowed_area_and_shape() -> None:
    images = torch.ones(400, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    result = erased(images, 400, 0.25, seed=0, step=1)
    assert result.is_contiguous(memory_format=torch.channels_last)
    gone = result[:, 0] == 0
    assert torch.equal(gone, result[:, 1] == 0) and torch.equal(gone, result[:, 2] == 0)
    hit = gone[gone.flatten(1).any(1)]
    assert 70 < len(hit) < 130
    heights, widths = hit.any(2).sum(1), hit.any(1).sum(1)
    areas = hit.flatten(1).sum(1)
    assert torch.equal(areas, heights * widths)  # a rectangle
    assert areas.min() / 64**2 > 0.015 and areas.max() / 64**2 < 0.34
    assert (heights / widths).min() > 0.25 and (heights / widths).max() < 4.0
    assert len({*hit.any(2).int().argmax(1).tolist()}) > 10  # at many places


def test_the_parts_of_an_erased_batch_are_those_of_the_whole() -> None:
    images = torch.ones(20, 3, 32, 32)
    whole = erased(images, 20, 0.5, seed=0, step=1)
    parts = [erased(images[part], 20, 0.5, 0, 1, part) for part in (slice(0, 7), slice(7, 20))]
    assert torch.equal(whole, torch.cat(parts))
    assert torch.equal(erased(images, 20, 0.0, seed=0, step=1), images)
