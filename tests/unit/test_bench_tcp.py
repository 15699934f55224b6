"""What the TCP experiments make of their measurements: it takes minutes to get some, so they are made up
here."""

import json

import pytest

from bench.arm import AbsentError
from bench.arms import tcp
from bench.arms.tcp import ENGINE, IPERF3, KERNEL
from bench.experiment import Plan
from bench.experiments import connections, goodput
from bench.rounds import Measured


def transfers(*rates):
    """10^9 bytes at these rates."""
    cpu = {"cpu_user_s": 0.25, "cpu_system_s": 0.5, "cpu_softirq_s": 0.0}
    return [{"bytes": 1e9, "seconds": 8 / gbps, **cpu} for gbps in rates]


def of_goodput(wire, ours, theirs):
    samples = {ENGINE: transfers(*ours), KERNEL: transfers(*theirs), IPERF3: transfers(*theirs)}
    return goodput.compared(wire, goodput.PLAIN, Measured(samples, {tcp.KERNEL_LENT: "no memory"}))


def test_goodput_is_compared_round_by_round():
    case = of_goodput("65535", (10, 1, 27), (10, 2, 30))
    kernel, iperf3 = case.ratios
    assert (kernel["theirs"], iperf3["theirs"]) == (KERNEL, IPERF3)
    assert kernel["rounds"] == [1, 0.5, 0.9]
    assert (kernel["median"], kernel["target"], kernel["met"]) == (0.9, ">= 0.9", True)
    assert "target" not in iperf3, "the targets are for the kernel's TCP"
    assert case.absent == {tcp.KERNEL_LENT: "no memory"}
    assert [note.split(":")[0] for note in case.notes] == [IPERF3], "of arms that were measured"


@pytest.mark.parametrize(
    ("wire", "met"),
    [
        ("65535", False),
        ("9000, TSO and GSO off", True),
        ("1500, TSO and GSO off", True),
        ("1500, TSO on", None),
    ],
)
def test_targets_by_wire(wire, met):
    assert of_goodput(wire, [8], [10]).ratios[0].get("met") is met


def test_cpu_time_per_gigabyte():
    of = of_goodput("65535", (10, 10), (10, 10)).arms[ENGINE]
    assert of["cpu_s_per_gb"]["rounds"] == [0.75]
    assert of["cpu_system_s_per_gb"]["median"] == 0.5
    assert "again" not in of, "these did not count it"


def test_what_iperf3s_server_says():
    said = json.dumps({"end": {"sum_received": {"bytes": 1000, "seconds": 0.5}, "sum_sent": {"bytes": 0}}})
    assert tcp.iperf3_sample(said) == {"bytes": 1000, "seconds": 0.5}
    for other in ("", "{}", json.dumps({"error": "interrupt"}), json.dumps({"end": {"sum_received": {}}})):
        with pytest.raises(AbsentError, match="says no result"):
            tcp.iperf3_sample(other)


def test_numbers_of_connections():
    full, quick = Plan(), Plan(quick=True)
    assert connections.counts("65535", full) == (1, 4, 16, 64, 256)
    assert connections.counts("1500, TSO on", full) == (1, 4, 16)
    assert set(connections.counts("65535", quick)) < set(connections.counts("65535", full))
    assert connections.case_name("9000", 1) == "MTU 9000: 1 connection"
