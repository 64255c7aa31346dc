import os
import signal

import pytest

import assay.cli
from assay.cli.signals import Interrupts, Stopped, Unwinding


@pytest.fixture(autouse=True)
def _no_signal_is_ignored():
    """Whatever started the tests, such as nohup, may have left one so; as may a test."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_is_noted_and_the_second_stops_at_once(number, capsys):
    before = signal.getsignal(number)
    with Interrupts() as interrupts:
        assert not interrupts.noted()
        os.kill(os.getpid(), number)
        assert interrupts.noted()
        assert interrupts.status == 128 + number
        with pytest.raises(Stopped):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) == before
    assert "once more" in capsys.readouterr().err


def test_a_signal_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # what nohup does
    try:
        with Interrupts() as interrupts:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not interrupts.noted()
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_where_nothing_is_to_be_saved_unwinds_with_its_status(number):
    with Unwinding() as unwinding:
        with pytest.raises(Stopped) as caught:
            os.kill(os.getpid(), number)
        assert caught.value.status == unwinding.status == 128 + number
    assert signal.getsignal(number) == signal.SIG_IGN  # what is left is to end


def test_where_no_signal_came_every_handler_is_what_it_was():
    before = signal.getsignal(signal.SIGTERM)
    with Unwinding():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_first_signal_when_all_is_done_comes_too_late():
    with Unwinding() as unwinding:
        unwinding.done = True
        os.kill(os.getpid(), signal.SIGINT)
        assert unwinding.status == 0
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler


@pytest.mark.parametrize("code", [0, 1])
def test_a_signal_while_main_ends_changes_nothing(monkeypatch, capsys, code):
    def ended():
        raise SystemExit(code)

    class Late(Unwinding):
        def __exit__(self, *how):
            os.kill(os.getpid(), signal.SIGTERM)
            super().__exit__(*how)

    monkeypatch.setattr(assay.cli, "_run_app", ended)
    monkeypatch.setattr(assay.cli, "Unwinding", Late)
    with pytest.raises(SystemExit) as caught:
        assay.cli.main()
    assert caught.value.code == code
    assert capsys.readouterr().err == ""


def test_what_nohup_ignores_does_not_unwind():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Unwinding():
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("made_of_it", [RecursionError, ImportError, SystemExit])
def test_a_signal_that_an_import_made_an_error_of_is_one_sentence(monkeypatch, capsys, made_of_it):
    def swallowed():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except Stopped:
            raise made_of_it from None

    monkeypatch.setattr(assay.cli, "_run_app", swallowed)
    with pytest.raises(SystemExit) as ended:
        assay.cli.main()
    assert ended.value.code == 143
    assert capsys.readouterr().err == "assay: interrupted.\n"
