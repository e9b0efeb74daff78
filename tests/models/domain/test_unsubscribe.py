from uuid import UUID

import pytest

from models.domain.unsubscribe import ForgedToken, Unsubscribe, make_token, read_token

KEY = b"k" * 32
ASKED = Unsubscribe(UUID(int=1), UUID(int=2), UUID(int=3), "email", UUID(int=4))


def test_a_token_says_who_what_and_by_which_message() -> None:
    token = make_token(KEY, ASKED)
    assert read_token(KEY, token) == ASKED
    assert len(token) == 110 and token.replace("-", "").replace("_", "").isalnum()


def test_a_token_of_another_installation_is_refused() -> None:
    with pytest.raises(ForgedToken):
        read_token(b"o" * 32, make_token(KEY, ASKED))


def test_every_changed_character_is_noticed() -> None:
    token = make_token(KEY, ASKED)
    for position in range(len(token) - 1):  # the last one holds bits that base64 does not use
        changed = token[:position] + ("A" if token[position] != "A" else "B") + token[position + 1 :]
        with pytest.raises(ForgedToken):
            read_token(KEY, changed)


@pytest.mark.parametrize("token", ["", "x", "preview", "ü", "A" * 110, "=" * 10, "A" * 5000, "\x00"])
def test_nonsense_is_refused(token: str) -> None:
    with pytest.raises(ForgedToken):
        read_token(KEY, token)
