"""The picture of a latency histogram: all packets are in it, and nobody has to guess what is written."""

import itertools
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_arrivals import latency

from xsk_engine.arrivals import Latency, bucket_top
from xsk_engine.picture import HEIGHT, WIDTH, bars, latency_svg

# Of a character, of its size; DejaVu Sans, which is wide, has 0.58 on the average of such labels.
ADVANCE = 0.6


def box(element):
    """Where a text is: left, top, right, bottom."""
    x, y, size = (float(element.get(name)) for name in ("x", "y", "font-size"))
    width = len(element.text or "") * size * ADVANCE
    left = x - {"start": 0, "middle": width / 2, "end": width}[element.get("text-anchor")]
    if "rotate(-90" in element.get("transform", ""):
        return (x - size * 0.8, y - width / 2, x + size * 0.2, y + width / 2)
    return (left, y - size * 0.8, left + width, y + size * 0.2)


def apart(one, other):
    return one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]


def checked(figures, title="eth1", subtitle="Linux 6.18, 100 kpps"):
    """The document's texts, after looking at all of it."""
    root = ElementTree.fromstring(latency_svg(figures, title, subtitle))
    drawn = root.findall(".//{*}rect[@data-packets]")
    assert sum(int(bar.get("data-packets")) for bar in drawn) == sum(n for _, n in figures["buckets"])
    for bar in drawn:
        x, y, wide, tall = (float(bar.get(name)) for name in ("x", "y", "width", "height"))
        assert 0 < x < x + wide < WIDTH
        assert 0 < y < y + tall < HEIGHT
        assert wide > 0.5
        assert tall >= 1
    for left, right in itertools.pairwise(drawn):
        assert float(left.get("x")) + float(left.get("width")) <= float(right.get("x")) + 0.01
    texts = [text for text in root.findall("{*}text") if text.text]
    boxes = [box(text) for text in texts]
    for left, top, right, bottom in boxes:
        assert 0 <= left < right <= WIDTH
        assert 0 <= top < bottom <= HEIGHT
    for (one, a), (other, b) in itertools.combinations(zip(texts, boxes, strict=True), 2):
        assert apart(a, b), f"{one.text!r} lies over {other.text!r}"
    # The marks' lines run upright through no label.
    marks = [line for line in root.findall("{*}line") if line.get("stroke-dasharray")]
    for mark, (text, (left, top, right, bottom)) in itertools.product(marks, zip(texts, boxes, strict=True)):
        x, y1, y2 = (float(mark.get(name)) for name in ("x1", "y1", "y2"))
        assert not (left < x < right and y1 < bottom and top < y2), f"a line through {text.text!r}"
    background = root.find("{*}rect")
    assert (background.get("width"), background.get("height")) == (str(WIDTH), str(HEIGHT))
    return [text.text for text in texts]


def labels_of_time(texts):
    return [text for text in texts if re.fullmatch(r"[\d.e+]+ (ns|us|ms|s)", text)]


EXTREMES = {
    "one bucket": [12345] * 7,
    "no time at all": [0],
    "a nanosecond": [1, 1, 2],
    "all buckets": [bucket_top(i) for i in range(656)],
    "an hour among microseconds": [*range(1000, 9000), 3_600_000_000_000],
    "longer than the last bucket": [1, 1 << 62],
    "one at each end": [0, 1 << 43],
    "one far above the others": [*[100] * 100_000, 1_000_000],
}


@pytest.mark.parametrize("values", EXTREMES.values(), ids=EXTREMES)
def test_extremes(values):
    figures = latency(values).as_dict()
    texts = checked(figures)
    assert len(labels_of_time(texts)) >= 2
    for name in ("p50", "p90", "p99", "p99.9", "max"):
        assert sum(text.startswith(f"{name} ") for text in texts) == 1


def test_nothing_at_all():
    texts = checked(Latency().as_dict())
    assert "no packets" in texts
    assert not labels_of_time(texts)


def test_thousands_of_buckets():
    tops = sorted({round(1.005**i) for i in range(6000)})
    figures = latency([1, 2, 3]).as_dict() | {"max_ns": tops[-1], "buckets": [[top, 3] for top in tops]}
    assert len(tops) > 4000
    assert len(bars(figures)) < 300
    checked(figures)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, (1 << 44) - 1), min_size=1, max_size=60))
def test_any(values):
    figures = latency(values).as_dict()
    assert len(labels_of_time(checked(figures))) >= 2
    for value in values:
        assert any(begin <= max(value, 1) < end for begin, end, _ in bars(figures)), value


def test_what_is_written():
    values = [8_000] * 900 + [300_000] * 99 + [7_000_000]
    texts = checked(latency(values).as_dict(), '<eth1> & "others"', "Linux 6.18, 100 kpps")
    assert texts[:2] == ['<eth1> & "others"', "Linux 6.18, 100 kpps"]
    assert {"10 us", "100 us", "1 ms", "max 7 ms", "one-way latency", "50 %"} <= set(texts)


def test_a_title_that_is_too_long_is_cut():
    texts = checked(latency([5000]).as_dict(), "W" * 500, "m" * 500)
    assert texts[0].endswith("W\u2026")
    assert texts[1].endswith("m\u2026")
