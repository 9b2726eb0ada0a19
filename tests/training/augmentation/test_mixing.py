import dataclasses

import pytest
import torch
from torch.nn import functional as F

from training.augmentation.mixing import Batch, mixed
from training.recipes.catalog import RECIPES

RECIPE = RECIPES["modern-resnet20"]
IMAGES = torch.arange(8.0).view(8, 1, 1, 1).expand(8, 3, 16, 16).contiguous()
LABELS = torch.arange(8)


def test_without_mixing_images_and_labels_stay_as_they_are() -> None:
    batch = mixed(IMAGES, LABELS, RECIPE, 0, 0)
    assert batch.images is IMAGES and batch.labels is LABELS and batch.others is None


def test_mixup_blends_by_the_share_that_the_loss_gives_to_the_other_label() -> None:
    batch = mixed(IMAGES, LABELS, dataclasses.replace(RECIPE, mixup=0.5), 0, 3)
    assert batch.others is not None and torch.equal(batch.others, LABELS.flip(0))
    expected = (1 - batch.others_share) * IMAGES + batch.others_share * IMAGES.flip(0)
    torch.testing.assert_close(batch.images, expected)


def test_cutmix_pastes_a_window_whose_area_is_the_share() -> None:
    shares = []
    for step in range(20):
        batch = mixed(IMAGES, LABELS, dataclasses.replace(RECIPE, cutmix=1.0), 0, step)
        pasted = (batch.images[0] != IMAGES[0]).float().mean().item()
        assert pasted == pytest.approx(batch.others_share)
        shares.append(batch.others_share)
    assert max(shares) > 0.3 and len(set(shares)) > 10


def test_both_kinds_take_turns_by_chance_and_a_step_repeats_itself() -> None:
    recipe = dataclasses.replace(RECIPE, mixup=1.0, cutmix=1.0)
    images = [mixed(IMAGES, LABELS, recipe, 0, step).images for step in range(20)]
    are_blended = {len(image[0].unique()) == 1 and bool(image[0, 0, 0, 0] != 0) for image in images}
    assert are_blended == {True, False}
    assert torch.equal(mixed(IMAGES, LABELS, recipe, 0, 5).images, mixed(IMAGES, LABELS, recipe, 0, 5).images)


def test_the_loss_is_shared_between_the_labels_and_smoothed() -> None:
    logits = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
    batch = Batch(IMAGES, LABELS, LABELS.flip(0), 0.25)
    expected = 0.75 * F.cross_entropy(logits, LABELS) + 0.25 * F.cross_entropy(logits, LABELS.flip(0))
    torch.testing.assert_close(batch.loss(logits, 0.0), expected)
    smoothed = Batch(IMAGES, LABELS).loss(logits, 0.1)
    torch.testing.assert_close(smoothed, F.cross_entropy(logits, LABELS, label_smoothing=0.1))


def test_a_split_batch_keeps_every_image_with_its_labels() -> None:
    parts = Batch(IMAGES, LABELS, LABELS.flip(0), 0.25).split(3)
    assert [len(part.labels) for part in parts] == [3, 3, 2]
    assert torch.equal(torch.cat([part.images for part in parts]), IMAGES)
    assert parts[2].others is not None and torch.equal(parts[2].others, LABELS.flip(0)[6:])
