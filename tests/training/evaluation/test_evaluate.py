import threading

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from training.evaluation.evaluate import errors_of, expected_calibration_error, fit_temperature, logits_of


def test_every_image_is_counted_once_whatever_the_batch_size() -> None:
    class Brightness(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1).sum(1, keepdim=True) * torch.tensor([[1.0, -1.0]])

    images = np.random.default_rng(0).integers(0, 256, (23, 2, 2, 3)).astype(np.uint8)
    whole = logits_of(Brightness(), images, lambda batch: batch.float(), batch_size=100)
    parts = logits_of(Brightness(), images, lambda batch: batch.float(), batch_size=7)
    assert whole.shape == (23, 2)
    torch.testing.assert_close(whole, parts)
    assert whole[:, 0].tolist() == images.reshape(23, -1).sum(1).tolist()


def test_batches_are_computed_side_by_side_and_come_back_in_order() -> None:
    together = threading.Barrier(2, timeout=30)  # lets nobody on before two have come

    class QueuedJob(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            together.wait()
            return images[:, :1, 0, 0]

    images = np.arange(8, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    logits = logits_of(QueuedJob(), images, lambda batch: batch.permute(0, 3, 1, 2), batch_size=2, threads=2)
    assert logits.flatten().tolist() == [0, 1, 2, 3, 4, 5, 6, 7]


def test_errors_are_percentages_of_wrong_first_and_wrong_first_five() -> None:
    logits = torch.eye(8)[torch.tensor([0, 1, 2, 3])] + torch.linspace(0.5, 0.0, 8)
    errors = errors_of(logits, torch.tensor([0, 1, 7, 7]))
    assert (errors.top1, errors.top5, errors.images) == (50.0, 50.0, 4)


def test_errors_are_exact_shares_in_percent() -> None:
    right_of_five = torch.eye(5)[[0, 1, 2, 3, 3]]
    assert errors_of(right_of_five, torch.arange(5)).top1 == 20.0


def test_a_confident_network_that_is_always_right_has_no_calibration_error_and_one_that_is_wrong_has_all() -> None:
    sure = torch.tensor([[1.0, 0.0]] * 10)
    assert expected_calibration_error(sure, torch.zeros(10, dtype=torch.long)) == pytest.approx(0)
    assert expected_calibration_error(sure, torch.ones(10, dtype=torch.long)) == pytest.approx(1)


def test_the_temperature_of_overconfident_logits_is_found() -> None:
    random = torch.Generator().manual_seed(0)
    honest = torch.randn(20_000, 5, generator=random) * 2
    labels = torch.multinomial(honest.softmax(1), 1, generator=random).squeeze(1)
    fit = fit_temperature(honest * 3, labels)
    assert fit.temperature == pytest.approx(3, rel=0.05)
    assert fit.expected_calibration_error < 0.02 < fit.expected_calibration_error_before
    assert fit.images == 20_000


def test_a_temperature_from_a_handful_of_images_that_are_all_told_apart_stays_near_1() -> None:
    logits, labels = 2 * torch.eye(4).repeat(2, 1), torch.arange(4).repeat(2)
    assert fit_temperature(logits, labels).temperature == pytest.approx(0.05, rel=0.1)  # the lowest there is
    assert 0.3 < fit_temperature(logits, labels, caution=1.0).temperature < 1
    many = fit_temperature(logits.repeat(1000, 1) * 0.1, labels.repeat(1000), caution=1.0).temperature
    assert many < 0.2
