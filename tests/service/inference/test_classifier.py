"""One loaded model: the right labels in the right order, bad images alone, and no serving without proof."""

import asyncio
import hashlib
import json
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

import service.inference.classifier
from service.batching.batcher import Batcher
from service.batching.jobs import Deferred
from service.batching.load_shedding import QueueLimits
from service.engine.engine import Engine
from service.errors import BadImage, EngineFailed, NotAnImage
from service.inference.classifier import Classifier, ImageJob, load_classifier, pixels_job
from service.inference.model_checks import ModelCheckFailed, WarmUp, check_golden, warm_up
from service.inference.results import Classification, ModelInfo
from service.model_files.card import BadCard, ModelCard, read_card
from service.model_files.checksum import append_checksum
from tests.service.conftest import image
from tests.support.model_files.tiny_model import LABELS, SIDE, TOP, tiny_model

INFO = ModelInfo("fake", "1", "0" * 64, "CPUExecutionProvider", "fp32")


def load(model: bytes, max_batch: int | None = 4) -> Classifier:
    return load_classifier("tiny", "7", model, providers="cpu", max_batch=max_batch)


class FakeEngine:
    """Answers every image with the same row."""

    provider, input_height, input_width, largest_batch = "CPUExecutionProvider", SIDE, SIDE, None

    def __init__(self, row: list[float], top: list[int]) -> None:
        self._row, self._top = row, top
        self.exclusive: list[bool] = []

    def run(
        self, images: NDArray[np.uint8], outputs: Sequence[str] = (), /, *, exclusive: bool = False
    ) -> list[NDArray[Any]]:
        self.exclusive.append(exclusive)
        rows = np.tile(np.array(self._row, np.float32), (len(images), 1))
        return [rows, np.tile(np.array(self._top, np.int64), (len(images), 1))]


def faked(row: list[float], top: list[int], model_file: bytes) -> Classifier:
    return Classifier(FakeEngine(row, top), read_card(Engine(model_file).metadata), INFO, WarmUp(1, 0.0, 0.0))


def test_an_image_gets_its_labels_best_first(model_file: bytes) -> None:
    answer = load(model_file).classify_now(image((0, 0, 255), "PNG"), top_k=3)
    assert answer.predictions[0].label == "blue"
    assert answer.predictions[0].index == LABELS.index("blue")
    probabilities = [best.probability for best in answer.predictions]
    assert len(probabilities) == 3
    assert probabilities == sorted(probabilities, reverse=True)
    assert (answer.image.format, answer.image.width, answer.image.height) == ("PNG", 50, 37)
    assert answer.batch_size == 1


def test_it_says_which_file_answers(model_file: bytes) -> None:
    info = load(model_file).info
    sha256 = hashlib.sha256(model_file).hexdigest()
    assert info == ModelInfo("tiny", "7", sha256, "CPUExecutionProvider", "fp32")


@pytest.mark.parametrize("top_k", [1, TOP, TOP + 1, len(LABELS), 1000])
def test_more_labels_than_the_model_ranks_follow_in_order_of_probability(model_file: bytes, top_k: int) -> None:
    predictions = load(model_file).classify_now(image((250, 20, 20)), top_k=top_k).predictions
    assert len(predictions) == min(top_k, len(LABELS))
    assert len({best.index for best in predictions}) == len(predictions)
    probabilities = [best.probability for best in predictions]
    assert probabilities == sorted(probabilities, reverse=True)
    if top_k >= len(LABELS):
        assert sum(probabilities) == pytest.approx(1)


def test_where_probabilities_tie_the_order_of_the_graph_holds(model_file: bytes) -> None:
    classifier = faked([0.125] * 8, [6, 2, 7, 0, 5], model_file)
    ranked = [best.index for best in classifier.classify_now(image((0, 0, 0)), top_k=8).predictions]
    assert ranked == [6, 2, 7, 0, 5, 1, 3, 4]


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_an_answer_that_is_not_a_number_is_a_failure_and_never_a_label(model_file: bytes, wrong: float) -> None:
    classifier = faked([wrong] + [0.1] * 7, [0, 1, 2, 3, 4], model_file)
    with pytest.raises(EngineFailed):
        classifier.classify_now(image((0, 0, 0)), top_k=1)


@pytest.mark.anyio
async def test_in_a_batch_each_image_has_its_own_answer_or_its_own_failure() -> None:
    classifier = load(tiny_model(poison=True))
    batcher = Batcher(QueueLimits(10, 60))
    contents = [image((255, 0, 0)), b"no image", image((255, 255, 255), "PNG"), image((0, 255, 0), "WEBP")]
    tasks = [asyncio.create_task(batcher.submit(classifier, ImageJob(content, 1, 0.0))) for content in contents]
    await asyncio.sleep(0)  # all four are queued before the one thread looks
    batcher.start()
    red, text, poisonous, green = await asyncio.gather(*tasks, return_exceptions=True)
    await batcher.stop(10)
    assert isinstance(text, NotAnImage)
    assert isinstance(poisonous, EngineFailed)
    for answer, label in ((red, "red"), (green, "green")):
        assert not isinstance(answer, BaseException)
        assert answer.predictions[0].label == label
        assert answer.batch_size == 3


def test_a_broken_image_is_distinguished_from_no_image(model_file: bytes) -> None:
    with pytest.raises(BadImage):
        load(model_file).classify_now(image((1, 2, 3))[:200], top_k=1)


def test_a_fast_model_gets_batches_by_itself(model_file: bytes) -> None:
    assert load(model_file, max_batch=None).max_batch == 32
    assert load(model_file, max_batch=3).max_batch == 3


def test_a_model_without_a_card_is_refused(model_file: bytes) -> None:
    model = onnx.load_from_string(model_file)
    del model.metadata_props[:]
    with pytest.raises(BadCard, match="no model card"):
        load(model.SerializeToString())


def with_card(model_file: bytes, **fields: Any) -> bytes:
    model = onnx.load_from_string(model_file)
    entry, _ = model.metadata_props
    entry.value = json.dumps({**json.loads(entry.value), **fields})
    del model.metadata_props[1:]  # the old checksum
    return append_checksum(model.SerializeToString())


def test_a_model_that_fails_its_golden_example_may_not_serve(model_file: bytes) -> None:
    probabilities = list(load(model_file).card.golden.probabilities)
    probabilities[0] += 2e-4
    with pytest.raises(ModelCheckFailed, match=r"differs from the card by 0.0002"):
        load(with_card(model_file, golden={"probabilities": probabilities}))


def test_a_less_precise_model_may_differ_more_from_its_golden_example(model_file: bytes) -> None:
    probabilities = list(load(model_file).card.golden.probabilities)
    probabilities[0] += 2e-4
    load(with_card(model_file, golden={"probabilities": probabilities}, precision="fp16"))


def test_a_golden_answer_that_is_not_a_number_is_a_failure(model_file: bytes) -> None:
    engine = FakeEngine([float("nan")] * 8, [0, 1, 2, 3, 4])
    with pytest.raises(ModelCheckFailed, match="golden example"):
        check_golden(engine, read_card(Engine(model_file).metadata))


def test_a_model_that_breaks_on_its_golden_example_may_not_serve(model_file: bytes) -> None:
    class Broken(FakeEngine):
        def run(self, images: NDArray[np.uint8]) -> list[NDArray[Any]]:
            raise EngineFailed("broken")

    with pytest.raises(ModelCheckFailed, match="fails on its own golden example"):
        check_golden(Broken([], []), read_card(Engine(model_file).metadata))


def test_labels_that_do_not_fit_the_model_are_refused(model_file: bytes) -> None:
    card = with_card(model_file, labels=LABELS[:3], golden={"probabilities": [0.2, 0.3, 0.5]})
    with pytest.raises(ModelCheckFailed, match="3 labels, but the model returns 8"):
        load(card)


def test_a_crop_that_does_not_fit_the_model_is_refused(model_file: bytes) -> None:
    card: ModelCard = load(model_file).card
    wrong = card.preprocessing.model_dump(mode="json") | {"crop": [SIDE, SIDE - 1]}
    with pytest.raises(ModelCheckFailed, match=r"crops to \(8, 7\), but the model takes \(8, 8\)"):
        load(with_card(model_file, preprocessing=wrong))


def test_a_big_image_is_decoded_apart_from_its_batch(model_file: bytes) -> None:
    classifier = load(model_file)
    big, small = image((255, 0, 0), size=(2000, 1500)), image((0, 0, 255))
    images = [ImageJob(content, 1, 0.0) for content in (small, big)]
    first, second = classifier.answer_batch(images, exclusive=False)
    assert isinstance(first, Classification)
    assert isinstance(second, Deferred)
    (later,) = classifier.answer_batch([second.prepare()], exclusive=False)
    assert isinstance(later, Classification)
    assert (later.predictions[0].label, later.image.width) == ("red", 2000)
    assert later.predictions == classifier.classify_now(big, top_k=1).predictions


def test_the_time_of_decoding_apart_is_no_time_in_the_queue(model_file: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(service.inference.classifier, "time", SimpleNamespace(monotonic=lambda: now[0]))
    decode = service.inference.classifier.header_to_pixels

    def take_three_seconds(*arguments: Any) -> Any:
        now[0] += 3.0
        return decode(*arguments)

    monkeypatch.setattr(service.inference.classifier, "header_to_pixels", take_three_seconds)
    classifier = load(model_file)
    big = ImageJob(image((255, 0, 0), size=(2000, 1500)), 1, submitted_at=0.0)
    now[0] = 1.0
    (aside,) = classifier.answer_batch([big], exclusive=False)
    assert isinstance(aside, Deferred)
    now[0] = 2.0
    prepared = aside.prepare()
    now[0] += 0.5
    (answer,) = classifier.answer_batch([prepared], exclusive=False)
    assert isinstance(answer, Classification)
    assert (answer.decode_s, answer.queue_s) == (3.0, 2.5)  # 1 and 1 for a thread, 0.5 for the batch


@pytest.mark.anyio
async def test_further_outputs_go_to_the_jobs_that_requested_them(model_file: bytes) -> None:
    classifier = load(model_file)
    batcher = Batcher(QueueLimits(10, 60))
    content = image((0, 0, 255), "PNG")
    plain = asyncio.create_task(batcher.submit(classifier, ImageJob(content, 1, 0.0)))
    mapped = asyncio.create_task(batcher.submit(classifier, ImageJob(content, 1, 0.0, outputs=("class_maps",))))
    pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    wanted = ("embedding", "probabilities", "top_indices")
    raw = asyncio.create_task(batcher.submit(classifier, pixels_job(pixels, wanted)))
    await asyncio.sleep(0)
    batcher.start()
    answers = await asyncio.gather(plain, mapped, raw)
    await batcher.stop(10)
    assert [answer.batch_size for answer in answers] == [3, 3, 3]
    assert [set(answer.outputs) for answer in answers] == [set(), {"class_maps"}, set(wanted)]
    assert answers[1].outputs["class_maps"].shape[0] == TOP
    engine = Engine(model_file)
    for name, expected in zip(wanted, engine.run(pixels[None], wanted), strict=True):
        np.testing.assert_allclose(answers[2].outputs[name], expected[0], rtol=1e-5, atol=1e-6)
    assert answers[2].predictions == []


@pytest.mark.parametrize("exclusive", [True, False])
def test_the_engine_hears_whether_an_image_exclusive(model_file: bytes, exclusive: bool) -> None:
    engine = FakeEngine([0.5] * 8, [0, 1, 2, 3, 4])
    classifier = Classifier(engine, read_card(Engine(model_file).metadata), INFO, WarmUp(1, 0.0, 0.0))
    classifier.answer_batch([ImageJob(image((255, 0, 0)), 1, 0.0)], exclusive=exclusive)
    assert engine.exclusive == [exclusive]


@pytest.mark.parametrize(("single_image_s", "expected"), [(0.004, 32), (0.012, 4), (0.025, 2), (0.037, 1), (9.0, 1)])
def test_a_large_model_gets_small_batches_on_a_cpu(
    single_image_s: float, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.inference.model_checks._seconds_of_a_run", lambda _engine, _images: single_image_s)
    assert warm_up(FakeEngine([0.5] * 8, [0, 1, 2, 3, 4]), None).max_batch == expected


@pytest.mark.parametrize(("wanted", "expected"), [(None, 8), (4, 4), (64, 8)])
def test_a_gpu_gets_batches_as_large_as_it_holds(wanted: int | None, expected: int) -> None:
    engine = FakeEngine([0.5] * 8, [0, 1, 2, 3, 4])
    engine.largest_batch = 8  # type: ignore[assignment]
    assert warm_up(engine, wanted).max_batch == expected


@pytest.mark.parametrize(
    ("seconds", "size", "expected"), [(0.001, 1000, True), (0.001, 20_000, False), (0.003, 1, False)]
)
def test_the_event_loop_runs_small_files_of_fast_models(
    model_file: bytes, seconds: float, size: int, expected: bool
) -> None:
    card = read_card(Engine(model_file).metadata)
    classifier = Classifier(FakeEngine([0.5] * 8, [0, 1, 2, 3, 4]), card, INFO, WarmUp(1, seconds, seconds))
    assert classifier.runs_inline(ImageJob(bytes(size), 1, 0.0)) is expected
    assert not classifier.runs_inline(pixels_job(np.zeros((SIDE, SIDE, 3), np.uint8), ()))
