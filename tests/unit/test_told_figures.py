"""Figures in README's prose are those of bench/results. Its tables are made from them: docs/generate.py."""

import re

import pytest

from bench import results

README = " ".join((results.REFERENCE.parents[1] / "README.md").read_text().split())


@pytest.fixture(scope="module")
def found():
    return results.load(results.REFERENCE)


def case(found, experiment, name):
    (one,) = [case for case in found[experiment]["cases"] if case["name"] == name]
    return one


def median(found, experiment, name, arm, figure):
    return case(found, experiment, name)["arms"][arm][figure]["median"]


def ratio(found, experiment, name, ours, theirs):
    (one,) = [
        of["median"]
        for of in case(found, experiment, name)["ratios"]
        if (of["ours"], of["theirs"]) == (ours, theirs)
    ]
    return one


def told(sentence):
    """The numbers in the README's sentence of this form; # stands for each of them."""
    form = re.escape(sentence).replace(r"\#", r"([\d,.]*\d)")
    match = re.search(form, README)
    assert match, f"README.md does not say: {sentence}"
    return [float(text.replace(",", "")) for text in match.groups()], list(match.groups())


def agree(sentence, *values):
    """Each number is the value, as far as the README writes it out."""
    numbers, texts = told(sentence)
    assert len(numbers) == len(values)
    for number, text, value in zip(numbers, texts, values, strict=True):
        digits = len(text.partition(".")[2])
        assert abs(number - value) <= 0.5000001 * 10**-digits, f"{text} is told, {value} was measured"


TCP, KERNEL, KERNEL_TSO = "engine TCP", "kernel TCP, TSO off", "kernel TCP, TSO on"
PLAIN, MERGING = "plain", "GRO, NAPI thread"


def goodput(found, wire, intake):
    return ratio(found, "goodput", f"MTU {wire}: {intake}", TCP, "kernel TCP")


def test_tcp(found):
    gro = found["instructions"]["cases"][0]["name"]
    ours = median(found, "instructions", gro, TCP, "instructions")
    agree(
        "where the kernel's maps # buffers for every packet, or # with TSO. A packet costs # instructions",
        median(found, "instructions", gro, KERNEL, "dma_maps") / 1000,
        median(found, "instructions", gro, KERNEL_TSO, "dma_maps") / 1000,
        ours,
    )
    agree(
        "# of kernel TCP without segmentation offload, and # of it with TSO",
        ratio(found, "instructions", gro, TCP, KERNEL),
        ratio(found, "instructions", gro, TCP, KERNEL_TSO),
    )
    agree(
        "# of kernel TCP's goodput at MTU 65535, # at 9000 and # at 1500 without TSO, # and # where the "
        "receiver merges (GRO), and # at 1500 with TSO",
        goodput(found, "65535", PLAIN),
        goodput(found, "9000, TSO and GSO off", PLAIN),
        goodput(found, "1500, TSO and GSO off", PLAIN),
        goodput(found, "9000, TSO and GSO off", MERGING),
        goodput(found, "1500, TSO and GSO off", MERGING),
        goodput(found, "1500, TSO on", PLAIN),
    )


def test_mapping_once(found):
    def kernel(arm, iommu="strict"):
        return median(found, "premap", f"IOMMU {iommu}", arm, "kernel_instructions")

    user = median(found, "premap", "IOMMU strict", "engine", "user_instructions")
    agree(
        "executes # instructions, of which # are the IOMMU's share",
        kernel(KERNEL),
        kernel(KERNEL) - kernel(KERNEL, "passthrough"),
    )
    agree(
        "with the offload # maps and # instructions",
        median(found, "premap", "IOMMU strict", KERNEL_TSO, "dma_maps") / 1000,
        kernel(KERNEL_TSO),
    )
    agree("a packet takes # instructions", kernel("engine") + user)
    agree("# in the kernel, within", kernel("engine"))
    agree("can send, and # of its own", user)


def test_our_own_code(found):
    def ns(name):
        return median(found, "micro", f"packet path{name}", "engine", "ns_per_operation")

    agree(
        "# ns per packet from a template, # ns with one field and # with three random ones, and # of what",
        ns(" of a template"),
        ns(", one field"),
        ns(", three random fields"),
        ratio(found, "limit", "60 bytes", "engine", "minimal C AF_XDP sender"),
    )


def test_a_wrong_figure_is_noticed():
    with pytest.raises(AssertionError, match="is told"):
        agree("a packet takes # instructions", 1e6)
    with pytest.raises(AssertionError, match="does not say"):
        agree("there are no such # words", 1)
