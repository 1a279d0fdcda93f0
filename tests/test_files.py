"""Files that are whole or not there, and Ctrl-C that waits."""

import os
import signal
import threading
from pathlib import Path

import pytest

from kbl.files import atomic, uninterrupted, write_text

pytestmark = pytest.mark.once


@pytest.fixture(autouse=True)
def interrupts():
    """Leave the process' handler as it was, whatever a test does to it."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_atomic_takes_the_place_of_a_file_at_the_end(tmp_path: Path) -> None:
    file = tmp_path / "a.keras"
    file.write_text("old")
    with atomic(file) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".keras"
        temporary.write_text("new")
        assert file.read_text() == "old"
    assert file.read_text() == "new"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_atomic_leaves_the_old_file_when_something_fails(tmp_path: Path, error) -> None:
    file = tmp_path / "a.csv"
    file.write_text("old")

    def fail() -> None:
        with atomic(file) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_atomic_needs_something_written(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic(tmp_path / "a"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_write_text_is_utf8(tmp_path: Path) -> None:
    write_text(tmp_path / "a.toml", "ε = 0.1\n")
    assert (tmp_path / "a.toml").read_bytes() == "ε = 0.1\n".encode()


def test_ctrl_c_waits() -> None:
    done = []

    def write() -> None:
        with uninterrupted():
            interrupt()
            interrupt()
            done.append("written")

    with pytest.raises(KeyboardInterrupt):
        write()
    assert done == ["written"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_nothing_happens_without_ctrl_c() -> None:
    with uninterrupted():
        pass
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_error_in_the_block_gets_through() -> None:
    with pytest.raises(OSError, match="full"), uninterrupted():
        raise OSError("the disk is full")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_that_was_ignored_stays_ignored() -> None:
    """A run started in the background of a shell script ignores it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with uninterrupted():
        interrupt()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_a_callers_own_handler_is_called() -> None:
    caught = []
    signal.signal(signal.SIGINT, lambda number, frame: caught.append(number))
    with uninterrupted():
        interrupt()
        assert caught == []
    assert caught == [signal.SIGINT]


def test_other_threads_have_no_signals_to_hold_back() -> None:
    done = []

    def work() -> None:
        with uninterrupted():
            done.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [signal.default_int_handler]
