"""What all processes have to do, in shared memory."""

import os

from service.system.shared_counters import SharedLoad


def test_every_process_sees_what_the_others_write() -> None:
    shared_load = SharedLoad(3)
    shared_load.write(0, waiting=1, outstanding=2)
    child = os.fork()
    if child == 0:
        shared_load.write(2, waiting=10, outstanding=20)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert (shared_load.waiting(), shared_load.outstanding()) == (11, 22)
    shared_load.clear(2)
    assert (shared_load.waiting(), shared_load.outstanding()) == (1, 2)


def test_the_fewest_connections_are_those_of_a_process_that_takes_more() -> None:
    shared_load = SharedLoad(3)
    shared_load.note_connections(0, 5)
    shared_load.note_connections(2, 3)
    assert shared_load.fewest_connections() == 3
    shared_load.note_connections(2, None)
    assert shared_load.fewest_connections() == 5
