"""A hostile iperf3 server: whatever it says, the client ends with an error in one line, or with a report
that is JSON and can be shown."""

import json
import socket

from fuzzing import Input, instrumented, main, refused

with instrumented():
    from xsk_engine import iperf3control, iperf3protocol, iperf3report
    from xsk_engine.errors import XskError

STREAMS = 2
MOST_BYTES = 64 << 10  # a socket holds them while nobody reads
KEYS = [
    "cpu_util_total", "cpu_util_user", "cpu_util_system", "streams", "id", "bytes", "start_time",
    "end_time", "congestion_used", "sender_has_retransmits",
]  # fmt: skip
NUMBERS = [
    "0", "1", "3", "-1", "1e999", "-1e999", "NaN", "Infinity", "1e308", "9" * 400, "1.5", '"1"', '"x"',
    "null", "true", "[]", "{}", '"\\ud800"', "18446744073709551616",
]  # fmt: skip
WORDS = [f'"{key}":' for key in KEYS] + NUMBERS + ["{", "}", "[", "]", ",", ":", '"', "\\u0000", " "]
OURS = iperf3protocol.Results(
    1.0, 0.5, 0.5, [iperf3protocol.StreamResult(1 << 20, 0, 1.0)] * STREAMS, "cubic"
)
DIALOGUE = [iperf3protocol.PARAM_EXCHANGE, iperf3protocol.CREATE_STREAMS, iperf3protocol.TEST_START,
            iperf3protocol.TEST_RUNNING, iperf3protocol.EXCHANGE_RESULTS]  # fmt: skip


class _Client(socket.socket):
    """One end of a pair that is taken for TCP."""

    def setsockopt(self, *_):
        pass


def _number(given):
    return given.pick(NUMBERS)


def _results(given):
    """Results that a server could have meant, or none."""
    if given.byte() < 64:
        return given.text(WORDS).encode(errors="replace")
    streams = [
        f'{{"id":{number},"bytes":{_number(given)},"start_time":{_number(given)},"end_time":{_number(given)}}}'
        for number in iperf3protocol.stream_ids(STREAMS)
    ]
    cpu = ",".join(f'"{key}":{_number(given)}' for key in KEYS[:3])
    return f'{{{cpu},"streams":[{",".join(streams)}],"congestion_used":{_number(given)}}}'.encode()


def _says(given):
    """Everything that it says, in one go."""
    how = given.byte()
    if how < 32:
        return given.rest()
    said = b"".join(iperf3protocol.state_byte(state) for state in DIALOGUE[: 5 if how < 224 else how % 5])
    if how >= 224:
        return said + given.rest()
    results = _results(given)
    length = len(results) if given.byte() < 240 else given.byte() << 16 | given.byte()
    return (
        said + length.to_bytes(4, "big") + results + iperf3protocol.state_byte(iperf3protocol.DISPLAY_RESULTS)
    )


def _talk():
    control = iperf3control.Control("server", 5201, None, 1.0, b"c" * iperf3protocol.COOKIE_BYTES)
    try:
        for state in DIALOGUE:
            control.expect(state)
            if state == iperf3protocol.PARAM_EXCHANGE:
                control.send_parameters(iperf3protocol.Iperf3Test(streams=STREAMS))
        theirs = control.exchange_results(OURS)
        control.expect(iperf3protocol.DISPLAY_RESULTS)
        control.say(iperf3protocol.IPERF_DONE)
    finally:
        control.close()
    return iperf3report.end([], OURS, theirs)


def _no_constant(text):
    raise AssertionError(f"{text} is no JSON")


def one(data):
    ours, theirs = socket.socketpair()
    client = _Client(fileno=ours.detach())
    with theirs:
        theirs.sendall(_says(Input(data))[:MOST_BYTES])
        theirs.shutdown(socket.SHUT_WR)
        socket.create_connection = lambda *_, **__: client
        report, error = refused(_talk)
    assert error is None or isinstance(error, XskError), repr(error)
    if report is not None:
        json.loads(json.dumps(report), parse_constant=_no_constant)
        assert "\n" not in "".join(iperf3report.end_lines(report))


if __name__ == "__main__":
    main(one)
