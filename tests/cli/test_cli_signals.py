import os
import signal

import pytest

from assay.cli.signals import Interrupts


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_is_noted_and_the_second_stops_at_once(number, capsys):
    before = signal.getsignal(number)
    with Interrupts() as interrupts:
        assert not interrupts.noted()
        os.kill(os.getpid(), number)
        assert interrupts.noted()
        assert interrupts.status == 128 + number
        with pytest.raises(KeyboardInterrupt):
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
