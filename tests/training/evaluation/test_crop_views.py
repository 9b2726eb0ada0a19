import io
import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from service.images.preprocessing import image_to_pixels, resize_and_crop
from training.evaluation.crop_views import NAMES, Pixels, Views, choose
from training.evaluation.evaluate import log_scores_of, views_in


def png(width: int, height: int, seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def views_of(content: bytes, views: Views) -> list[Pixels]:
    found = views_in(content, views, "bilinear")
    assert not isinstance(found, str)
    return found


@pytest.mark.parametrize(("width", "height"), [(50, 40), (33, 90), (32, 32), (2000, 40), (9, 7)])
def test_the_centre_has_the_pixels_that_serving_sees(width: int, height: int) -> None:
    content = png(width, height)
    expected, _ = image_to_pixels(content, shorter_side=36, crop=(32, 32))
    (centre,) = views_of(content, choose("centre", 36, (32, 32)))
    np.testing.assert_array_equal(centre, expected)


def test_mirror_adds_the_mirror_image_of_the_centre() -> None:
    centre, mirrored = views_of(png(50, 40), choose("mirror", 36, (32, 32)))
    np.testing.assert_array_equal(mirrored, centre[:, ::-1])


def test_ten_crop_has_four_corners_the_centre_and_their_mirror_images() -> None:
    content = png(300, 280)
    views = choose("ten-crop", 232, (224, 224))
    crops = views_of(content, views)
    whole = resize_and_crop(Image.open(io.BytesIO(content)), 256, (256, 274))
    assert len(crops) == views.count == 10
    np.testing.assert_array_equal(crops[0], whole[:224, :224])
    np.testing.assert_array_equal(crops[1], whole[:224, -224:])
    np.testing.assert_array_equal(crops[2], whole[-224:, :224])
    np.testing.assert_array_equal(crops[3], whole[-224:, -224:])
    np.testing.assert_array_equal(crops[4], whole[16:-16, 25:-25])
    for crop, mirrored in zip(crops[:5], crops[5:], strict=True):
        np.testing.assert_array_equal(mirrored, crop[:, ::-1])


def test_multi_scale_shows_the_whole_image_at_the_papers_five_sizes() -> None:
    views = choose("multi-scale", 256, (224, 224))
    shapes = [view.shape[:2] for view in views_of(png(60, 40), views)]
    assert shapes == [(224, 336), (256, 384), (384, 576), (480, 720), (640, 960)]
    assert not views.scaled and views.count == 5


def test_sizes_change_in_proportion_for_networks_of_32_pixels_and_it_is_said() -> None:
    multi, ten = choose("multi-scale", 32, (32, 32)), choose("ten-crop", 32, (32, 32))
    assert multi.shorter_sides == (32, 37, 55, 69, 91) and ten.shorter_sides == (37,)
    assert multi.scaled and "in proportion" in str(multi) and "in proportion" in str(ten)
    assert "in proportion" not in str(choose("ten-crop", 256, (224, 224)))


def test_of_very_long_images_the_middle_is_scored() -> None:
    views = views_of(png(12_000, 10), choose("multi-scale", 32, (32, 32)))
    assert [view.shape for view in views] == [(side, 4 * side, 3) for side in (32, 37, 55, 69, 91)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 500), (32, 32)])
def test_every_size_of_image_has_all_views(name: str, width: int, height: int) -> None:
    views = choose(name, 32, (32, 32))
    assert len(views_of(png(width, height), views)) == views.count


def test_unknown_views_are_refused_with_the_names_of_those_there_are() -> None:
    with pytest.raises(ValueError, match="no views are called 'corners'; there are centre, mirror, ten-crop"):
        choose("corners", 32, (32, 32))


def test_what_cannot_be_decoded_has_a_reason_instead_of_views() -> None:
    reason = views_in(b"no image", choose("centre", 32, (32, 32)), "bilinear")
    assert isinstance(reason, str) and "JPEG, PNG and WebP" in reason


class FirstPixel(nn.Module):
    """Logits (r, 0) of an image whose upper left pixel has the red r."""

    def forward(self, images: Tensor) -> Tensor:
        red = images[:, 0, 0, 0]
        return torch.stack((red, torch.zeros_like(red)), dim=1)


def of_red(red: int, side: int) -> Pixels:
    return np.full((side, side, 3), red, np.uint8)


@pytest.mark.parametrize("pixels_at_a_time", [1, 50, 10_000])
def test_the_score_is_the_mean_softmax_of_the_views_in_the_images_order_whatever_the_batch(
    pixels_at_a_time: int,
) -> None:
    images = [[of_red(2, 4), of_red(0, 6)], [of_red(1, 6), of_red(1, 4)], [of_red(3, 5)]]
    log_scores = log_scores_of(
        FirstPixel(), iter(images), lambda views: views.permute(0, 3, 1, 2).float(), pixels_at_a_time
    )
    sigmoid = torch.tensor([0.0, 1.0, 2.0, 3.0], dtype=torch.float64).sigmoid()
    expected = torch.stack(((sigmoid[2] + sigmoid[0]) / 2, sigmoid[1], sigmoid[3]))
    torch.testing.assert_close(log_scores.exp(), torch.stack((expected, 1 - expected), dim=1))


def test_scores_are_computed_side_by_side_without_reading_far_ahead_and_come_back_in_order() -> None:
    together = threading.Barrier(2, timeout=30)  # lets nobody on before two have come
    reds, read, scored = range(10, 170, 10), [0], [0]

    class QueuedJob(FirstPixel):
        def forward(self, images: Tensor) -> Tensor:
            together.wait()
            assert read[0] - scored[0] <= 3  # two that are computed and one that waits
            scores = super().forward(images)
            scored[0] += 1
            return scores

    def images() -> Iterator[list[Pixels]]:
        for red in reds:
            read[0] += 1
            yield [of_red(red, 2)]

    log_scores = log_scores_of(
        QueuedJob(), images(), lambda views: views.permute(0, 3, 1, 2).float(), pixels_at_a_time=4, threads=2
    )
    assert (-log_scores[:, 1]).round().tolist() == list(reds)


def test_a_network_that_is_sure_beyond_the_range_of_floats_still_has_a_logarithm() -> None:
    images = [[of_red(255, 2)]]
    log_scores = log_scores_of(FirstPixel(), images, lambda views: views.permute(0, 3, 1, 2).float() * 1000)
    assert log_scores.isfinite().all() and log_scores[0, 0] == 0
