"""What all processes have to do, in shared memory."""

import os

from service.board import Board


def test_every_process_sees_what_the_others_write() -> None:
    board = Board(3)
    board.write(0, waiting=1, outstanding=2)
    child = os.fork()
    if child == 0:
        board.write(2, waiting=10, outstanding=20)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert (board.waiting(), board.outstanding()) == (11, 22)
    board.write(2, waiting=0, outstanding=0)
    assert (board.waiting(), board.outstanding()) == (1, 2)
