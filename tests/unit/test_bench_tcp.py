"""What the TCP experiments make of their measurements: it takes minutes to get some, so they are made up
here."""

import json

import pytest

from bench import machine
from bench.arm import AbsentError
from bench.arms import tcp
from bench.arms.tcp import ENGINE, IPERF3, KERNEL
from bench.experiment import Plan
from bench.experiments import acks, blind, connections, goodput, instructions, loss
from bench.names import (
    ACKS_TCP,
    ACKS_ZEROCOPY,
    ENGINE_TCP,
    ENGINE_TCP_IN_PLACE,
    LENT_TSO_OFF,
    LENT_TSO_ON,
    TSO_OFF,
    TSO_ON,
)
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


COSTS = {
    ENGINE_TCP: (300, 600),
    TSO_OFF: (9000, 0),
    TSO_ON: (750, 0),
    ENGINE_TCP_IN_PLACE: (300, 700),
    LENT_TSO_OFF: (8000, 0),
    LENT_TSO_ON: (800, 200),
}
"""kernel and user instructions per packet"""
FUNCTIONS = {
    "kernel": {"igb_xmit_zc [igb]": 4400, "tcp_ack": 100, "dma_map_phys": 1000, "__schedule": 50},
    "user": {"tcp_post_run": 9000, "xske_tcp_write": 7000, "sum_avx2": 28_000, "libtcp_writer.so": 100},
}


def in_the_machine(counted=True):
    """One traced round and three others, in which everything costs 0, 1 and 2 % more."""
    for sender, (kernel, user) in COSTS.items():
        maps = {"dma_maps": 0, "iommu_maps": 0 if sender.startswith("engine") else 400}
        common = {"arm": sender, "packets": 200, "acks": 4}
        yield common | {"traced": True, "send": maps, "open": {"dma_maps": 1024}}
        for number in range(3):
            one = common | {"traced": False, "packets": 100, "seconds": 2.0}
            if counted:
                one["kernel_instructions"] = kernel * (100 + number)
                one["user_instructions"] = user * (100 + number)
            if counted and number == 2 and sender == ENGINE_TCP:
                one["functions"] = FUNCTIONS
            yield one


def of_instructions(counted=True):
    return instructions.case_of("GRO at the receiver", list(in_the_machine(counted)))


def test_figures_per_packet():
    arms = of_instructions().arms
    assert arms[TSO_OFF]["iommu_maps"]["median"] == 2000
    assert arms[ENGINE_TCP]["iommu_maps"]["median"] == 0
    assert arms[ENGINE_TCP]["kernel_instructions"]["rounds"] == [300, 303, 306]
    assert arms[ENGINE_TCP]["instructions"]["rounds"] == [900, 909, 918]
    assert arms[ENGINE_TCP]["acks"]["median"] == 40


def test_ratios_of_instructions():
    found = {(of["ours"], of["theirs"]): of for of in of_instructions().ratios}
    assert {pair: of["met"] for pair, of in found.items()} == {
        (ENGINE_TCP, TSO_OFF): True,
        (ENGINE_TCP, TSO_ON): False,
        (ENGINE_TCP_IN_PLACE, LENT_TSO_OFF): True,
        (ENGINE_TCP_IN_PLACE, LENT_TSO_ON): True,
    }
    assert found[ENGINE_TCP, TSO_OFF]["median"] == 0.1
    of = found[ENGINE_TCP, TSO_ON]
    assert (of["median"], of["target"]) == (1.2, "<= 1 (aim)")


def test_where_instructions_are():
    found = instructions.where(list(in_the_machine()))
    assert list(found) == [ENGINE_TCP], "of those who said so"
    parts = found[ENGINE_TCP]["parts"]
    assert parts["user: the loop"] == 90
    assert parts["user: the application"] == 351, "its copy, and the checksum over it"
    assert parts["sending: igb, AF_XDP"] == 44
    assert (parts["DMA and IOMMU"], parts["TCP, IP and packets"]) == (10, 1)
    assert parts[instructions.OTHERS] == 0.5
    assert "__schedule" not in found[ENGINE_TCP]["functions"]["kernel"], "less than one per packet"


def test_share_of_an_idle_machine():
    runs = instructions.runs(list(in_the_machine()))
    share = instructions.idle_share(runs, {"seconds": 4, "instructions": 10_000})
    assert share[TSO_OFF] == 50, "2,500 per second, 2 s, 100 packets"


def test_without_the_plugin_no_instructions_are_guessed():
    case = of_instructions(counted=False)
    assert case.ratios == []
    assert case.notes == [machine.UNCOUNTED]
    assert case.arms[TSO_OFF]["dma_maps"]["median"] == 0


def under_loss(row, engine, kernel):
    def runs(*seconds):
        return [{"bytes": 1e6, "seconds": one} for one in seconds]

    samples = {loss.ENGINE: runs(*engine), loss.KERNEL: runs(*kernel), loss.KERNEL_GSO: runs(*kernel)}
    return loss.compared(row, Measured(samples))


def test_goodput_under_loss():
    case = under_loss(loss.ROWS[0], [1, 2, 4], [2, 1, 2])
    assert case.arms[loss.ENGINE]["mbps"]["rounds"] == [8, 4, 2]
    of = case.ratios[0]
    assert (of["theirs"], of["rounds"], of["met"]) == (loss.KERNEL, [2, 0.5, 0.5], False)
    assert [one for one in case.ratios if "target" in one] == [of], "of the kernel without GSO"
    assert loss.ROWS[0].wire in case.notes[0]


def test_without_delay_the_ratio_is_published_only():
    last = loss.ROWS[-1]
    assert "delay" not in last.wire
    assert all("delay" in row.wire for row in loss.ROWS[:-1])
    assert not any("target" in of for of in under_loss(last, [2], [1]).ratios)


def received_acks():
    """One traced round and two others."""
    for receiver, kernel in ((ACKS_ZEROCOPY, 700), (ACKS_TCP, 3500)):
        common = {"arm": receiver, "packets": 100, "seconds": 0.5}
        yield common | {"traced": True, "receive": {"dma_maps": 0, "iommu_maps": 10}}
        for more in (0, 7):
            counts = {"kernel_instructions": 100 * (kernel + more), "user_instructions": 0}
            yield common | {"traced": False, **counts}


def test_acks_are_compared_with_those_of_zero_copy():
    case = acks.case_of("dense", list(received_acks()))
    assert case.arms[ACKS_TCP]["kernel_instructions"]["rounds"] == [3500, 3507]
    assert case.arms[ACKS_TCP]["iommu_maps"]["median"] == 100
    (of,) = case.ratios
    assert (of["ours"], of["theirs"]) == (ACKS_ZEROCOPY, ACKS_TCP)
    assert of["rounds"] == [0.2, 0.201597]


def test_what_no_ack_costs():
    idle = [{"arm": ACKS_TCP, "seconds": 2.0, "kernel_instructions": 4000}]
    share = acks.idle_share(list(received_acks()), idle)
    assert share == {ACKS_TCP: 10}, "2,000 per second, 0.5 s, 100 ACKs"


def test_blind_streams():
    def runs(*gbps):
        return [{"bytes": 1e9, "seconds": 8 / one, "segments": 100, "acks": 50} for one in gbps]

    samples = {blind.BLIND: runs(2, 3), blind.KERNEL: runs(10, 4), blind.KERNEL_PLAIN: runs(4, 4)}
    case = blind.compared(1500, Measured(samples))
    assert case.x == 1500
    assert {of["theirs"]: of["rounds"] for of in case.ratios} == {
        blind.KERNEL: [0.2, 0.75],
        blind.KERNEL_PLAIN: [0.5, 0.75],
    }
    assert case.arms[blind.BLIND]["acks"]["median"] == 0.5
    assert blind.best(case) == {
        f"{blind.BLIND} : {blind.KERNEL}": 0.3,
        f"{blind.BLIND} : {blind.KERNEL_PLAIN}": 0.75,
    }
