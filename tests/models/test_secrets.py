import pytest

from models.secrets import Sealed, SecretUnreadable, key_id, seal, unseal

KEY, OTHER = b"k" * 32, b"o" * 32


def test_a_secret_comes_back_with_its_key_and_binding() -> None:
    assert unseal(KEY, seal(KEY, "pässword", b"org:1"), b"org:1") == "pässword"


def test_the_same_secret_never_looks_the_same() -> None:
    assert seal(KEY, "x", b"b").blob != seal(KEY, "x", b"b").blob


def test_a_secret_copied_to_another_row_does_not_open() -> None:
    with pytest.raises(SecretUnreadable, match="another row"):
        unseal(KEY, seal(KEY, "secret", b"row:1"), b"row:2")


def test_another_key_does_not_open_it() -> None:
    sealed = seal(KEY, "secret", b"b")
    with pytest.raises(SecretUnreadable, match=sealed.key_id):
        unseal(OTHER, sealed, b"b")
    with pytest.raises(SecretUnreadable):
        unseal(OTHER, Sealed(key_id(OTHER), sealed.blob), b"b")


def test_every_changed_byte_is_noticed() -> None:
    sealed = seal(KEY, "secret", b"b")
    for position in range(len(sealed.blob)):
        changed = bytearray(sealed.blob)
        changed[position] ^= 1
        with pytest.raises(SecretUnreadable):
            unseal(KEY, Sealed(sealed.key_id, bytes(changed)), b"b")
    for length in range(len(sealed.blob)):
        with pytest.raises(SecretUnreadable):
            unseal(KEY, Sealed(sealed.key_id, sealed.blob[:length]), b"b")
