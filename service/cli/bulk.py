"""`classify --out`: one row for each image of a folder, list or archive, in constant memory and on all cores.

Threads read, decode and classify batches. The main thread takes images from the input and writes rows in its order.
`--resume` continues a run that was killed: each id has exactly one row in the end.
"""

import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from service.batching.jobs import Deferred
from service.cli.bulk_inputs import BulkError, BulkInput, BulkItem, open_input
from service.cli.bulk_output import AnswersFile
from service.cli.bulk_parquet import check_installed, is_parquet, open_journal, write_parquet
from service.cli.bulk_progress import Progress
from service.errors import EngineFailed, ServiceError
from service.inference.classifier import Classifier, ImageJob
from service.inference.results import Classification

_LARGEST_BATCH = 64  # images
_BATCH_BYTES = 4 * 1024 * 1024  # of images that are read ahead of the threads
_TICK_S = 0.5


@dataclass(frozen=True, slots=True)
class BulkOptions:
    """The options of a run."""

    top_k: int
    max_image_bytes: int
    threads: int


@dataclass(frozen=True, slots=True)
class _Image:
    item: BulkItem
    content: bytes | ServiceError | None  # None: a thread reads it


@dataclass(frozen=True, slots=True)
class _Rows:
    lines: bytes
    images: int
    problems: int


def check_output(path: Path) -> None:
    """Raise BulkError for an output format that is not supported."""
    if is_parquet(path):
        check_installed(path)


def bulk_batch(classifier: Classifier) -> int:
    """Return the number of images that a thread classifies together."""
    return min(classifier.max_batch, _LARGEST_BATCH)


def classify_into(path: Path, name: str, classifier: Classifier, options: BulkOptions, *, resume: bool) -> None:
    """Write a row for each image of the input `name` that has none in the file yet. Raises BulkError."""
    source = open_input(name)
    journal = open_journal(path, resume=resume) if is_parquet(path) else None
    answers = AnswersFile(journal or path, resume=resume, model=classifier.info.served_as)
    try:
        progress = Progress(source)
        _classify_all(source, answers, classifier, options, progress)
        if journal is not None:
            write_parquet(journal, path)
    finally:
        answers.close()
    progress.finish()


def _classify_all(
    source: BulkInput, answers: AnswersFile, classifier: Classifier, options: BulkOptions, progress: Progress
) -> None:
    """Classify images without a row. If the input becomes unreadable, the images before that point get their rows."""
    failure: BulkError | None = None
    pending: deque[Future[_Rows]] = deque()
    images = _new_images(source, answers, options.max_image_bytes, progress)
    batches = _batches_of(images, bulk_batch(classifier))
    threads = ThreadPoolExecutor(options.threads)
    try:
        for batch in batches:
            if isinstance(batch, BulkError):
                failure = batch
                break
            pending.append(threads.submit(_rows_of, batch, classifier, options))
            if len(pending) > 2 * options.threads:
                _write_next(pending, answers, progress)
        while pending:
            _write_next(pending, answers, progress)
    except EngineFailed:
        raise BulkError("the model failed on a batch; the lines above have the cause; continue with --resume") from None
    finally:
        threads.shutdown(cancel_futures=True)
    if failure is not None:
        raise failure


def _write_next(pending: deque[Future[_Rows]], answers: AnswersFile, progress: Progress) -> None:
    rows = pending.popleft()
    while not wait([rows], timeout=_TICK_S).done:
        answers.sync_if_due()
        progress.tick()
    found = rows.result()
    answers.append(found.lines)
    progress.add(found.images, found.problems)


def _new_images(source: BulkInput, answers: AnswersFile, most_bytes: int, progress: Progress) -> Iterator[_Image]:
    for item in source:
        if answers.written.take(item.id):
            progress.skip()
        else:
            yield _Image(item, _content(item, most_bytes) if source.reads_in_order else None)


def _content(item: BulkItem, most_bytes: int) -> bytes | ServiceError:
    try:
        return item.read(most_bytes)
    except ServiceError as error:
        return error.as_answer()


def _batches_of(images: Iterable[_Image], size: int) -> Iterator[list[_Image] | BulkError]:
    """Yield batches, and at the end the error of the input, if any."""
    batch: list[_Image] = []
    failure: BulkError | None = None
    read_bytes = 0
    try:
        for image in images:
            batch.append(image)
            read_bytes += len(image.content) if isinstance(image.content, bytes) else 0
            if len(batch) == size or read_bytes >= _BATCH_BYTES:
                yield batch
                batch, read_bytes = [], 0
    except BulkError as error:
        failure = error
    if batch:
        yield batch
    if failure is not None:
        yield failure


def _rows_of(images: list[_Image], classifier: Classifier, options: BulkOptions) -> _Rows:
    """Return the rows of a batch, in order. Raises EngineFailed if the model fails on all of them."""
    contents = [
        _content(image.item, options.max_image_bytes) if image.content is None else image.content for image in images
    ]
    now = time.monotonic()
    jobs = [ImageJob(content, options.top_k, now) for content in contents if isinstance(content, bytes)]
    classified = iter(_answers(classifier, jobs) if jobs else ())
    answers = [content if isinstance(content, ServiceError) else next(classified) for content in contents]
    model = classifier.info.served_as
    rows = (_row(image.item.id, model, answer) for image, answer in zip(images, answers, strict=True))
    lines = b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows)
    return _Rows(lines, len(images), sum(isinstance(answer, ServiceError) for answer in answers))


def _answers(classifier: Classifier, jobs: list[ImageJob]) -> list[Classification | ServiceError]:
    """Return the result of each image. Images that take long to decode are classified one by one."""
    answers = classifier.answer_batch(jobs, exclusive=False)
    return [_finished(classifier, answer) if isinstance(answer, Deferred) else answer for answer in answers]


def _finished(classifier: Classifier, deferred: Deferred[ImageJob]) -> Classification | ServiceError:
    try:
        job = deferred.prepare()
    except ServiceError as error:
        return error.as_answer()
    answer = classifier.answer_batch([job], exclusive=False)[0]
    assert not isinstance(answer, Deferred)  # noqa: S101 - a prepared image is never deferred again
    return answer


def _row(item_id: str, model: str, answer: Classification | ServiceError) -> dict[str, Any]:
    if isinstance(answer, ServiceError):
        return {"id": item_id, "problem": {"code": answer.code, "detail": answer.message}}
    return {"id": item_id, "model": model, "predictions": answer.predictions, "confident": answer.confident}
