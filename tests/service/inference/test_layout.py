import pytest

from service.inference.layout import WorkerLayout, choose_layout


def layout(milliseconds: float, cores: int, *, is_on_gpu: bool = False) -> WorkerLayout:
    return choose_layout(
        single_image_s=milliseconds / 1000, is_on_gpu=is_on_gpu, cores=cores, processes=None, engine_threads=None
    )


@pytest.mark.parametrize(
    ("milliseconds", "cores", "expected"),
    [
        (20, 2, WorkerLayout(1, 2)),
        (4.5, 2, WorkerLayout(1, 2)),
        (0.7, 2, WorkerLayout(2, 1)),
        (4.5, 16, WorkerLayout(6, 3)),
        (20, 64, WorkerLayout(6, 11)),
        (0.1, 16, WorkerLayout(16, 1)),
    ],
)
def test_so_many_event_loops_that_each_is_busy_a_quarter_of_the_time_at_most(
    milliseconds: float, cores: int, expected: WorkerLayout
) -> None:
    assert layout(milliseconds, cores) == expected


def test_a_gpu_has_one_process() -> None:
    assert layout(0.1, 16, is_on_gpu=True) == WorkerLayout(1, 16)


def test_numbers_that_are_set_stay() -> None:
    chosen = choose_layout(single_image_s=0.0, is_on_gpu=False, cores=4, processes=3, engine_threads=2)
    assert chosen == WorkerLayout(3, 2)
