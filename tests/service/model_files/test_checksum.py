"""The checksum detects any change of a model file after its export."""

import onnx
import pytest

from service.inference.classifier import load_classifier
from service.inference.model_checks import ModelCheckFailed
from service.model_files.checksum import CORRUPTED, append_checksum, has_valid_checksum


def test_a_file_with_its_checksum_is_valid_and_one_without_is_not() -> None:
    assert has_valid_checksum(append_checksum(b"model"))
    assert not has_valid_checksum(b"model")
    assert not has_valid_checksum(b"")


def test_every_single_flipped_bit_is_noticed() -> None:
    content = append_checksum(b"weights and card")
    for place in range(len(content)):
        for bit in range(8):
            altered = bytearray(content)
            altered[place] ^= 1 << bit
            assert not has_valid_checksum(bytes(altered)), f"bit {bit} of byte {place}"


def test_every_cut_and_everything_appended_is_noticed() -> None:
    content = append_checksum(b"weights and card")
    assert not any(has_valid_checksum(content[:length]) for length in range(len(content)))
    assert not has_valid_checksum(content + b"\0")


def test_onnx_reads_the_seal_as_metadata_and_writes_the_same_file_again(model_file: bytes) -> None:
    model = onnx.load_from_string(model_file)
    assert [entry.key for entry in model.metadata_props] == ["model_card", "content_sha256"]
    assert model.SerializeToString() == model_file


@pytest.mark.parametrize("place", [100, -200, -30])
def test_a_model_file_with_one_flipped_bit_does_not_serve(model_file: bytes, place: int) -> None:
    altered = bytearray(model_file)
    altered[place] ^= 1
    with pytest.raises(ModelCheckFailed, match=f"the file {CORRUPTED}"):
        load_classifier("tiny", "1", bytes(altered), providers="cpu", max_batch=1)


def test_a_model_file_that_another_program_made_needs_no_seal(model_file: bytes) -> None:
    model = onnx.load_from_string(model_file)
    del model.metadata_props[1:]
    assert load_classifier("tiny", "1", model.SerializeToString(), providers="cpu", max_batch=1).max_batch == 1
