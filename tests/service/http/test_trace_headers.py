"""Ids of requests: the client's if it does no harm, else a new one."""

import re

import pytest

from service.http.trace_headers import request_id, traceparent

TRACE = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize("given", [b"a", b"5f0c-ABC.def_1", b"x" * 128])
def test_a_harmless_id_is_kept(given: bytes) -> None:
    assert request_id(given) == given


@pytest.mark.parametrize("given", [None, b"", b"x" * 129, b"a b", b'a"b', b"a\nb", b"\xc3\xa4", b"<script>", b"a\x00"])
def test_any_other_is_replaced(given: bytes | None) -> None:
    first, second = request_id(given), request_id(given)
    assert re.fullmatch(rb"[0-9a-f]{24}", first)
    assert first != second


def test_a_valid_traceparent_is_passed_on_and_no_other() -> None:
    assert traceparent(TRACE) == TRACE
    assert traceparent(TRACE.replace(b"00-", b"cc-", 1)) is not None
    for bad in (
        None,
        b"",
        TRACE.upper(),
        TRACE + b"-x",
        TRACE.replace(b"00-", b"ff-", 1),
        b"00-" + b"0" * 32 + TRACE[35:],
        TRACE[:36] + b"0" * 16 + b"-01",
        TRACE[:-1],
        TRACE + b"\n",
    ):
        assert traceparent(bad) is None
