import socket

from deploy.ports import Reservations, free_port, is_free


def test_a_port_on_which_somebody_listens_is_not_free() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        assert not is_free(server.getsockname()[1])


def test_the_remembered_port_comes_before_the_usual_one() -> None:
    usual, remembered = free_port(), free_port()
    assert Reservations().choose(usual, remembered) == remembered


def test_another_installation_does_not_take_a_port_that_is_ours_while_nobody_listens() -> None:
    port = free_port()
    ours, theirs = Reservations(), Reservations()
    assert ours.choose(port) == port
    assert theirs.choose(port) != port
    ours.release()
    assert theirs.take(port)


def test_a_taken_port_gives_way_to_a_free_one() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        taken = server.getsockname()[1]
        chosen = Reservations().choose(taken, taken)
    assert chosen != taken
    assert is_free(chosen)
