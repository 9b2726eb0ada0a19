"""Every message survives its encoding, and lines that are no message are refused by name."""

import inspect
from pathlib import Path
from typing import get_args

import pytest

from service.inference.layout import WorkerLayout
from service.model_files.repository import ModelFile, ServingSet, VersionState
from service.processes import messages
from service.processes.messages import Message, MessageError, decode, encode
from service.telemetry.prometheus import Snapshot

FILE = ModelFile("tiny", "1", Path("/models/tiny/1/model.onnx"), "ab" * 32, has_card=True, max_batch=8)
SNAPSHOT = Snapshot(
    counters={"resnet_requests\n/classify": [3], "resnet_queue_seconds\ntiny": [1, 2, 0.25]},
    gauges={"resnet_queue_depth": 1.0},
    models=[["tiny", "1"]],
    last_ms={"tiny:1": 1.5},
)
EXAMPLES: list[Message] = [
    messages.Ping(7),
    messages.Prepare(8, (FILE,)),
    messages.Commit(9, ServingSet("tiny", (FILE,), (VersionState("tiny", "1", "UNAVAILABLE", "it is bad"),))),
    messages.StatisticsReply(10, SNAPSHOT),
    messages.BecomeReady(),
    messages.Stop(),
    messages.StopNow(),
    messages.Loaded(WorkerLayout(2, 1), (FILE,)),
    messages.StartFailure("the key file is empty"),
    messages.Health(11, is_healthy=False, statistics=SNAPSHOT),
    messages.Reply(12, None, {"ab" * 32: 16}),
    messages.Reply(13, "it is bad"),
    messages.StatisticsRequest(14),
    messages.FileAccepted("ab" * 32, has_card=False),
    messages.FileRefused("it is bad"),
]


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: message.kind)
def test_a_message_is_one_line_and_decodes_to_itself(message: Message) -> None:
    line = encode(message)
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    assert decode(line) == message


def test_the_agreed_batch_size_of_a_file_is_kept() -> None:
    decoded = decode(encode(messages.Prepare(1, (FILE,))))
    assert isinstance(decoded, messages.Prepare)
    assert decoded.files[0].max_batch == 8  # equality ignores it
    assert decoded.files[0].path == FILE.path


def test_counts_stay_whole_numbers() -> None:
    decoded = decode(encode(messages.StatisticsReply(1, SNAPSHOT)))
    assert isinstance(decoded, messages.StatisticsReply)
    assert str(decoded.statistics["counters"]["resnet_queue_seconds\ntiny"]) == "[1, 2, 0.25]"


def test_every_message_class_has_an_example_and_a_kind_of_its_own() -> None:
    classes = {each for _, each in inspect.getmembers(messages, inspect.isclass) if hasattr(each, "kind")}
    assert classes == set(get_args(Message)) == {type(example) for example in EXAMPLES}
    assert len({example.kind for example in EXAMPLES}) == len(classes)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"kind":"dance"}', "'dance'"),
        (b'{"number":7}', "kind"),
        (b"not json", "Invalid JSON"),
        (b"[]", "malformed message"),
        (b'{"kind":"ping"}', "ping.number: Field required"),
        (b'{"kind":"ping","number":"7"}', "ping.number: Input should be a valid integer"),
        (b'{"kind":"commit","number":1,"serving_set":{"default":"a","files":[{"name":1}]}}', r"files\.0\.name"),
        (b'{"kind":"health","number":1,"is_healthy":true,"statistics":{"gauges":{}}}', "counters, gauges, models"),
    ],
)
def test_a_line_that_is_no_message_is_refused_with_the_field_that_is_wrong(line: bytes, words: str) -> None:
    with pytest.raises(MessageError, match=words):
        decode(line)


def test_a_refusal_shows_the_beginning_of_a_long_line_only() -> None:
    with pytest.raises(MessageError) as refusal:
        decode(b'{"kind":"ping","number":"%b"}' % (b"7" * 100_000))
    assert len(str(refusal.value)) < 300
