"""The flows that the flows experiment sends: they are read again by the parser that `send` has."""

from bench.experiments import flows
from xsk_engine import parse_flow


def test_every_flow_has_a_port_of_its_own(tmp_path):
    lines = flows.flows(tmp_path, 100).read_text().splitlines()
    assert len(lines) == len(set(lines)) == 100
    one, other = parse_flow(lines[0]), parse_flow(lines[99])
    assert one != other
    assert parse_flow(flows.tuples(1)) == one


def test_cases(tmp_path):
    contests = flows.contests_of(tmp_path, flows.FLOWS)
    assert [one.case for one in contests] == [
        "1 flow",
        "100 flows",
        "one flow over 100 5-tuples",
        "10,000 flows",
        "one flow over 10,000 5-tuples",
    ]
    for one in contests:
        assert one.contestants[1].arm == flows.FIXED  # of the two queues it has the other
        assert one.targets == {flows.FIXED: flows.TARGET}


def test_the_rival_of_many_queues_has_its_own():
    queues = flows.EXPERIMENT.laboratories["queues"].queues
    assert queues == max(flows.QUEUES) + 1
