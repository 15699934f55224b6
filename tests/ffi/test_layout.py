"""Our ctypes mirrors against what a compiler says: a probe is built from the headers and asked."""

import ctypes
import dataclasses
import ipaddress
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from xsk_engine import edits, payload, replay, steering, tcpinfo
from xsk_engine._ffi import libbpf, libpcap, libxdp, native, nativetcp, uapi
from xsk_engine._ffi.loader import declare, open_library
from xsk_engine.arrivals import Reflected
from xsk_engine.errors import UnavailableError

ROOT = Path(__file__).parents[2]

# What older kernel headers lack, so that the probe compiles with them: (struct, field, Linux version).
NEWER_FIELDS = {("xdp_umem_reg", "tx_metadata_len")}

KERNEL = {
    "xdp_ring_offset": uapi.XdpRingOffset,
    "xdp_mmap_offsets": uapi.XdpMmapOffsets,
    "xdp_umem_reg": uapi.XdpUmemReg,
    "xdp_statistics": uapi.XdpStatistics,
    "xdp_options": uapi.XdpOptions,
    "sockaddr_xdp": uapi.SockaddrXdp,
    "xdp_desc": uapi.XdpDesc,
    "__user_cap_header_struct": uapi.CapUserHeader,
    "__user_cap_data_struct": uapi.CapUserData,
    "sock_fprog": uapi.SockFprog,
}
OURS = {**native.STRUCTS, **nativetcp.STRUCTS}
LIBRARIES = {
    "xsk_umem_config": libxdp.XskUmemConfig,
    "xsk_socket_config": libxdp.XskSocketConfig,
    "bpf_xdp_query_opts": libbpf.BpfXdpQueryOpts,
    "bpf_insn": libbpf.BpfInsn,
    "xsk_ring_prod": native.Ring,
    "xsk_ring_cons": native.Ring,
    "pcap_pkthdr": libpcap.PacketHeader,
}
# Names that C has otherwise.
C_NAMES = {
    ("xsk_socket_config", "libxdp_flags"): "libbpf_flags",
    ("bpf_insn", "registers"): None,  # a bit-field
    ("pcap_pkthdr", "tv_sec"): "ts.tv_sec",
    ("pcap_pkthdr", "tv_usec"): "ts.tv_usec",
    ("bpf_xdp_query_opts", "_padding"): None,
}
CONSTANTS = [
    name
    for name in dir(uapi)
    if name.startswith(("XDP_", "CLONE_", "SO_", "PR_", "AF_XDP", "SOL_", "CAP_", "SECCOMP_", "AUDIT_"))
    # newer than some headers; their values are in uapi.py with the version
    and name not in ("XDP_USE_SG", "XDP_MAX_TX_SKB_BUDGET", "XDP_UMEM_TX_METADATA_LEN")
]


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    compiler = shutil.which("cc") or shutil.which("gcc")
    assert compiler, "make test installs a compiler"
    lines = []
    for name, struct in {**OURS, **KERNEL, **LIBRARIES}.items():
        lines.append(f'printf("\\"{name}\\": {{\\"sizeof\\": %zu", sizeof(struct {name}));')
        for field, *_ in struct._fields_:
            c_name = C_NAMES.get((name, field), field)
            if c_name is not None and (name, field) not in NEWER_FIELDS:
                lines.append(f'printf(", \\"{field}\\": %zu", offsetof(struct {name}, {c_name}));')
        lines.append('printf("},\\n");')
    for name in CONSTANTS:
        lines.append(f'printf("\\"{name}\\": %llu,\\n", (unsigned long long){name});')
    folder = tmp_path_factory.mktemp("probe")
    source = folder / "probe.c"
    source.write_text(
        "#define _GNU_SOURCE\n#include <sched.h>\n#include <stddef.h>\n#include <stdio.h>\n"
        "#include <sys/prctl.h>\n#include <sys/socket.h>\n"
        "#include <linux/audit.h>\n#include <linux/capability.h>\n#include <linux/filter.h>\n"
        "#include <linux/seccomp.h>\n"
        "#include <linux/bpf.h>\n#include <linux/if_xdp.h>\n#include <bpf/libbpf.h>\n#include <xdp/xsk.h>\n"
        "#define PCAP_DONT_INCLUDE_PCAP_BPF_H\n#include <pcap/pcap.h>\n"
        '#include "xske.h"\nint main(void)\n{\nprintf("{");\n'
        + "\n".join(lines)
        + '\nprintf("\\"end\\": 0}");\nreturn 0;\n}\n'
    )
    subprocess.run(
        [compiler, "-std=c11", f"-I{ROOT / 'native'}", str(source), "-o", str(folder / "probe")], check=True
    )
    return json.loads(subprocess.run([folder / "probe"], capture_output=True, check=True).stdout)


@pytest.mark.parametrize("name", [*OURS, *KERNEL, *LIBRARIES])
def test_layout(compiled, name):
    struct = {**OURS, **KERNEL, **LIBRARIES}[name]
    said = compiled[name]
    for field, *_ in struct._fields_:
        if field in said:
            assert getattr(struct, field).offset == said[field], field
    # Where this header is older than the struct, it may end earlier; padding takes the rest.
    if not any(n == name for n, _ in NEWER_FIELDS):
        assert ctypes.sizeof(struct) == said["sizeof"]
    else:
        assert ctypes.sizeof(struct) >= said["sizeof"]


def test_kernel_constants(compiled):
    for name in CONSTANTS:
        assert getattr(uapi, name) == compiled[name], name


def test_abi_constants_are_the_headers():
    header = (ROOT / "native/xske.h").read_text()
    assert f"XSKE_ABI_VERSION {native.ABI_VERSION}u" in header
    for name, value in (
        ("XSKE_LOOP_FAILED", native.LOOP_FAILED),
        ("XSKE_COMMAND_PARK", native.PARK),
        ("XSKE_ENDPOINT_REMOVED", native.ENDPOINT_REMOVED),
        *((f"XSKE_EDIT_{name.upper()}", i) for i, name in enumerate(edits.LAYERS)),
        *((f"XSKE_OVERSIZE_{name.upper()}", i) for i, name in enumerate(replay.OVERSIZE)),
        *((f"XSKE_TCP_{name.upper()}", value) for name, value in nativetcp.CONGESTION.items()),
        *((f"XSKE_TCP_{name.replace('-', '_')}", value) for value, name in enumerate(tcpinfo.STATES)),
    ):
        assert f"{name} = {value}," in header
    for name, value in (
        ("XSKE_CHECK_CSUM_PARTIAL", native.CHECK_CSUM_PARTIAL),
        ("XSKE_CHECK_REFLECTED", native.CHECK_REFLECTED),
        ("XSKE_EDIT_KEEP_GROUP", native.EDIT_KEEP_GROUP),
        ("XSKE_RECEIVER_BUSY_POLL", native.RECEIVER_BUSY_POLL),
        ("XSKE_TRACE_FIX_CHECKSUMS", native.TRACE_FIX_CHECKSUMS),
        ("XSKE_TRACE_WITHOUT_GAPS", native.TRACE_WITHOUT_GAPS),
        ("XSKE_TCP_MULTI_BUFFER", nativetcp.MULTI_BUFFER),
        ("XSKE_TCP_OFFLOAD", nativetcp.OFFLOAD),
        *((f"XSKE_TCP_CONN_{name}", getattr(nativetcp, name)) for name in ("NODELAY", "KEEPALIVE", "PACING")),
        *(
            (f"XSKE_TCP_{name}", getattr(nativetcp, name))
            for name in ("READABLE", "WRITABLE", "CHANGED", "DRAINED")
        ),
    ):
        assert re.search(rf"#define {name}[\s\\]+{value}u", header)


def test_what_is_said_of_a_connection_has_the_headers_names():
    for shown, mirror in ((tcpinfo.TcpInfo, nativetcp.TcpInfo), (tcpinfo.TcpCounters, nativetcp.TcpCounters)):
        assert [field.name for field in dataclasses.fields(shown)] == [name for name, _ in mirror._fields_]
    for value, name in enumerate(tcpinfo.STATES):
        assert getattr(nativetcp, name.replace("-", "_")) == value


def test_the_steering_programs_constants_are_the_headers():
    header = (ROOT / "native/bpf/steer.h").read_text()
    for name, value in (
        ("STEER_BY_SIGNATURE", steering.BY_SIGNATURE),
        ("STEER_BY_PORT", steering.BY_PORT),
        ("STEER_BY_TUPLE", steering.BY_TUPLE),
        ("STEER_REFLECT", steering.REFLECT),
        ("STEER_BY_REFLECTED", steering.BY_REFLECTED),
    ):
        assert f"{name} = {value}," in header
    for name, value in (
        ("STEER_QUEUES", steering.MOST_QUEUES),
        ("STEER_PORTS", steering.MOST_PORTS),
        ("STEER_TUPLES", steering.MOST_TUPLES),
        ("STEER_SIGNATURE_BYTES", payload.SIGNATURE_BYTES),
        ("STEER_MAGIC", hex(payload.MAGIC)),
        ("STEER_REFLECTED_MAGIC", hex(payload.REFLECTED_MAGIC)),
    ):
        assert f"#define {name} {value}\n" in header
    fields = re.findall(r"__u64 (\w+);", header.partition("struct steer_counters")[2])
    assert fields == [field.name for field in dataclasses.fields(Reflected)]
    assert steering._COUNTERS.size == 8 * len(fields)
    check = (ROOT / "native/check.h").read_text()
    assert f"#define SIGNATURE_MAGIC {payload.MAGIC:#x}u" in check
    assert f"#define REFLECTED_MAGIC {payload.REFLECTED_MAGIC:#x}u" in check


# A packet that comes in: port 80 of the second address sends to port 40000 of the first.
TUPLE_PROBE = """
#include <arpa/inet.h>
#include <stdio.h>
#include "bpf/steer.h"
static void show(int family, int words, const char *local, const char *remote, int version)
{
	struct steer_tuple t = {.protocol = IPPROTO_TCP, .version = version};
	inet_pton(family, remote, t.src + 4 - words);
	inet_pton(family, local, t.dst + 4 - words);
	t.src_port = htons(80);
	t.dst_port = htons(40000);
	fwrite(&t, sizeof(t), 1, stdout);
}
int main(void)
{
	show(AF_INET, 1, "10.77.0.2", "192.0.2.1", 4);
	show(AF_INET6, 4, "fd77::2", "2001:db8::1", 6);
	return 0;
}
"""


def test_a_tuple_is_laid_out_as_the_header_says(tmp_path):
    (tmp_path / "tuple.c").write_text(TUPLE_PROBE)
    compiler = shutil.which("cc") or shutil.which("gcc")
    command = [compiler, "-std=gnu11", f"-I{ROOT / 'native'}", str(tmp_path / "tuple.c")]
    subprocess.run([*command, "-o", str(tmp_path / "tuple")], check=True)
    said = subprocess.run([tmp_path / "tuple"], capture_output=True, check=True).stdout
    ends = [("10.77.0.2", "192.0.2.1"), ("fd77::2", "2001:db8::1")]
    four, six = (tuple(map(ipaddress.ip_address, pair)) for pair in ends)
    ours = [steering.Tuple(local, 40000, remote, 80).packed for local, remote in (four, six)]
    assert b"".join(ours) == said


def test_every_exported_function_has_a_signature():
    listed = subprocess.run(
        ["nm", "-D", "--defined-only", native.library_path()], capture_output=True, text=True, check=True
    )
    exported = {line.split()[-1] for line in listed.stdout.splitlines() if "xske_" in line}
    tables = (native._TABLE, native._LONG, native._SHORT, nativetcp.TABLE, nativetcp.SHORT, nativetcp.LONG)
    assert exported == set().union(*tables)


def test_a_missing_library_and_a_missing_symbol_are_named():
    with pytest.raises(UnavailableError, match=r"libnosuch\.so\.9.*apt-get install it"):
        open_library("libnosuch.so.9", "apt-get install it")
    libc = open_library("libc.so.6", "")
    with pytest.raises(UnavailableError, match="no_such_function"):
        declare(libc, "libc", {"no_such_function": ([], ctypes.c_int, None)})
    optional = declare(libc, "libc", {"no_such_function": ([], ctypes.c_int, None)}, optional=True)
    assert optional.no_such_function is None
