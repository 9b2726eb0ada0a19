"""Messages arrive in order until the other end closes, and replies find their requests."""

import asyncio
import socket

import pytest

from service.processes.channel import MessageChannel, PendingReplies
from service.processes.messages import MessageError, Ping, Stop

pytestmark = pytest.mark.anyio


async def test_messages_arrive_in_order_until_the_other_end_closes() -> None:
    ends = socket.socketpair()
    sender, receiver = [await MessageChannel.open(end) for end in ends]
    for message in (Ping(1), Ping(2), Stop()):
        sender.send(message)
    await sender.flush()
    sender.close()
    sender.send(Ping(3))  # dropped
    assert [message async for message in receiver.messages()] == [Ping(1), Ping(2), Stop()]
    receiver.close()


async def test_a_malformed_line_ends_the_messages_with_an_error() -> None:
    ours, theirs = socket.socketpair()
    receiver = await MessageChannel.open(ours)
    with theirs:
        theirs.sendall(b'{"kind":"stop"}\n{"kind":"dance"}\n')
        received = []
        with pytest.raises(MessageError, match="dance"):
            async for message in receiver.messages():
                received.append(message)
    assert received == [Stop()]
    receiver.close()


async def test_a_reply_resolves_its_own_request() -> None:
    replies = PendingReplies[str]()
    (first, one), (second, two) = replies.add(), replies.add()
    assert replies.first() is one
    replies.resolve(second, "b")
    replies.resolve(second, "again")  # the number is unknown now
    replies.resolve(99, "unknown")
    assert (one.done(), await two) == (False, "b")
    replies.resolve(first, "a")
    assert (await one, replies.first()) == ("a", None)


async def test_a_cancelled_request_ignores_its_reply() -> None:
    replies = PendingReplies[str]()
    number, reply = replies.add()
    reply.cancel()
    replies.resolve(number, "late")
    assert reply.cancelled()


async def test_a_request_to_an_end_that_is_gone_is_cancelled() -> None:
    replies = PendingReplies[str]()
    _, before = replies.add()
    replies.close()
    _, after = replies.add()
    for reply in (before, after):
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(reply, 5)


async def test_open_requests_can_be_forgotten() -> None:
    replies = PendingReplies[str]()
    number, forgotten = replies.add()
    replies.forget()
    replies.resolve(number, "late")
    assert (forgotten.done(), replies.first()) == (False, None)
