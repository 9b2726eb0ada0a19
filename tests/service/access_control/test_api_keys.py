"""API keys: the right ones open, nothing else does, and a wrong file is told by its line."""

import hashlib
from pathlib import Path

import pytest

from service.access_control.api_keys import ApiKeys, BadKeyFile, read_key_file


def hashed(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


@pytest.fixture
def keys(tmp_path: Path) -> ApiKeys:
    file = tmp_path / "keys"
    file.write_text(f"# who may\n\nshop {hashed('one-long-key')}  # since May\nlab\t{hashed('another').upper()}\n")
    return read_key_file(file)


@pytest.mark.parametrize(
    ("headers", "owner"),
    [
        ({b"authorization": b"Bearer one-long-key"}, "shop"),
        ({b"authorization": b"bearer   one-long-key "}, "shop"),
        ({b"x-api-key": b"another"}, "lab"),
        ({b"authorization": b"Basic another"}, None),
        ({b"authorization": b"one-long-key"}, None),
        ({b"x-api-key": b"one-long-ke"}, None),
        ({b"x-api-key": b"one-long-key2"}, None),
        ({b"x-api-key": hashed("another").encode()}, None),
        ({b"x-api-key": b""}, None),
        ({}, None),
    ],
)
def test_only_a_key_itself_opens(keys: ApiKeys, headers: dict[bytes, bytes], owner: str | None) -> None:
    assert keys.owner(headers) == owner


def test_an_empty_key_opens_nothing_even_where_its_hash_is_listed() -> None:
    assert ApiKeys({"nobody": hashlib.sha256(b"").digest()}).owner({b"x-api-key": b""}) is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "holds no key"),
        ("# nothing\n", "holds no key"),
        ("shop plain-key\n", "line 1"),
        (f"shop {hashed('a')}\nshop {hashed('b')}\n", "line 2: the name shop appears twice"),
        (f"shop {hashed('a')} more\n", "line 1"),
    ],
)
def test_a_wrong_file_is_reported_by_its_line_and_not_shown(tmp_path: Path, content: str, words: str) -> None:
    file = tmp_path / "keys"
    file.write_text(content)
    with pytest.raises(BadKeyFile, match=words) as refused:
        read_key_file(file)
    assert "plain-key" not in str(refused.value)


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(BadKeyFile, match="cannot be read"):
        read_key_file(tmp_path / "none")


def test_a_file_that_cannot_be_read_is_reported_with_the_reason(tmp_path: Path) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00")
    endless = tmp_path / "endless"
    endless.symlink_to(endless)
    reasons = {
        tmp_path / "none": "no such file; check the path",
        tmp_path: "it is a folder; name the file in it",
        binary: "it is not text; write a line for each key",
        endless: "check the path and its permissions",
    }
    for path, reason in reasons.items():
        with pytest.raises(BadKeyFile, match=reason):
            read_key_file(path)
