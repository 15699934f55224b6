"""`measure` in a laboratory: its report against itself, and against what a wire has counted."""

import contextlib
import json
import os
import signal
import threading

import pytest
from wire import another_lab, cli, start

from xsk_engine.lab.topology import LabOptions
from xsk_engine.lab.wirespec import parse_wire

QUICK = ("--trial", "60ms", "--settle", "60ms", "--warm-up", "60ms", "--resolution", "10%")


@contextlib.contextmanager
def measured_lab(**options):
    """A laboratory of its own, and what a process needs to find its other end."""
    with another_lab(LabOptions(**options)) as lab:
        fds = {"XSK_LAB_TX_FD": lab.lab.tx_fd, "XSK_LAB_RX_FD": lab.lab.rx_fd}
        outer = {name: text for name, text in os.environ.items() if not name.startswith("XSK_LAB_")}
        environment = outer | {name: str(fd) for name, fd in fds.items()}
        yield lab, {"env": environment, "pass_fds": tuple(fds.values())}


def report_of(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def check_against_itself(report):
    trials = report["trials"]
    assert [one["number"] for one in trials] == list(range(len(trials)))
    assert trials[0]["test"] == "warm-up"
    for one in trials:
        assert one["lost_packets"] == one["sent_packets"] - one["received_packets"]
        assert 0 <= one["lost_ratio"] <= 1
        assert one["latency"]["count"] == sum(n for _, n in one["latency"]["buckets"])
        assert one["latency"]["count"] <= one["received_packets"]
        times = [one["latency"][f"{name}_ns"] for name in ("min", "p50", "p90", "p99", "p99_9", "max")]
        assert times == sorted(times)
    for size in report["sizes"]:
        assert trials[size["maximum_trial"]]["size_bytes"] == size["size_bytes"]
        found = size["throughput"]
        if found["passed_trial"] is not None:
            passed = trials[found["passed_trial"]]
            assert passed["reached"]
            assert passed["lost_packets"] == 0
            assert found["pps"] == min(passed["asked_pps"], passed["achieved_pps"]) > 0
        else:
            assert (found["pps"], size["latency"]) == (0, [])
        if found["failed_trial"] is not None:
            failed = trials[found["failed_trial"]]
            assert failed["lost_packets"] or not failed["reached"]
        for entry in size["latency"]:
            asked = trials[entry["trial"]]["asked_pps"]
            assert asked == pytest.approx(found["pps"] * entry["load_percent"] / 100, abs=0.01)
        asked = [trials[number]["asked_pps"] for number in size["loss"]]
        assert asked == sorted(asked, reverse=True)
        burst = size["back_to_back"]
        if burst["passed_trial"] is not None:
            assert trials[burst["passed_trial"]]["sent_packets"] == burst["packets"]
            assert trials[burst["passed_trial"]]["lost_packets"] == 0


def test_all_of_it(wire, tmp_path):
    with measured_lab(mtu=9000) as (_, options):
        report = report_of(cli("measure", "vtx", "vrx", "--size", "60,9014", *QUICK, "--json", **options))
    assert [one["size_bytes"] for one in report["sizes"]] == [66, 9014]
    assert report["notes"] == ["60 bytes became 66: headers and signature need them"]
    assert report["complete"]
    assert report["topology"]["tx"]["driver"] == report["topology"]["rx"]["driver"] == "veth"
    assert report["topology"]["rx"]["namespace"] == "the laboratory's other end"
    assert report["software"]["kernel"] == os.uname().release
    check_against_itself(report)
    # Slow enough for any machine: all of it must have come, with a time of its own.
    with measured_lab() as (_, options):
        slow = ("--rate", "500pps", "--load", "50", "--tests", "latency,loss", "--trial", "200ms")
        report = report_of(cli("measure", "vtx", "vrx", "--size", "124", *QUICK, *slow, "--json", **options))
    (size,) = report["sizes"]
    assert size["most_pps"] == 500
    assert size["back_to_back"] is None
    if size["throughput"]["pps"]:
        (entry,) = size["latency"]
        trial = report["trials"][entry["trial"]]
        assert trial["latency"]["count"] == trial["received_packets"] > 0


@pytest.mark.parametrize("extra", [("--dst-ip", "fd77::2"), ("--method", "packet")])
def test_other_ways(wire, extra):
    with measured_lab() as (_, options):
        asked = ("--size", "60", "--tests", "loss", "--rate", "2kpps", *QUICK, *extra, "--json")
        report = report_of(cli("measure", "vtx", "vrx", *asked, **options))
    assert report["sizes"][0]["size_bytes"] == (86 if "fd77::2" in extra else 66)
    assert any(one["received_packets"] for one in report["trials"])
    if "packet" in extra:
        assert report["topology"]["rx"]["method"] == "packet"


def test_a_wire_that_drops(wire):
    with measured_lab(wire=parse_wire("drop=0.05,seed=1")) as (lab, options):
        # The slowest trial of the search has 500 packets: none is without loss.
        asked = ("--size", "124", *QUICK, "--rate", "20kpps", "--trial", "100ms", "--resolution", "25%")
        report = report_of(cli("measure", "vtx", "vrx", *asked, "--json", **options))
        counts = lab.faults()
    check_against_itself(report)
    (size,) = report["sizes"]
    assert size["throughput"]["pps"] == 0
    assert size["throughput"]["limit"] == "device"
    assert len(size["loss"]) == 10
    curve = [report["trials"][number] for number in size["loss"]]
    sent, lost = (sum(one[f"{name}_packets"] for one in curve) for name in ("sent", "lost"))
    by_others = sum(one["overrun_packets"] + one["sender_dropped_packets"] for one in curve)
    # Half of 5 %: many standard deviations away.
    assert 0.025 * sent < lost - by_others or counts["missed_packets"]
    # All that is missing has been dropped by the wire, which has counted it, or by one of the ends.
    missing = sum(one["lost_packets"] for one in report["trials"])
    excused = sum(one["overrun_packets"] + one["sender_dropped_packets"] for one in report["trials"])
    # The kernels' own packets, which the wire drops, too, are few.
    assert (
        missing
        <= counts["dropped_packets"] + counts["missed_packets"] + counts["send_error_packets"] + excused
    )
    assert missing >= counts["dropped_packets"] - 100
    with measured_lab(wire=parse_wire("drop=0.05,seed=1")) as (_, options):
        loss = ("--loss", "40%", "--tests", "throughput", "--rate", "2kpps")
        report = report_of(cli("measure", "vtx", "vrx", "--size", "124", *QUICK, *loss, "--json", **options))
    assert report["settings"]["allowed_loss_percent"] == 40
    found = report["sizes"][0]["throughput"]
    assert found["pps"] > 0 or found["limit"] == "sender"


def test_a_wire_that_takes_all(wire):
    with measured_lab(wire=parse_wire("drop=1")) as (_, options):
        done = cli("measure", "vtx", "vrx", *QUICK, **options)
    assert done.returncode == 1
    assert "are they connected?" in done.stderr


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_ends_it_with_what_there_is(wire, number, code):
    with measured_lab() as (_, options):
        process = start(
            "measure", "vtx", "vrx", "--size", "124", "--trial", "20s", "--json", "--live", **options
        )
        timer = threading.Timer(30, process.kill)
        timer.start()
        try:
            lines = iter(process.stderr.readline, "")
            assert next(line for line in lines if line.startswith("warm-up"))
            process.send_signal(number)
            out, _ = process.communicate()
        finally:
            timer.cancel()
            process.kill()
            process.wait()
        # Nothing stays attached: the same again, and at once.
        again = cli("measure", "vtx", "vrx", "--size", "124", "--tests", "loss", *QUICK, "--json", **options)
    assert process.returncode == code
    report = json.loads(out)
    assert report["complete"] is False
    assert report["signal"] == number
    assert [one["test"] for one in report["trials"]] == ["warm-up"]
    assert report["sizes"][0]["throughput"] is None
    assert again.returncode == 0, again.stderr


def test_a_picture(wire, tmp_path):
    pytest.importorskip("matplotlib")
    with measured_lab() as (_, options):
        for name, begins in (("m.svg", b"<?xml"), ("m.png", b"\x89PNG")):
            path = tmp_path / name
            asked = ("--size", "124", "--tests", "latency,loss", *QUICK, "--plot", str(path))
            done = cli("measure", "vtx", "vrx", *asked, **options)
            assert done.returncode == 0, done.stderr
            assert "RFC 2544, 26.1" in done.stderr
            assert path.read_bytes().startswith(begins)
        nowhere = cli("measure", "vtx", "vrx", "--plot", "/nonexistent/x.png", **options)
        assert (nowhere.returncode, "/nonexistent" in nowhere.stderr) == (2, True)


def test_what_is_not_there(wire):
    with measured_lab() as (_, options):
        for interfaces, missing in ((("vtx", "nosuch"), "nosuch"), (("nosuch", "vrx"), "nosuch")):
            done = cli("measure", *interfaces, **options)
            assert (done.returncode, len(done.stderr.splitlines())) == (3, 1)
            assert missing in done.stderr
        assert cli("measure", "vtx", "vrx", "--size", "9014", **options).returncode == 2
        outside = {name: text for name, text in options["env"].items() if not name.startswith("XSK_LAB_")}
        assert cli("measure", "vtx", "vrx", env=outside).returncode == 3
