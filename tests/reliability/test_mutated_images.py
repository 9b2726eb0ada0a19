"""Damaged images against a running server."""

import pytest

from tests.reliability import mutated_images
from tests.reliability.answers import Answer
from tests.reliability.image_mutations import FORMATS, mutated_image

PROBLEM = {"content-type": "application/problem+json"}


def test_cases_are_the_same_each_time_and_of_every_format() -> None:
    cases = [mutated_image(case) for case in range(200)]
    assert cases == [mutated_image(case) for case in range(200)]
    assert {name for name, _ in cases} == set(FORMATS)
    assert len({content for _, content in cases}) > 190


@pytest.mark.timeout(300)
def test_every_damaged_image_has_a_documented_answer() -> None:
    report = mutated_images.run(300)
    assert report.broken == []
    assert report.rows[-1][:2] == ("all", "300")
    assert int(report.rows[-1][2]) > 10  # 200: damage that decoders cope with


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(500, PROBLEM, b"{}"), "status 500"),
        (Answer(418, PROBLEM, b"{}"), "status 418"),
        (Answer(422, PROBLEM, b'{"status": 422, "code": "new"}'), "not documented"),
        (Answer(422, PROBLEM, b'{"status": 400, "code": "bad_image"}'), "not documented"),
        (Answer(415, PROBLEM, b"no JSON"), "without a document"),
        (Answer(200, {}, b'File "/usr/lib/python3/zlib.py"'), "reveals internals"),
        (Answer(200, {}, b'{"predictions": [{"label": "red", "probability": 1.5}]}'), "predictions"),
        (Answer(503, PROBLEM, b'{"status": 503, "code": "overloaded"}'), "status 503"),
    ],
)
def test_an_answer_that_breaks_the_promise_is_found(answer: Answer, words: str) -> None:
    assert words in str(mutated_images._outcome("PNG", answer, 7).fault)


def test_a_documented_refusal_breaks_nothing() -> None:
    answer = Answer(422, PROBLEM, b'{"status": 422, "code": "bad_image"}')
    assert mutated_images._outcome("PNG", answer, 7).fault is None


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_20_000_damaged_images() -> None:
    assert mutated_images.run(mutated_images.COUNT).broken == []
