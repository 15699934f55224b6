"""The searches of RFC 2544 with devices and senders that are known, and what is told of them."""

import json
import os
import random
import sys
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xsk_engine import measureplot, measurereport
from xsk_engine.arrivals import Latency
from xsk_engine.errors import BrokenError, UnavailableError
from xsk_engine.flowprogram import compile_flow
from xsk_engine.payload import MAGIC
from xsk_engine.rfc2544 import (
    SizeResult,
    Trial,
    fitting_sizes,
    loss_curve,
    search_burst,
    search_throughput,
)
from xsk_engine.spec import parse_flow

NOTHING = Fraction(0)


class Fake:
    """A device that loses what is above `limit` packets per second, or behind the first `room` packets of a
    burst; a sender that makes `fastest` packets per second at most. Keeps the trials."""

    def __init__(self, limit=None, *, fastest=None, room=None, lose=None, overrun=False):
        self.limit, self.fastest, self.room, self.lose, self.overrun = limit, fastest, room, lose, overrun
        self.trials = []

    def rate(self, pps):
        achieved = min(pps, self.fastest or pps)
        sent = 1_000_000
        lost = 0
        if self.limit is not None and achieved > self.limit:
            lost = max(round(sent * (1 - self.limit / achieved)), 1)
        return self._keep(pps, achieved, sent, lost + (self.lose(sent) if self.lose else 0))

    def burst(self, packets):
        lost = 0 if self.room is None else max(packets - self.room, 0)
        return self._keep(None, 1e6, packets, lost)

    def _keep(self, asked, achieved, sent, lost):
        one = Trial(
            len(self.trials),
            "fake",
            60,
            asked,
            achieved,
            sent,
            sent - min(lost, sent),
            1.0,
            overrun_packets=lost if self.overrun else 0,
        )
        self.trials.append(one)
        return one


def search(device, most=1_000_000, allowed=NOTHING, resolution=0.01):
    return search_throughput(device.rate, most, allowed=allowed, resolution=resolution)


@given(
    most=st.floats(1, 1e8),
    part=st.floats(0.0, 1.5),
    resolution=st.floats(0.001, 0.5),
)
def test_it_converges_from_below(most, part, resolution):
    device = Fake(most * part)
    found = search(device, most, resolution=resolution)
    assert found.pps <= device.limit or found.pps == 0
    if part >= 1:
        assert (found.pps, found.limit, len(device.trials)) == (most, "maximum", 1)
        return
    assert found.pps >= device.limit - resolution * most - 1e-6 * most
    assert found.failed.asked_pps > found.pps
    assert found.limit == "device"
    assert len(device.trials) <= 12


@given(seed=st.integers(0, 10_000), chance=st.floats(0, 1), resolution=st.floats(0.005, 0.5))
def test_no_rate_is_claimed_that_failed(seed, chance, resolution):
    """A device that loses now and then, whatever the rate."""
    draw = random.Random(seed)
    device = Fake(600_000, lose=lambda sent: draw.random() < chance)
    found = search(device, resolution=resolution)
    passed = [one for one in device.trials if one.lost_packets == 0]
    failed = [one for one in device.trials if one.lost_packets]
    if not found.pps:
        assert not passed
        assert found.passed is None
        return
    assert found.passed in passed
    assert found.passed.asked_pps == found.pps == max(one.asked_pps for one in passed)
    assert found.pps not in {one.asked_pps for one in failed}
    assert found.failed.asked_pps == min(one.asked_pps for one in failed if one.asked_pps > found.pps)


def test_always_and_never():
    always = Fake(lose=lambda sent: 1)
    found = search(always)
    assert (found.pps, found.passed, found.limit) == (0, None, "device")
    assert always.trials[-1].asked_pps <= 20_000
    never = Fake()
    assert (search(never).pps, len(never.trials)) == (1_000_000, 1)


@given(fastest=st.floats(10_000, 980_000))
def test_a_sender_that_cannot(fastest):
    device = Fake(fastest=fastest)
    found = search(device)
    assert found.pps <= fastest
    assert found.pps >= fastest - 10_001
    assert found.limit == "sender"
    assert all(one.reached == (one.asked_pps * 0.99 <= fastest) for one in device.trials)


def test_a_spoilt_trial_is_repeated():
    """The device's own loss is not; the sender's and the sink's is, twice."""
    pauses = iter([True, True, False])

    class Hiccups(Fake):
        def rate(self, pps):
            self.fastest = pps / 2 if next(pauses, False) else None
            return super().rate(pps)

    device = Hiccups(2_000_000)
    found = search(device)
    assert (found.pps, found.passed.number, len(device.trials)) == (1_000_000, 2, 3)
    sink = Fake(999_999, overrun=True)
    assert search(sink, resolution=0.5).limit == "sink"
    assert [one.asked_pps for one in sink.trials] == [1_000_000] * 3 + [500_000]
    lossy = Fake(999_999)
    assert search(lossy, resolution=0.5).limit == "device"
    assert [one.asked_pps for one in lossy.trials] == [1_000_000, 500_000]


def test_whose_fault():
    assert search(Fake(400_000, overrun=True)).limit == "sink"
    assert search(Fake(400_000)).limit == "device"
    # slow and lossy: the loss is what keeps it from passing
    slow = Trial(0, "x", 60, 100.0, 50.0, 1000, 900, 1.0)
    assert (slow.fault(), slow.passes()) == ("device", False)
    partly = Trial(0, "x", 60, 100.0, 100.0, 1000, 900, 1.0, overrun_packets=99)
    assert partly.fault() == "device"
    assert partly.fault(Fraction(1, 1000)) == "sink"
    nothing = Trial(0, "x", 60, 100.0, 0.0, 0, 0, 1.0)
    assert (nothing.fault(), nothing.passes(), nothing.lost_ratio) == ("sender", False, 0)


def test_some_loss_may_be_allowed():
    device = Fake(lose=lambda sent: 1000)
    assert search(device, allowed=Fraction(1, 1000)).pps == 1_000_000
    assert search(device, allowed=Fraction(999, 1_000_000)).pps == 0


@given(room=st.integers(0, 10**7), most=st.integers(1, 10**7), resolution=st.floats(0.001, 0.5))
def test_bursts(room, most, resolution):
    device = Fake(room=room)
    found = search_burst(device.burst, most, resolution=resolution)
    if room >= most:
        assert (found.packets, found.failed) == (most, None)
        return
    assert found.packets <= room
    assert room - found.packets <= max(1, resolution * found.packets)
    assert found.failed.sent_packets > room
    assert (found.passed is None) == (found.packets == 0)
    assert len(device.trials) < 40


def rates(device, most=1000):
    found = []
    loss_curve(device.rate, most, found)
    return [round(one.asked_pps) for one in found]


def test_loss_curve():
    assert rates(Fake()) == [1000, 900]
    assert rates(Fake(750)) == [1000, 900, 800, 700, 600]
    assert rates(Fake(lose=lambda sent: 1)) == [*range(1000, 0, -100)]
    # a rate that was not reached says nothing of the device
    assert rates(Fake(fastest=850)) == [1000, 900, 800, 700]
    draw = iter([0, 1, 0, 1, 0, 0, 0])
    assert rates(Fake(lose=lambda sent: next(draw))) == [1000, 900, 800, 700, 600, 500]


@pytest.mark.parametrize(("most", "resolution"), [(0, 0.1), (-1, 0.1), (float("nan"), 0.1), (5, 0), (5, 2)])
def test_what_cannot_be_searched(most, resolution):
    with pytest.raises(ValueError, match=r"maximum|resolution"):
        search(Fake(), most, resolution=resolution)
    with pytest.raises(ValueError, match=r"maximum|resolution"):
        search_burst(Fake().burst, most, resolution=resolution)


def test_sizes():
    assert fitting_sizes((60, 124, 1514), 66, 1514) == (
        [66, 124, 1514],
        ["60 bytes became 66: headers and signature need them"],
    )
    sizes, said = fitting_sizes((9014, 60, 66, 66), 66, 1514)
    assert sizes == [66]
    assert len(said) == 2
    assert "9014 bytes are left out" in said[1]
    with pytest.raises(ValueError, match="MTU"):
        fitting_sizes((9014,), 66, 1514)


def test_the_report_is_of_what_was_found():
    device = Fake(400_000, overrun=True)
    result = SizeResult(60, maximum=device.rate(900_000), most_pps=900_000)
    result.throughput = search(device, 900_000)
    result.latency.append((50.0, device.rate(result.throughput.pps / 2)))
    loss_curve(device.rate, 900_000, result.loss)
    unfinished = SizeResult(124)
    report = measurereport.as_json(
        sizes=[result, unfinished],
        trials=device.trials,
        notes=["a note"],
        topology={"tx": {"interface": "a"}, "rx": {"interface": "b"}},
        latency_kind="round-trip",
        settings={"allowed_loss_percent": 0.0},
        software={},
        duration_s=1.5,
        signal=2,
        error=None,
    )
    assert json.loads(json.dumps(report)) == report
    assert report["complete"] is False
    found = report["sizes"][0]["throughput"]
    assert found["bps_l2"] == found["pps"] * 480
    assert found["bps_l1"] == found["pps"] * 84 * 8
    assert report["trials"][found["passed_trial"]]["lost_packets"] == 0
    assert report["trials"][found["failed_trial"]]["lost_packets"] > 0
    assert report["sizes"][1]["throughput"] is report["sizes"][1]["back_to_back"] is None
    text = measurereport.as_text(report)
    for words in ("a note", "26.1", "Round-trip latency, of", "26.3", "sink itself lost", "ended early"):
        assert words in text
    assert "26.4" not in text


def test_a_line_per_trial():
    line = measurereport.trial_line(
        Trial(3, "loss", 60, 1000.0, 900.0, 300, 290, 0.3, overrun_packets=4, latency=Latency())
    )
    for words in ("loss", "10 lost", "4 of them by the sink", "not reached"):
        assert words in line


def test_no_picture_without_matplotlib(monkeypatch):
    monkeypatch.setattr(measureplot.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UnavailableError, match=r"matplotlib is not installed.*bench"):
        measureplot.check("x.png")


def test_what_matplotlib_cannot_draw_leaves_the_picture_that_was_there(monkeypatch, tmp_path):
    """And its settings are not looked for in the current directory, which may be anybody's."""
    text = "import os; raise RuntimeError(f'imported in {os.getcwd()}')"
    (tmp_path / "matplotlib.py").write_text(text)
    (tmp_path / "there").write_bytes(b"the last picture")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "matplotlib", raising=False)
    with (
        open("there", "r+b") as file,
        pytest.raises(BrokenError, match=r"plot\(svg\): RuntimeError\('imported in /'\)"),
    ):
        measureplot.draw({}, file, "svg")
    assert os.getcwd() == str(tmp_path)
    assert (tmp_path / "there").read_bytes() == b"the last picture"


def test_a_flow_id_of_its_own():
    """What a trial's packets are known by."""
    flow = replace(parse_flow("eth dst=02:77:00:00:00:02 / ip dst=10.77.0.2 / udp"), signature=True)

    def id_of(flow):
        (patch,) = (one for one in compile_flow(flow, flow_id=3).patches if one.base >> 32 == MAGIC)
        return patch.base & 0xFFFFFFFF

    assert id_of(flow) == 3
    assert id_of(replace(flow, signature_id=77)) == 77
    for wrong in (-1, 1 << 32):
        with pytest.raises(ValueError, match="flow id"):
            id_of(replace(flow, signature_id=wrong))
