"""Every grammar of a value that an option, an argument or a file may have: refused in one line, or
understood; what can be written again means the same."""

from fuzzing import Input, instrumented, main, refused

with instrumented():
    from xsk_engine import edits, iperf3protocol, packet, payload, sizes, spec, units, values
    from xsk_engine.cli import flow_options, measure, replay, sink
    from xsk_engine.flow import Traffic
    from xsk_engine.lab import wirespec
    from xsk_engine.layers import LAYERS, integer
    from xsk_engine.mixprogram import compile_traffic
    from xsk_engine.resolve import placeholders

NUMBERS = [
    "0", "1", "7", "10", "64", "99", "255", "1000", "1514", "4096", "65535", "65536", "0x40", "0xffffffff",
    "2147483647", "4294967296", "18446744073709551615", "18446744073709551616", "9" * 30, "1.5", "0.001",
    "٣", "-", "+", ".", "e", "_", "/", ",", ":", " ", "nan", "inf", "1e9", "%",
]  # fmt: skip
ADDRESSES = [
    "10.77.0.2", "10.0.0.0/24", "fd77::2", "::", "::ffff:1.2.3.4", "fe80::1%lo", "[::1]", "localhost",
    "02:00:00:00:00:01", "ff-ff-ff-ff-ff-ff", "@", "127.0.0.1",
]  # fmt: skip
UNITS = ["k", "K", "M", "G", "pps", "bps", "bps_l1", "bps_l2", "%", "max", "s", "ms", "us", "x", "B"]
FIELDS = [f"{layer}.{one.name}" for layer, table in LAYERS.items() for one in table.fields]
VALUES = ["random", "(", ")", "sequence", "flow-id", "random(0-9)", "SA", "on", "off", "none"]
SETTINGS = [f" ; {name}=" for name in (*spec.SETTINGS, "@42/4", "@0/8")]
LAYER_WORDS = [f" / {name} " for name in ("ip", *LAYERS)] + [f" {name.split('.')[1]}=" for name in FIELDS]
SIZES = ["imix", "random(", "random(60-1514)", ":", "60-1514", "60:7,590:4"]
PAYLOADS = ["zeros", "text:", "hex:", "pattern", "pattern:", "c0ffee", "random"]
WIRE = [
    f"{name}=" for name in ("drop", "dup", "reorder", "corrupt", "delay", "seed", "direction", "reorder_by")
]


def _same(parse):
    """What it parses can be written, and is the same again."""

    def again(text):
        found = parse(text)
        assert found is None or parse(str(found)) == found, f"{text!r} became {found}"
        return found

    return again


def _flow(text):
    flow = spec.parse_flow(text)
    return compile_traffic(placeholders(Traffic(flow)))


def _without_files(parse):
    def parsed(text):
        return None if "file:" in text or "@" in text else parse(text)

    return parsed


GRAMMARS = [
    (_flow, LAYER_WORDS + SETTINGS + NUMBERS + ADDRESSES + VALUES + SIZES + PAYLOADS + UNITS),
    (_same(units.parse_rate), NUMBERS + UNITS),
    (units.parse_count, NUMBERS + UNITS),
    (units.parse_seconds, NUMBERS + UNITS),
    (lambda text: units.parse_int_list(text, "queue"), NUMBERS),
    (units.parse_address, NUMBERS + ADDRESSES),
    (_without_files(sizes.parse_sizes), SIZES + NUMBERS),
    (_without_files(payload.parse_payload), PAYLOADS + NUMBERS),
    (edits.parse_edit, [f"{name}=" for name in edits.FIELDS] + NUMBERS + ADDRESSES + VALUES),
    (_same(wirespec.parse_wire), WIRE + NUMBERS + UNITS + ["forward", "back", "both", "clean"]),
    (
        lambda text: flow_options._extra_fields((text,)),
        [f"{f}=" for f in FIELDS] + VALUES + NUMBERS + ADDRESSES,
    ),
    (lambda text: values.parse_values(text, integer), VALUES + NUMBERS),
    (packet.parse_mac, ADDRESSES + NUMBERS),
    (iperf3protocol.parse_bytes, NUMBERS + UNITS),
    (replay._speed, NUMBERS + UNITS),
    (replay._loops, NUMBERS),
    (measure._percent, NUMBERS),
    (measure._percents, NUMBERS),
    (measure._tests, list(measure.TESTS) + NUMBERS),
    (measure._address, ADDRESSES),
    (measure._mac, ADDRESSES),
    (measure._sizes, NUMBERS),
    (sink._ports, NUMBERS),
]


def one(data):
    given = Input(data)
    parse, words = given.pick(GRAMMARS)
    refused(parse, given.text(words))


if __name__ == "__main__":
    main(one)
