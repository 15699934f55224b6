"""What readers get of made-up results: tables, a terminal, Markdown, the page, pictures."""

import io
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import pytest
from click.testing import CliRunner
from rich.console import Console

from bench import cli, results, runner
from bench.figures import CPU_PER_PACKET, PPS, value
from bench.ratios import Target
from bench.report import markdown, page, palette, pictures, readme, tables, text, wording, writing
from bench.result import Case

EVIL = "<script>alert('a')</script> & \"b\" | *c* [d](e) `f` $g$ _h_ \x1b[31m"
ENGINE, LIMIT = "engine", "minimal C AF_XDP sender"
needs_matplotlib = pytest.mark.skipif(not pictures.available(), reason="matplotlib is not installed")


def samples(rates):
    return [
        {"packets": n, "seconds": 1, "cpu_user_s": 0.1, "cpu_system_s": 0.2, "cpu_softirq_s": 0.3}
        for n in rates
    ]


def result(name="rate", sizes=(60, 1514), arms=(ENGINE, LIMIT), evil="", bound=0.98, on_axis=True, **more):
    cases = []
    for size in sizes:
        measured = {arm: samples([1e6 + size, 1.1e6 + 10 * n, 0.9e6]) for n, arm in enumerate(arms)}
        case = Case.of(
            f"{size} bytes{evil}",
            measured,
            (PPS, *CPU_PER_PACKET),
            x=size if on_axis else None,
            absent={f"trafgen{evil}": f"not installed{evil}"},
        )
        for arm in arms[1:]:
            case.compare(arms[0], arm, PPS, Target(bound, at_least=True))
        case.aim(f"lost{evil}", 0.5, Target(0.1, at_least=False))
        case.notes.append(f"a remark{evil}")
        cases.append(case.as_json())
    text = {key: f"{key}{evil}" for key in ("title", "question", "held_equal", "not_claimed", "counted_by")}
    return {
        **text,
        "experiment": name,
        "command": f"xsk-engine bench run{evil}",
        "when": f"2026-11-25{evil}",
        "machine": {"cpu": f"A CPU{evil}", "cores": 2, "kernel": "6.18"},
        "versions": {"python": f"3.11{evil}"},
        "scene": {},
        "noisy": [f"other work{evil}"],
        "rounds": 3,
        "figures": {figure.name: figure.as_json() for figure in (PPS, *CPU_PER_PACKET)},
        "picture": None,
        "cases": cases,
        **more,
    }


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (1234567, "1,234,567"),
        (999.6, "1,000"),
        (12.345, "12.3"),
        (1.234, "1.23"),
        (0.0123456, "0.0123"),
        (7, "7"),
        (0, "0"),
        (-1234.5, "-1,234"),
    ],
)
def test_numbers_are_readable(number, shown):
    assert wording.number(number) == shown


def test_a_ratio_reads_on_its_own_side_of_its_target():
    of = {"median": 0.9761, "low": 0.9712, "high": 0.9799}
    assert wording.ratio(of) == "0.98 (0.97 to 0.98)"
    assert wording.ratio(of | {"target": ">= 0.98", "met": False}) == "0.976 (0.971 to 0.980)"
    assert wording.ratio(of | {"target": ">= 0.97", "met": True}) == "0.98 (0.97 to 0.98)"
    assert wording.ratio(of | {"target": "<= 0.97 (aim)", "met": False}) == "0.98 (0.97 to 0.98)"


@pytest.mark.parametrize(
    ("name", "unit", "heading"),
    [
        ("cpu_user_ns_per_packet", "ns/packet", "CPU user, ns/packet"),
        ("pps", "packets/s", "packets/s"),
        ("gbps", "Gbit/s", "Gbit/s"),
        ("dma_maps", "per packet", "DMA maps, per packet"),
        ("latency_p99_us", "us", "latency p99, us"),
        ("gap_error_p99_9_ns", "ns", "gap error p99.9, ns"),
        ("gaps", "", "gaps"),
        ("dma_maps_per_1000", "per 1000 packets", "DMA maps, per 1000 packets"),
        ("kernel_instructions", "instructions/packet", "kernel, instructions/packet"),
        ("packets", "s/GB", "packets, s/GB"),
        ("ns", "ns/operation", "ns/operation"),
        ("idle_cpu_percent", "% of a core", "idle CPU, % of a core"),
    ],
)
def test_headings(name, unit, heading):
    assert wording.heading(name, unit) == heading


def texts(row):
    return [" / ".join(line.text for line in cell) for cell in row.cells]


def test_ratios_whose_rounds_were_not_kept_say_so():
    of = result()
    for name in ("low", "high"):
        del of["cases"][0]["ratios"][0][name]
    assert texts(tables.figures_table(of).rows[1])[-2] == "1.00 (1.00 to 1.00, extremes)"
    median = of["cases"][0]["ratios"][0]["median"]
    assert pictures.bars_of(of["cases"][0], "pps")[1].ratio == (median, median, median)


def test_a_table_has_every_arm_of_every_case():
    table = tables.figures_table(result())
    heads = [head.text for head in table.heads]
    assert heads[:4] == ["case", "arm", "packets/s", "min to max"]
    assert heads[-2:] == ["engine : this (packets/s)", "target"]
    assert [texts(row)[:2] for row in table.rows[:3]] == [
        ["60 bytes", ENGINE],
        ["60 bytes", LIMIT],
        ["60 bytes", "trafgen"],
    ]
    assert texts(table.rows[0])[2:4] == ["1,000,060", "900,000 to 1,100,000"]
    assert re.fullmatch(r"1\.00 \([\d.]+ to [\d.]+\)", texts(table.rows[1])[-2])
    assert texts(table.rows[1])[-1] == ">= 0.98: met"
    assert table.rows[2].absent == "not installed"
    assert [row.begins for row in table.rows] == [True, False, False] * 2


def test_missed_targets_are_told():
    one = tables.section(result(bound=1.5))
    assert texts(one.table.rows[1])[-1] == ">= 1.5: not met"
    assert texts(one.targets.rows[0]) == ["60 bytes", "lost", "0.50", "<= 0.1: not met"]


def test_several_of_ours_are_told_apart():
    of = result(arms=(ENGINE, LIMIT))
    case = of["cases"][0]
    case["ratios"].append({**case["ratios"][0], "ours": "engine, library"})
    table = tables.figures_table(of)
    assert table.heads[-2].text == "ours : this (packets/s)"
    assert [line.text.split(":")[0] for line in table.rows[1].cells[-2]] == [ENGINE, "engine, library"]


def test_who_was_only_compared_has_a_row():
    of = result()
    del of["cases"][0]["arms"][LIMIT]
    row = tables.figures_table(of).rows[1]
    assert texts(row)[1:3] == [LIMIT, ""]
    assert texts(row)[-1] == ">= 0.98: met"


def test_remarks_are_made_once():
    of = result(sizes=(60, 512, 1514))
    assert tables.section(of).notes == ("a remark",)
    of["cases"][0]["notes"].append("another")
    del of["cases"][1]["notes"]
    assert tables.section(of).notes == ("60 bytes; 1514 bytes: a remark", "60 bytes: another")


def test_figures_nobody_has_are_no_columns():
    of = result()
    of["figures"]["never"] = {"unit": "ns", "better": "less", "pooled": False}
    assert not [head for head in tables.figures_table(of).heads if "never" in head.text]


def test_the_order_is_the_registrys_and_loses_nothing():
    found = {name: result(name) for name in ("zz", "pace", "aa", "rate")}
    assert [one["experiment"] for one in tables.in_order(found, ("rate", "loss", "pace"))] == [
        "rate",
        "pace",
        "aa",
        "zz",
    ]


def shown(of, **how):
    console = Console(file=io.StringIO(), **how)
    text.show([of], console)
    return console.file.getvalue()


def test_a_file_gets_whole_lines_and_a_terminal_what_fits():
    wide = shown(result())
    assert "CPU user, ns/packet" in wide
    line = next(line for line in wide.splitlines() if LIMIT in line)
    assert "1,000,060" in line
    assert ">= 0.98: met" in line
    narrow = shown(result(), force_terminal=True, width=90, color_system=None)
    assert "CPU user" not in narrow
    assert "1,000,060" in narrow
    assert max(map(len, narrow.splitlines())) <= 90


def test_a_terminal_obeys_no_result():
    told = shown(result(evil=EVIL + "[bold]"), width=500)
    assert "\x1b" not in told
    assert "[bold]" in told  # as text
    assert "trafgen" in told
    assert "is absent: not installed" in told


def test_markdown_has_what_a_reader_needs():
    of = result(bound=1.5)
    told = markdown.report([of], {"rate": "rate.svg"})
    for needed in (
        "## question",
        "- [question](#rate)",
        '<a id="rate"></a>',
        "![title](rate.svg)",
        "Held equal: held_equal.",
        "Not claimed: not_claimed.",
        "Counted by: counted_by.",
        "**Noisy:** other work.",
        "`xsk-engine bench run`",
        "2026-11-25",
        "A CPU, 2 cores, Linux 6.18",
        "absent: not installed",
        "**>= 1.5: not met**",
        "- a remark",
    ):
        assert needed in told, needed


def test_rows_of_markdown_have_as_many_cells_as_its_head():
    told = markdown.report([result(evil=EVIL)], {})
    cells = [len(re.findall(r"(?<!\\)\|", line)) for line in told.splitlines() if line.startswith("|")]
    assert set(cells[:8]) == {cells[0]}
    assert len(set(cells)) == 2  # figures and targets


def test_markdown_takes_texts_as_texts():
    told = markdown.report([result(evil=EVIL)], {})
    outside = re.sub(r"(`+).*?[^`]\1(?!`)", "", re.sub(r"\\.", "", told))
    assert "<script" not in outside
    assert "[d](e)" not in outside
    assert "\x1b" not in told


def test_code_that_holds_backticks():
    assert markdown.code("a") == "`a`"
    assert markdown.code("a `b` ``c``") == "``` a `b` ``c`` ```"


class Page(HTMLParser):
    """Checks as it reads: everything is closed, nothing is fetched."""

    VOID = {"meta", "br"}

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.ids, self.links, self.text = [], [], [], [], ""

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        self._look(attrs)

    def handle_startendtag(self, tag, attrs):
        self.seen.append(tag)
        self._look(attrs)

    def handle_endtag(self, tag):
        assert self.open, tag
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "style":
            assert "url(" not in data
            assert "@import" not in data
        self.text += data

    def _look(self, attrs):
        for name, given in attrs:
            assert name not in {"src", "srcset", "data", "action", "poster"}
            assert not name.startswith("on")
            if name in {"href", "xlink:href"}:
                assert given.startswith("#")
                self.links.append(given[1:])
            if name == "id":
                self.ids.append(given)
            if "url(" in (given or ""):
                self.links += re.findall(r"url\(#([^)]+)\)", given)
                assert given.count("url(") == given.count("url(#")


def read(html):
    reader = Page()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    assert len(set(reader.ids)) == len(reader.ids)
    assert set(reader.links) <= set(reader.ids)
    return reader


def test_the_page_is_whole_and_its_own():
    drawn = {"rate": '<?xml version="1.0"?>\n<!DOCTYPE svg>\n<svg><g id="x"/></svg>'}
    found = read(page.page([result(), result("pace")], drawn))
    assert found.seen.count("section") == 2
    assert found.seen.count("details") == 4
    assert found.seen.count("svg") == 1
    assert {"rate", "pace"} <= set(found.links)
    for needed in ("1,000,060", "Held equal: held_equal.", "absent: not installed", "Rounds: 60 bytes"):
        assert needed in found.text


def test_the_page_takes_texts_as_texts():
    of = result(evil=EVIL)
    of["cases"][0]["targets"][0]["bound"] += EVIL
    found = read(page.page([of], {}))
    assert "script" not in found.seen
    assert f"<= 0.1{wording.plain(EVIL)}: not met" in found.text
    # Question, in the contents too; the others once; what a case has, for both.
    assert found.text.count("<script>alert('a')</script> & \"b\"") > 20


def test_the_page_says_why_there_are_no_pictures():
    assert markdown.NO_PICTURES in read(page.page([result()], {}, markdown.NO_PICTURES)).text


@needs_matplotlib
@pytest.mark.parametrize(
    "of",
    [
        result(sizes=(60, 512, 1514)),
        result(sizes=(60, 1514)),
        result(sizes=range(60, 83), on_axis=False),
        result(sizes=(60, 512, 1514), evil=EVIL),
        result(sizes=(60,), evil=EVIL),
    ],
    ids=["lines", "bars", "panels", "lines, evil", "bars, evil"],
)
def test_pictures_are_the_same_every_time(of):
    svg = pictures.draw(of)
    assert svg == pictures.draw(json.loads(json.dumps(of)))
    root = ElementTree.fromstring(svg)
    assert not [one for one in root.iter() if one.tag.endswith("script")]
    words = "".join(root.itertext())
    assert LIMIT in words
    assert "packets/s (more is better)" in words
    assert not re.search(r"20\d\d-\d\d-\d\d", svg)
    found = read(
        page.page(
            [of, of | {"experiment": "two"}], {"rate": svg, "two": pictures.draw(of | {"experiment": "two"})}
        )
    )
    assert found.seen.count("svg") == 2
    assert pictures.INK not in page.inline(svg)


@needs_matplotlib
def test_lines_where_cases_stand_on_an_axis():
    lines = pictures.draw(result(sizes=(60, 512, 1514)))
    assert "engine : it" not in lines
    bars = pictures.draw(result(sizes=(60, 512, 1514), on_axis=False))
    assert "engine : it" in bars
    assert palette.OURS in lines
    assert palette.OURS in bars


def test_points_and_bars_are_those_of_the_result():
    of = result(sizes=(1514, 60, 512))
    assert [point[0] for point in pictures.lines_of(of, "pps")[ENGINE]] == [60, 512, 1514]
    assert pictures.lines_of(of, "pps")[ENGINE][0][1:] == (1000060.0, 900000.0, 1100000.0)
    assert pictures.lines_of(result(sizes=(60, 1514)), "pps") == {}
    assert pictures.lines_of(result(sizes=(60, 60, 512)), "pps") == {}
    engine, limit = pictures.bars_of(of["cases"][0], "pps")
    assert (engine.arm, engine.ratio) == (ENGINE, None)
    ratio = of["cases"][0]["ratios"][0]
    assert limit.ratio == (ratio["median"], ratio["low"], ratio["high"])


def test_an_experiment_may_have_another_picture_or_none():
    assert tables.pictured(result()) == "pps"
    assert tables.pictured(result(picture="cpu_user_ns_per_packet")) == "cpu_user_ns_per_packet"
    assert tables.pictured(result(picture="not measured")) == "pps"
    assert pictures.draw(result(picture="")) is None
    assert pictures.draw(result(sizes=())) is None


@pytest.mark.parametrize(
    ("names", "axis"),
    [
        (["60 bytes", "1514 bytes"], "bytes"),
        (["MTU 1500", "MTU 65,535"], "MTU"),
        (["1 flow", "4 flows"], ""),
        (["100 kpps", "1k kpps"], "kpps"),
    ],
)
def test_an_axis_is_named_by_its_cases(names, axis):
    assert pictures.axis_name(names) == axis


def test_arms_have_their_colour():
    assert palette.colour("engine") == palette.colour("engine TCP, no copy") == palette.OURS
    arms = [LIMIT, "kernel TCP", "iperf3", "AF_PACKET TX_RING", "trafgen", "testpmd af_xdp", "scapy", "new"]
    assert palette.OURS not in {palette.colour(arm) for arm in arms}
    assert len({palette.colour(arm) for arm in arms}) == len(arms)


def folder_of(tmp_path, *of):
    for one in of:
        results.write(tmp_path, one)
    return tmp_path


def test_the_command_reports_all_of_a_folder(tmp_path):
    folder = folder_of(tmp_path, result(), result("pace"))
    done = CliRunner().invoke(cli.command, ["report", str(folder)], standalone_mode=False)
    assert done.exception is None
    assert done.output.strip() == str(folder / "report.html")
    assert {"rate", "pace"} <= set(read((folder / "report.html").read_text()).ids)
    for target in re.findall(r"\]\(([^)#]+)\)", (folder / "report.md").read_text()):
        assert (folder / target).exists()


def test_without_matplotlib_there_is_a_report(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "available", lambda: False)
    folder = folder_of(tmp_path, result())
    writing.write(folder, results.load(folder), ())
    assert not list(folder.glob("*.svg"))
    for name in ("report.md", "report.html"):
        assert "matplotlib is not installed" in (folder / name).read_text()


@pytest.mark.parametrize("text", ["{", "[]", '{"experiment": "rate", "cases": [1], "figures": {}}'])
def test_a_folder_with_something_else_is_told(tmp_path, text):
    folder = folder_of(tmp_path, result())
    (folder / "other.json").write_text(text)
    with pytest.raises(ValueError, match=r"other\.json: is no result"):
        results.load(folder)


def test_nothing_is_measured_into_a_folder_that_cannot_be_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "check_programs", lambda: None)
    monkeypatch.setattr(runner, "run", lambda *_: pytest.fail("it was measured"))
    (tmp_path / "other.json").write_text("[]")
    done = CliRunner().invoke(cli.command, ["run", "rate", "--out", str(tmp_path)], standalone_mode=False)
    assert isinstance(done.exception, ValueError)
    assert "other.json: is no result" in str(done.exception)


def test_a_run_prints_its_own_tables_and_reports_all(tmp_path, monkeypatch):
    def run(chosen, _plan, _place, out):
        for name in chosen:
            if name != "goodput":
                results.write(out, result(name))
        return {"goodput": "no root"} if "goodput" in chosen else {}

    monkeypatch.setattr(runner, "check_programs", lambda: None)
    monkeypatch.setattr(runner.os, "geteuid", lambda: 0)  # goodput is for root
    monkeypatch.setattr(runner, "run", run)
    folder = folder_of(tmp_path, result("pace", title="an earlier one"))
    done = CliRunner().invoke(
        cli.command, ["run", "rate", "goodput", "--out", str(folder)], standalone_mode=False
    )
    assert done.return_value == 1  # one of them failed
    assert "title (rate)" in done.output
    assert "an earlier one" not in done.output
    assert done.output.splitlines()[-1] == str(folder / "report.html")
    assert {"rate", "pace"} <= set(read((folder / "report.html").read_text()).ids)


def test_an_empty_folder_is_told(tmp_path):
    with pytest.raises(ValueError, match="holds no results"):
        results.load(tmp_path)


def test_reading_results_loads_no_plotting():
    said = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, bench.cli; print('matplotlib' in sys.modules, 'bench.scene' in sys.modules)",
        ],
        cwd=results.REFERENCE.parents[1],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert said.stdout.split() == ["False", "False"], said.stderr


README = f"# A\n\n{readme.BEGIN}\nold\n{readme.END}\n\nthe rest\n"


def goodput():
    cases = []
    for name in ("MTU 1500: plain", "MTU 1500: GRO", "MTU 9000: plain"):
        rates = {"engine TCP": [1.0, 1.1, 0.9], "kernel TCP": [2.0, 2.2, 1.8]}
        measured = {arm: [{"gbps": n} for n in of] for arm, of in rates.items()}
        case = Case.of(name, measured, [value("gbps", "Gbit/s")])
        case.compare("engine TCP", "kernel TCP", "gbps")
        cases.append(case.as_json())
    figures = {"gbps": {"unit": "Gbit/s", "better": "more", "pooled": False}}
    return result("goodput", sizes=()) | {"cases": cases, "figures": figures}


def premap():
    counts = {
        "engine": (180, 49, 0),
        "kernel TCP, TSO off": (8043, 0, 2033.9),
        "engine, copy": (4745, 49, 1000),
    }
    names = ("kernel_instructions", "user_instructions", "dma_maps_per_1000")
    units = ("per packet", "per packet", "per 1000 packets")
    measured = {arm: [dict(zip(names, of, strict=True))] for arm, of in counts.items()}
    case = Case.of("IOMMU strict", measured, [value(name, "1", "less") for name in names])
    case.compare("engine", "kernel TCP, TSO off", "kernel_instructions")
    figures = {
        name: {"unit": unit, "better": "less", "pooled": False}
        for name, unit in zip(names, units, strict=True)
    }
    return result("premap", sizes=()) | {"cases": [case.as_json()], "figures": figures}


def test_the_readme_says_whose_ratio_it_is_where_there_are_several():
    counts = {"engine TCP": 1122, "engine TCP, in place": 1253, "kernel TCP, TSO on": 634}
    counts["kernel TCP, MSG_ZEROCOPY, TSO on"] = 1031
    names = ("instructions", "kernel_instructions", "dma_maps")
    measured = {arm: [dict.fromkeys(names, n)] for arm, n in counts.items()}
    case = Case.of("GRO", measured, [value(name, "1", "less") for name in names])
    case.compare("engine TCP", "kernel TCP, TSO on", "instructions")
    case.compare("engine TCP, in place", "kernel TCP, MSG_ZEROCOPY, TSO on", "instructions")
    figures = {name: {"unit": "per packet", "better": "less", "pooled": False} for name in names}
    figures["dma_maps"]["unit"] = "per 1000 packets"
    of = result("instructions", sizes=()) | {"cases": [case.as_json()], "figures": figures}
    lines = readme.block({"instructions": of}, "r", has_report=False).splitlines()
    assert "| kernel TCP, TSO on | 634 | 0.63 | engine TCP: 1.77 (1.77 to 1.77) |" in lines
    assert (
        "| kernel TCP, MSG_ZEROCOPY, TSO on | 1,031 | 1.03 | engine TCP, in place: 1.22 (1.22 to 1.22) |"
        in lines
    )
    assert readme.panels({"instructions": of})[0][0] == "instructions, per packet (less is better)"


def test_the_readme_gets_its_block_and_keeps_the_rest():
    once = readme.into(README, "\nnew\n")
    assert once == f"# A\n\n{readme.BEGIN}\n\nnew\n{readme.END}\n\nthe rest\n"
    assert readme.into(once, "\nnew\n") == once
    assert readme.into(once, "") == f"# A\n\n{readme.BEGIN}\n{readme.END}\n\nthe rest\n"


@pytest.mark.parametrize("text", ["", readme.BEGIN, readme.END + readme.BEGIN, README + README])
def test_a_readme_without_its_marks_is_told(text):
    with pytest.raises(ValueError, match="README"):
        readme.into(text, "")


def test_the_readme_shows_losses_as_it_shows_gains():
    found = {"rate": result(arms=(ENGINE, LIMIT, "scapy")), "goodput": goodput(), "premap": premap()}
    block = readme.block(found, "bench/results", has_report=True)
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in block.splitlines() if line[:1] == "|"
    ]
    by_name = {row[0]: row[1:] for row in rows}
    assert [row[1:3] for row in rows if row[0] == ENGINE] == [["1,000,060", ""], ["180 + 49", "0"]]
    assert by_name[LIMIT][1].startswith("1.00 (")
    assert by_name["trafgen"] == ["absent", "", "absent", ""]
    assert by_name["MTU 1500"] == ["1", "2", "0.50 (0.50 to 0.50)", "0.50 (0.50 to 0.50)"]
    assert by_name["MTU 9000"] == ["1", "2", "0.50 (0.50 to 0.50)", ""]
    assert by_name["kernel TCP, TSO off"] == ["8,043 + 0", "2.03", "0.022 (0.022 to 0.022)"]
    assert "engine, copy" not in by_name
    assert {len(row) for row in rows} == {5, 4}
    assert "](bench/results/overview.svg)" in block
    assert "](bench/results/report.md)" in block


@pytest.mark.parametrize("names", [(), ("rate",), ("goodput",), ("premap",), ("goodput", "premap")])
def test_what_has_no_result_is_left_out_of_the_readme(names):
    made = {"rate": result(), "goodput": goodput(), "premap": premap()}
    found = {name: made[name] for name in names} | {"pace": result("pace")}
    block = readme.block(found, "bench/results", has_report=False)
    assert [one in block for one in ("Packets per second", "Goodput", "IOMMU strict")] == [
        one in names for one in made
    ]
    assert bool(block) == bool(names) == bool(readme.panels(found))
    assert "report.md" not in block


def test_the_readmes_picture_is_known_by_its_figures():
    before = {"rate": result(), "pace": result("pace")}
    again = json.loads(json.dumps(before)) | {"live": result("live")}
    assert readme.digest(before) == readme.digest(again)
    again["rate"]["cases"][0]["arms"][ENGINE]["pps"]["median"] += 1
    assert readme.digest(before) != readme.digest(again)


@needs_matplotlib
def test_the_readmes_picture():
    found = {"rate": result(), "goodput": goodput(), "premap": premap()}
    svg = readme.picture(found)
    assert svg == readme.picture(found)
    assert readme.digest(found) in svg
    words = "".join(ElementTree.fromstring(svg).itertext())
    for needed in (LIMIT, "engine TCP", "kernel TCP, TSO off", "Gbit/s (more is better)"):
        assert needed in words
    assert readme.picture({"pace": result("pace")}) is None
