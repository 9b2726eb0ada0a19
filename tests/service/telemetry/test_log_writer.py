"""The log's thread: every line whole, and nobody waits for a slow reader."""

import os

from service.telemetry.log_writer import LogWriter


def read_all(descriptor: int, size: int) -> bytes:
    content = b""
    while len(content) < size and (piece := os.read(descriptor, 65_536)):
        content += piece
    return content


def test_lines_come_out_whole_and_in_order() -> None:
    reader, descriptor = os.pipe()
    writer = LogWriter(descriptor)
    lines = [b"%d %b\n" % (number, b"x" * (number % 300)) for number in range(500)]
    for line in lines:
        writer.put(line)
    assert read_all(reader, sum(map(len, lines))) == b"".join(lines)
    writer.flush()
    assert writer.dropped == 0


def test_a_reader_that_stands_still_costs_lines_but_no_time() -> None:
    reader, descriptor = os.pipe()
    writer = LogWriter(descriptor, most_lines=10)
    for _ in range(1000):  # more than the pipe and the queue hold together
        writer.put(b"x" * 1000 + b"\n")
    assert writer.dropped > 0
    assert read_all(reader, 1001).startswith(b"x" * 1000 + b"\n")


def test_a_reader_that_has_gone_is_no_reason_to_fail() -> None:
    reader, descriptor = os.pipe()
    os.close(reader)
    writer = LogWriter(descriptor)
    writer.put(b"x\n")
    writer.flush()
    writer.put(b"x\n")
    writer.flush()
    assert writer.dropped == 0


def test_a_forked_process_writes_its_own_lines_and_not_its_parents() -> None:
    reader, descriptor = os.pipe()
    writer = LogWriter(descriptor)
    writer.put(b"parent\n")
    writer.flush()
    pid = os.fork()
    if pid == 0:
        writer.put(b"child\n")
        writer.flush()
        os._exit(0)
    os.waitpid(pid, 0)
    assert read_all(reader, 13) == b"parent\nchild\n"
