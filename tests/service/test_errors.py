"""The failures: each has one HTTP status, a code for programs and a title for people."""

import inspect

import pytest

from service import errors
from service.errors import BadRequest, Overloaded, ServiceError, image_too_large

FAILURES = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, ServiceError)]
FAILURES.remove(ServiceError)


@pytest.mark.parametrize("failure", FAILURES)
def test_each_failure_has_the_status_that_the_vocabulary_names(failure: type[ServiceError]) -> None:
    line = next(line for line in (errors.__doc__ or "").splitlines() if f" {failure.__name__} " in line)
    assert f" {failure.status} " in line
    assert failure.code.replace("_", "").isalpha()
    assert failure.title


def test_no_two_failures_share_a_code() -> None:
    assert len({failure.code for failure in FAILURES}) == len(FAILURES) == 16


def test_a_failure_carries_its_message_and_when_to_come_back() -> None:
    failure = Overloaded("Too much is waiting.", retry_after_s=2)
    assert (str(failure), failure.message, failure.retry_after_s) == ("Too much is waiting.",) * 2 + (2,)


def test_a_finer_code_belongs_to_one_failure_only() -> None:
    assert BadRequest("No file.", code="no_file").code == "no_file"
    assert BadRequest("Malformed.").code == "bad_request"


def test_the_limit_on_images_is_given_in_mebibytes_where_it_can_be() -> None:
    assert image_too_large(20 * 1024 * 1024).message == "An image may have at most 20 MiB (20,971,520 bytes)."
    assert image_too_large(1000).message == "An image may have at most 1,000 bytes."
