"""What all processes have to do, in shared memory."""

import os

from service.system.shared_counters import SharedLoad


def test_every_process_sees_what_the_others_write() -> None:
    board = SharedLoad(3)
    board.write(0, waiting=1, outstanding=2)
    child = os.fork()
    if child == 0:
        board.write(2, waiting=10, outstanding=20)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert (board.waiting(), board.outstanding()) == (11, 22)
    board.clear(2)
    assert (board.waiting(), board.outstanding()) == (1, 2)


def test_the_fewest_connections_are_those_of_a_process_that_takes_more() -> None:
    board = SharedLoad(3)
    board.note_connections(0, 5)
    board.note_connections(2, 3)
    assert board.fewest_connections() == 3
    board.note_connections(2, None)
    assert board.fewest_connections() == 5
