/* SPDX-License-Identifier: MIT */
/*
 * The kernel's senders, paced: every packet has a due time on a fixed schedule, and all that are due go out at once.
 * Usage: paced sendto|sendmmsg|packet INTERFACE CPU PPS SECONDS FRAME. PPS 0: as fast as it goes. FRAME: hex, Ethernet, IPv4
 * without options, UDP; its last 24 bytes are overwritten by a signature (xsk_engine/payload.py): sequence, and the
 * CLOCK_TAI at which this program took the packet up. The sockets of UDP take addresses, ports and payload from it.
 * It busy-waits for each due time and never sleeps: the CPU is its own. What is late is caught up with, without bound.
 * Ends with a JSON object: sent packets.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "common.h"

#define MAGIC 0x78736b65u
#define SIGNATURE_BYTES 24u
#define HEADERS_BYTES 42u
/* Packets of one sendmmsg at most. Fewer: more system calls at full speed; more: the last of a batch waits longer. */
#define BATCH 64u
#define MOST_BYTES 2048u
#define NSEC_PER_SEC 1000000000ull

static uint8_t data[BATCH][MOST_BYTES];
static struct mmsghdr messages[BATCH];
static struct iovec vectors[BATCH];

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * NSEC_PER_SEC + (uint64_t)t.tv_nsec;
}

static void put(uint8_t *to, uint64_t value, unsigned bytes)
{
	while (bytes--) {
		to[bytes] = (uint8_t)value;
		value >>= 8;
	}
}

static void sign(uint8_t *end, uint64_t sequence, uint64_t tai_ns)
{
	put(end - 24, MAGIC, 4);
	put(end - 20, 0, 4);
	put(end - 16, sequence, 8);
	put(end - 8, tai_ns, 8);
}

static int udp_socket(const uint8_t *frame)
{
	struct sockaddr_in from = {.sin_family = AF_INET}, to = {.sin_family = AF_INET};
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	memcpy(&from.sin_addr, frame + 26, 4);
	memcpy(&to.sin_addr, frame + 30, 4);
	memcpy(&to.sin_port, frame + 36, 2);
	check(fd < 0 || bind(fd, (struct sockaddr *)&from, sizeof(from)), "bind");
	check(connect(fd, (struct sockaddr *)&to, sizeof(to)), "connect");
	return fd;
}

static int packet_socket(const char *interface)
{
	struct sockaddr_ll address = {.sll_family = AF_PACKET, .sll_ifindex = (int)if_nametoindex(interface)};
	int fd = socket(AF_PACKET, SOCK_RAW, 0), on = 1; /* protocol 0: it receives nothing */

	check(fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)), "AF_PACKET");
	check(setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &on, sizeof(on)), "PACKET_QDISC_BYPASS");
	return fd;
}

/* All n of them, in order. A full queue is waited for; a packet that the kernel takes and drops is a lost one. */
static void send_all(int fd, unsigned n, int one_by_one)
{
	for (unsigned done = 0; done < n;) {
		int sent = one_by_one ? (int)sendto(fd, vectors[done].iov_base, vectors[done].iov_len, 0,
		                                    NULL, 0)
		                      : sendmmsg(fd, messages + done, n - done, 0);

		check(sent < 0 && errno != ENOBUFS && errno != EAGAIN && errno != EINTR, "send");
		if (sent > 0)
			done += one_by_one ? 1 : (unsigned)sent;
	}
}

static uint64_t run(int fd, int one_by_one, size_t bytes, double pps, double seconds)
{
	uint64_t start = clock_ns(CLOCK_MONOTONIC), end = start + (uint64_t)(seconds * 1e9), sequence = 0;
	double gap_ns = pps > 0 ? 1e9 / pps : 0;
	unsigned most = one_by_one ? 1 : BATCH;

	for (;;) {
		uint64_t now = clock_ns(CLOCK_MONOTONIC), tai;
		unsigned n = 0;

		if (now >= end)
			return sequence;
		tai = clock_ns(CLOCK_TAI);
		for (; n < most && now >= start + (uint64_t)((double)(sequence + n) * gap_ns); n++)
			sign((uint8_t *)vectors[n].iov_base + bytes, sequence + n, tai);
		send_all(fd, n, one_by_one);
		sequence += n;
	}
}

int main(int argc, char **argv)
{
	uint8_t frame[MOST_BYTES];
	unsigned skipped;
	size_t bytes;
	cpu_set_t cpus;
	int packet, fd;

	check(argc != 7, "arguments");
	CPU_ZERO(&cpus);
	CPU_SET(atoi(argv[3]), &cpus);
	check(sched_setaffinity(0, sizeof(cpus), &cpus), "sched_setaffinity");
	bytes = strlen(argv[6]) / 2;
	check(bytes < HEADERS_BYTES + SIGNATURE_BYTES || bytes > sizeof(frame), "frame");
	for (size_t i = 0; i < bytes; i++)
		check(sscanf(argv[6] + 2 * i, "%2hhx", &frame[i]) != 1, "frame");
	packet = !strcmp(argv[1], "packet");
	memset(frame + 40, 0,
	       2); /* RFC 768: no checksum, as the signature changes; the kernel's own has its own */
	skipped = packet ? 0 : HEADERS_BYTES;
	fd = packet ? packet_socket(argv[2]) : udp_socket(frame);
	for (unsigned i = 0; i < BATCH; i++) {
		memcpy(data[i], frame + skipped, bytes - skipped);
		vectors[i] = (struct iovec){data[i], bytes - skipped};
		messages[i].msg_hdr = (struct msghdr){.msg_iov = &vectors[i], .msg_iovlen = 1};
	}
	printf("{\"sent\": %llu}\n", (unsigned long long)run(fd, !strcmp(argv[1], "sendto"), bytes - skipped,
	                                                     atof(argv[4]), atof(argv[5])));
	return 0;
}
