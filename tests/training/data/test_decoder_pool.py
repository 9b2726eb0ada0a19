"""Processes that decode: the same pixels however many there are, one clear line when one dies, none left behind."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.images.preprocessing import image_to_pixels
from tests.support.image_files.images import encoded
from tests.support.image_files.jpeg_trees import write_jpegs
from training.data.crops import CropSpec
from training.data.decoder_pool import Decoders, gathered
from training.data.image_arrays import Streamed
from training.data_files.listing import DataError, Place

HEIC = b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(100)
ROOT = Path(__file__).parents[3]
CENTRE = CropSpec(32, shorter_side=40)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> list[Place]:
    folder = write_jpegs(tmp_path_factory.mktemp("jpegs") / "tree", each=20)
    return [Place(str(path)) for path in sorted(folder.rglob("*.jpg"))]


@contextlib.contextmanager
def decoders(count: int) -> Iterator[Decoders]:
    with contextlib.closing(Decoders(count)) as started:
        yield started


def test_pixels_are_those_of_the_services_decoder(places: list[Place]) -> None:
    with decoders(1) as one:
        images = Streamed(places, CENTRE, one)
        expected = [image_to_pixels(place.read(), shorter_side=40, crop=(32, 32))[0] for place in places]
        np.testing.assert_array_equal(images[:40], expected[:40])
        np.testing.assert_array_equal(images[np.array([59, 3])], [expected[59], expected[3]])
        assert images.shape == (60, 32, 32, 3) and len(images[5:5]) == 0


@pytest.mark.parametrize("crop", ["scale_jitter", "random_resized"])
def test_random_windows_do_not_depend_on_the_number_of_processes(places: list[Place], crop: str) -> None:
    draws = [(7, 3, position) for position in range(len(places))]
    found = []
    for count in (1, 3):
        with decoders(count) as some:
            found.append(gathered(some.submit(places, CropSpec(32, crop, scale_range=(36, 50)), draws), places))
    np.testing.assert_array_equal(*found)


def test_a_part_of_a_plain_tar_is_read_in_place(places: list[Place], tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "some.tar", "w") as tar:
        for place in places[:3]:
            tar.add(place.path)
    with tarfile.open(tmp_path / "some.tar") as tar:
        inside = [Place(str(tmp_path / "some.tar"), member.offset_data, member.size) for member in tar]
    with decoders(1) as one:
        np.testing.assert_array_equal(Streamed(inside, CENTRE, one)[:], Streamed(places[:3], CENTRE, one)[:])


def test_an_undecodable_image_is_reported_by_its_place_and_reason(places: list[Place], tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(Path(places[0].path).read_bytes()[:300])
    mixed = [*places[:20], Place(str(tmp_path / "broken.jpg")), Place(str(tmp_path / "absent.jpg")), places[3]]
    with decoders(2) as two:
        failed = two.looked_through(mixed, CENTRE)[0]
        assert failed.keys() == {20, 21} and "JPEG" in failed[20] and failed[21] == "cannot be read"
        with pytest.raises(DataError, match=r"broken\.jpg could be decoded before .* --resume"):
            gathered(two.submit(mixed, CENTRE), mixed)


def test_a_truncated_jpeg_and_a_huge_one_are_taken_as_the_service_takes_them(
    places: list[Place], tmp_path: Path
) -> None:
    whole = Path(places[0].path).read_bytes()
    large = encoded(Image.new("RGB", (6000, 5000), (10, 150, 90)), "JPEG")
    contents = {"truncated.jpg": whole[:-2], "half.jpg": whole[: len(whole) // 2], "large.jpg": large, "a.heic": HEIC}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    mixed = [Place(str(tmp_path / name)) for name in contents]
    for crop in (CENTRE, CropSpec(32, "random_resized", scale_range=(36, 50))):
        with decoders(1) as one:
            (answer,) = one.submit(mixed, crop, [(7, 3, position) for position in range(len(mixed))])
            decoded = answer.result()
        assert decoded.failed.keys() == {1, 3}
        assert "broken or truncated" in decoded.failed[1] and "this is a HEIC file" in decoded.failed[3]
        assert np.abs(decoded.pixels[1].astype(int) - (10, 150, 90)).max() <= 2
        if crop is CENTRE:
            np.testing.assert_array_equal(decoded.pixels[0], image_to_pixels(whole, shorter_side=40, crop=(32, 32))[0])


def test_a_killed_process_ends_the_wait_with_one_line(places: list[Place]) -> None:
    with decoders(2) as two:
        gathered(two.submit(places[:32], CENTRE), places)
        os.kill(two.pids()[0], signal.SIGKILL)
        with pytest.raises(DataError, match=r"ended by signal 9.*--resume") as caught:
            gathered(two.submit(places * 4, CENTRE), places * 4)
        assert "\n" not in str(caught.value)


def test_a_process_killed_in_the_middle_of_an_answer_is_noticed(places: list[Place]) -> None:
    """The largest answers do not fit a pipe, so that a process that is stopped has one half sent."""
    large = CropSpec(600, shorter_side=600)
    with decoders(1) as one:
        gathered(one.submit(places[:1], CENTRE), places)
        answers = one.submit(places[:16], large)
        os.kill(one.pids()[0], signal.SIGKILL)
        with pytest.raises(DataError, match="signal 9"):
            gathered(answers, places)


def test_closing_ends_all_processes_and_fails_what_is_awaited(places: list[Place]) -> None:
    some = Decoders(2)
    answers = some.submit(places * 10, CropSpec(300, shorter_side=300))
    pids = some.pids()
    some.close()
    assert all(answer.done() for answer in answers)
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


PARENT = """
import sys, time
from tests.training.data.test_decoder_pool import CENTRE
from training.data_files.listing import Place
from training.data.decoder_pool import Decoders, gathered
some = Decoders(2)
places = [Place(path) for path in sys.argv[1:]]
gathered(some.submit(places, CENTRE), places)
print(*some.pids(), flush=True)
some.submit(places * 500, CENTRE)
sys.stdin.read()
"""


def test_processes_end_when_the_one_that_started_them_is_killed(places: list[Place]) -> None:
    command = [sys.executable, "-c", PARENT, *(place.path for place in places)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=environment, text=True, **pipes) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        watched = [os.pidfd_open(pid) for pid in pids]
        parent.kill()
        for handle in watched:
            ready, _, _ = select.select([handle], [], [], 60)  # readable once the process has ended
            os.close(handle)
            assert ready
    assert len(pids) == 2


def test_at_least_one_process_is_needed() -> None:
    with pytest.raises(ValueError, match="not 0"):
        Decoders(0)
