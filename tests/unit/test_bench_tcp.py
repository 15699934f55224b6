"""What bench-tcp makes of its measurements: it takes minutes to get some, so they are made up here."""

import io

import pytest
from rich.console import Console

from bench import tcp, tcp_goodput, tcp_instructions
from bench.ratios import Target, cell, judged, ratio, verdict_cells
from bench.tcp_names import ENGINE, ENGINE_IN_PLACE, KERNEL, KERNEL_LENT, KERNEL_TSO, KERNEL_TSO_LENT
from bench.tcp_names import WITHOUT_GRO as MEASURED_WITHOUT_GRO

COSTS = {
    ENGINE: (300, 600),
    KERNEL: (9000, 0),
    KERNEL_TSO: (750, 0),
    ENGINE_IN_PLACE: (300, 700),
    KERNEL_LENT: (8000, 0),
    KERNEL_TSO_LENT: (800, 200),
}
"""kernel and user instructions per packet"""
FUNCTIONS = {
    "kernel": {"igb_xmit_zc [igb]": 4400, "tcp_ack": 100, "dma_map_phys": 1000, "__schedule": 50},
    "user": {"tcp_post_run": 9000, "xske_tcp_write": 7000, "sum_avx2": 28_000, "libtcp_writer.so": 100},
}


def shown(*tables):
    """As the command prints them."""
    console = Console(width=tcp.COLUMNS, file=io.StringIO())
    console.print(*tables)
    return console.file.getvalue()


def instructions(counted=True):
    """One traced round and three others, in which everything costs 0, 1 and 2 % more."""
    for gro in (True, False):
        for sender, (kernel, user) in COSTS.items():
            if not gro and sender not in MEASURED_WITHOUT_GRO:
                continue
            maps = {"dma_maps": 0, "iommu_maps": 0 if sender.startswith("engine") else 400}
            common = {"sender": sender, "gro": gro, "packets": 200, "acks": 4}
            yield common | {"traced": True, "send": maps, "open": {"dma_maps": 1024}}
            for number in range(3):
                one = common | {"traced": False, "packets": 100}
                if counted:
                    one["kernel_instructions"] = kernel * (100 + number)
                    one["user_instructions"] = user * (100 + number)
                if counted and number == 2 and gro and sender == ENGINE:
                    one["functions"] = FUNCTIONS
                yield one


def by_gro(counted=True):
    return {
        how: tcp_instructions.per_packet([one for one in instructions(counted) if one["gro"] == gro])
        for how, gro in ((tcp_instructions.WITH_GRO, True), (tcp_instructions.WITHOUT_GRO, False))
    }


def test_figures_per_packet():
    figures = by_gro()[tcp_instructions.WITH_GRO]
    assert figures[KERNEL]["per_1000"]["iommu_maps"] == 2000
    assert figures[ENGINE]["per_1000"]["iommu_maps"] == 0
    assert figures[ENGINE]["kernel"] == {"median": 303, "min": 300, "max": 306}
    assert figures[ENGINE]["instructions"] == {"median": 909, "min": 900, "max": 918}
    assert figures[ENGINE]["acks_per_1000"]["median"] == 40


def test_ratios_of_instructions():
    found = tcp_instructions.ratios(by_gro()[tcp_instructions.WITH_GRO])
    assert {pair: of["met"] for pair, of in found.items()} == {
        f"{ENGINE} : {KERNEL}": True,
        f"{ENGINE} : {KERNEL_TSO}": False,
        f"{ENGINE_IN_PLACE} : {KERNEL_LENT}": True,
        f"{ENGINE_IN_PLACE} : {KERNEL_TSO_LENT}": True,
    }
    assert found[f"{ENGINE} : {KERNEL}"]["median"] == 0.1
    assert found[f"{ENGINE} : {KERNEL_TSO}"] == {
        "median": 1.2,
        "min": 1.2,
        "max": 1.2,
        "target": "<= 1 (aim)",
        "met": False,
    }


def test_parts_of_instructions():
    parts = by_gro()[tcp_instructions.WITH_GRO][ENGINE]["parts"]
    assert parts["user: the loop"] == 90
    assert parts["user: the application"] == 351, "its copy, and the checksum over it"
    assert parts["sending: igb, AF_XDP"] == 44
    assert (parts["DMA and IOMMU"], parts["TCP, IP and packets"], parts[tcp_instructions.OTHERS]) == (
        10,
        1,
        0.5,
    )


def test_share_of_an_idle_machine():
    measured = [one | {"seconds": 2.0} for one in instructions() if one["gro"]]
    figures = tcp_instructions.per_packet(measured)
    share = tcp_instructions.idle_share(figures, {"seconds": 4, "instructions": 10_000})
    assert share[KERNEL] == 50, "2,500 per second, 2 s, 100 packets"


def test_tables_of_instructions():
    figures = by_gro()
    text = shown(
        tcp_instructions.cost_table(figures),
        tcp_instructions.ratio_table(figures),
        tcp_instructions.parts_table(figures[tcp_instructions.WITH_GRO]),
    )
    assert "909 (900 to 918)" in text
    assert "0.100 (0.100 to 0.100)" in text
    assert text.count("not met") == 2, "beside TSO, with GRO and without"


def test_without_the_plugin_nothing_is_guessed():
    figures = by_gro(counted=False)
    assert tcp_instructions.ratios(figures[tcp_instructions.WITH_GRO]) == {}
    assert "2,000" in shown(tcp_instructions.cost_table(figures))


def transfers(rates):
    """(ours, theirs) of each round."""
    for receiver, flows in (("plain", 1), ("RPS", 1), ("plain", 4)):
        for ours, theirs in rates:
            yield {
                "receiver": receiver,
                "flows": flows,
                "ours": {"gbps": ours, "cpu_s_per_gb": 0.25, "again": 1},
                "theirs": {"gbps": theirs, "cpu_s_per_gb": 0.5, "again": 0},
            }


def test_goodput_is_compared_round_by_round():
    cells = tcp_goodput.summary(list(transfers([(10, 10), (1, 2), (27, 30)])), Target(0.9, at_least=True))
    assert [(one["receiver"], one["flows"]) for one in cells] == [("plain", 1), ("RPS", 1), ("plain", 4)]
    one = cells[0]
    assert one["gbps"]["theirs"] == {"median": 10, "min": 2, "max": 30}
    assert one["ratio"] == {"median": 0.9, "min": 0.5, "max": 1, "target": ">= 0.9", "met": True}
    assert one["again"] == 3
    assert "target" not in cells[2]["ratio"], "the targets are for one flow"
    missed = tcp_goodput.summary(list(transfers([(8, 10)])), Target(0.9, at_least=True))
    assert not missed[0]["ratio"]["met"]


def test_table_of_goodput():
    rates = [(10.25, 12.5)]
    by_wire = {
        wire: tcp_goodput.summary(list(transfers(rates)), tcp_goodput.TARGETS.get(wire))
        for wire in tcp_goodput.WIRES
    }
    text = shown(tcp_goodput.table(by_wire))
    assert text.count("0.82 (0.82 to 0.82)") == 3 * len(by_wire)
    lines = [line for line in text.splitlines() if "1: " in line]
    met = ["not met" if "not met" in line else "met" if " met" in line else "" for line in lines]
    assert met == ["not met"] * 2 + ["met"] * 4 + [""] * 2


def test_ratio_arithmetic():
    of = ratio([1, 3, 2], [2, 3, 8])
    assert of == {"median": 0.5, "min": 0.25, "max": 1}
    assert cell(of) == "0.50 (0.25 to 1.00)"
    assert verdict_cells(judged(of, None)) == ("", "")
    assert verdict_cells(judged(of, Target(0.5, at_least=False))) == ("<= 0.5", "met")
    assert verdict_cells(judged(of, Target(0.51, at_least=True))) == (">= 0.51", "not met")


@pytest.mark.parametrize(("ours", "theirs"), [([], []), ([1], []), ([1, 2], [1])])
def test_rounds_that_do_not_belong_together(ours, theirs):
    with pytest.raises(ValueError, match="rounds of ours"):
        ratio(ours, theirs)
