"""Batches on a GPU: padded to sizes that are warm, in buffers that stay, and what is done when one fails."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

from service.engine.gpu import DeviceLost, GpuSessions
from tests.support.fake_gpu import CLASSES, SIDE, FakeDevice, FakeSession

OUTPUTS = ("probabilities", "top_indices")


def images(*values: int) -> NDArray[np.uint8]:
    return np.array([np.full((SIDE, SIDE, 3), value, np.uint8) for value in values])


def sums(*values: int) -> list[list[float]]:
    return [[value * SIDE * SIDE * 3.0] * CLASSES for value in values]


def warm(largest_batch: int = 8, memory: int = 1024) -> tuple[GpuSessions, FakeSession, FakeDevice]:
    session, device = FakeSession(memory), FakeDevice()
    sessions = GpuSessions(session, device, largest_batch=largest_batch)
    session.batches.clear()
    return sessions, session, device


def test_every_batch_size_is_warm_before_the_first_request_the_largest_first() -> None:
    session = FakeSession()
    GpuSessions(session, FakeDevice(), largest_batch=12)
    assert session.batches == [12, 8, 4, 2, 1]


def test_a_batch_is_padded_with_black_and_answered_without_the_padding() -> None:
    sessions, session, _ = warm()
    probabilities, indices = sessions.run(images(1, 2, 3), OUTPUTS)
    assert session.batches == [4]
    assert probabilities.tolist() == sums(1, 2, 3)
    assert (probabilities.dtype, indices.dtype) == (np.float32, np.int64)
    again, _ = sessions.run(images(9), OUTPUTS)
    assert again.tolist() == sums(9)
    assert probabilities.tolist() == sums(1, 2, 3)  # an answer is the caller's own, not the buffer


def test_a_run_makes_no_new_buffers_and_no_new_bindings() -> None:
    sessions, session, device = warm()
    for outputs in (OUTPUTS, ("probabilities",)):
        sessions.run(images(*range(8)), outputs)
    made, bound = len(device.buffers), session.bindings
    for count in (8, 5, 7, 8):
        sessions.run(images(*range(count)), OUTPUTS)
        sessions.run(images(*range(5, 5 + count)), ("probabilities",)) if count > 4 else None
    assert (len(device.buffers), session.bindings) == (made, bound)


def test_more_images_than_the_largest_batch_are_run_in_parts() -> None:
    sessions, session, _ = warm(largest_batch=4)
    (probabilities,) = sessions.run(images(*range(10)), ("probabilities",))
    assert session.batches == [4, 4, 2]
    assert probabilities.tolist() == sums(*range(10))


def test_no_images_get_no_answers() -> None:
    sessions, _, _ = warm()
    (probabilities,) = sessions.run(images(1)[:0], ("probabilities",))
    assert probabilities.shape == (0, CLASSES)


def test_a_batch_that_exceeds_the_memory_is_halved_for_good_without_lost_answers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sessions, session, _ = warm()
    session.memory = 2
    (probabilities,) = sessions.run(images(*range(7)), ("probabilities",))
    assert probabilities.tolist() == sums(*range(7))
    assert session.batches == [8, 4, 2, 2, 2, 1]
    assert sessions.largest_batch == 2
    assert caplog.messages[0] == "a batch of 7 does not fit the GPU's memory; from now on at most 4"
    session.batches.clear()
    sessions.run(images(*range(4)), OUTPUTS)
    assert session.batches == [2, 2]


def test_a_small_gpu_finds_its_largest_batch_while_it_warms_up() -> None:
    sessions, _, _ = warm(largest_batch=32, memory=8)
    assert sessions.largest_batch == 8


def test_a_size_that_cudnn_has_no_algorithm_for_is_halved_while_sizes_are_tried(
    caplog: pytest.LogCaptureFixture,
) -> None:
    session = FakeSession()
    session.failures = ["Failed to initialize CUDNN Frontend: HEURISTIC_QUERY_FAILED"]
    sessions = GpuSessions(session, FakeDevice(), largest_batch=8)
    assert session.batches == [8, 1, 4, 4, 4, 2, 1]  # the black image, both halves, and the sizes that are left
    assert sessions.largest_batch == 4
    assert "a batch of 8 cannot be run here (Failed to initialize CUDNN Frontend" in caplog.messages[0]
    assert sessions.run(images(*range(8)), ("probabilities",))[0].tolist() == sums(*range(8))


def test_a_size_that_fails_for_another_reason_than_memory_is_not_halved_where_another_provider_is_left() -> None:
    session = FakeSession(memory=4)
    assert GpuSessions(session, FakeDevice(), largest_batch=8, tries_smaller=False).largest_batch == 4
    session.failures = ["TensorRT EP failed to create engine from network."]
    with pytest.raises(RuntimeError, match="TensorRT EP"):
        GpuSessions(session, FakeDevice(), largest_batch=8, tries_smaller=False)


def test_a_single_image_that_does_not_fit_fails_and_the_device_lives_on() -> None:
    sessions, session, _ = warm()
    session.failures = ["CUDA failure 2: out of memory ; GPU=0"]
    with pytest.raises(RuntimeError, match="out of memory"):
        sessions.run(images(1), OUTPUTS)
    assert sessions.run(images(1), ("probabilities",))[0].tolist() == sums(1)


def test_a_poisoned_context_is_recognized_at_once() -> None:
    sessions, session, _ = warm()
    session.failures = ["CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; hostname=h"]
    with pytest.raises(DeviceLost):
        sessions.run(images(1, 2), OUTPUTS)
    assert session.batches == [2]  # nothing else is tried


def test_an_unknown_error_of_one_batch_is_that_batchs_own() -> None:
    sessions, session, _ = warm()
    session.failures = ["Non-zero status code returned while running Conv node"]
    with pytest.raises(RuntimeError, match="Conv node"):
        sessions.run(images(1, 2), OUTPUTS)
    assert session.batches == [2, 1]  # a black image was tried, and went well


def test_an_unknown_error_that_a_black_image_meets_too_is_the_devices() -> None:
    sessions, session, _ = warm()
    session.failures = ["TensorRT EP execution context enqueue failed."] * 2
    with pytest.raises(DeviceLost):
        sessions.run(images(1, 2), OUTPUTS)


def test_threads_take_turns_and_get_their_own_answers() -> None:
    sessions, _, _ = warm()
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda n: sessions.run(images(*[n] * (n % 8 + 1)), ("probabilities",)), range(40)))
    assert all(answer.tolist() == sums(*[n] * (n % 8 + 1)) for n, (answer,) in enumerate(answers))
