/* SPDX-License-Identifier: MIT */
/*
 * How long after they were due do packets arrive? An AF_PACKET socket that sees one UDP port, the kernel's receive time of
 * each frame (SO_TIMESTAMPNS), and the signature at its end: sequence, and when its sender took it up.
 * Usage: delays INTERFACE PORT FRAME_BYTES GAP_NS SETTLE_NS; GAP_NS 0: no schedule. Prints "ready"; ends at SIGTERM, with a
 * JSON object: frames, dropped (by this socket), span_ns (first to last), and percentiles of arrival - due and arrival - taken
 * up of the packets that were due SETTLE_NS or more after the first.
 *
 * The kernel begins to stamp all packets a moment after the first socket asks for it (net/core/dev.c, net_enable_timestamp),
 * and until then the stamp is of when the socket is read: SETTLE_NS covers that, too.
 *
 * A packet's due time is that of its sequence on the sender's own schedule: sequence * GAP_NS after a start. No sender takes
 * a packet up before it is due, so the start is the earliest that the times in the packets allow: the least of
 * (taken up - sequence * GAP_NS). One rule for all senders; what the best-timed packet was late by is not in it.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "common.h"

#define MAGIC 0x78736b65u
#define MOST (1u << 22)
#define BATCH 64u
#define BUFFER_BYTES (64 << 20)
/* Between two looks: the stamps are the kernel's, and a reader that is woken for every packet would cost the sender its
 * wake-ups. Longer: more of the buffer is in use at 1 Mpps (768 bytes a packet). */
#define PAUSE_US 1000
#define MOST_BYTES 2048u
#define NSEC_PER_SEC 1000000000ll

struct seen {
	int64_t sequence, taken_up_ns, arrived_ns; /* both CLOCK_TAI */
};

static struct seen *seen;
static size_t frames, bytes;
static int64_t tai_offset_ns;
static atomic_int stopped;

static void stop(int number)
{
	(void)number;
	stopped = 1;
}

static int64_t clock_ns(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (int64_t)t.tv_sec * NSEC_PER_SEC + t.tv_nsec;
}

/* TAI is ahead of UTC by whole seconds, where the kernel was told by how many. */
static int64_t tai_minus_realtime_ns(void)
{
	int64_t difference = clock_ns(CLOCK_TAI) - clock_ns(CLOCK_REALTIME);

	return (difference + NSEC_PER_SEC / 2) / NSEC_PER_SEC * NSEC_PER_SEC;
}

static int open_socket(const char *interface, uint16_t port)
{
	/* IPv4 without options, UDP, to this port: so many bytes of it */
	struct sock_filter code[] = {{0x28, 0, 0, 12},         {0x15, 0, 5, 0x0800}, {0x30, 0, 0, 23},
	                             {0x15, 0, 3, 17},         {0x28, 0, 0, 36},     {0x15, 0, 1, port},
	                             {0x06, 0, 0, MOST_BYTES}, {0x06, 0, 0, 0}};
	struct sock_fprog program = {sizeof(code) / sizeof(*code), code};
	struct sockaddr_ll address = {.sll_family = AF_PACKET,
	                              .sll_protocol = htons(ETH_P_IP),
	                              .sll_ifindex = (int)if_nametoindex(interface)};
	int fd = socket(AF_PACKET, SOCK_RAW, 0), on = 1, size = BUFFER_BYTES;

	check(fd < 0, "socket");
	check(setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)), "SO_ATTACH_FILTER");
	check(setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof(on)), "SO_TIMESTAMPNS");
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)))
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
	check(bind(fd, (struct sockaddr *)&address, sizeof(address)), "bind");
	return fd;
}

static int64_t get(const uint8_t *from, unsigned n)
{
	uint64_t value = 0;

	while (n--)
		value = value << 8 | *from++;
	return (int64_t)value;
}

static void note(const uint8_t *frame, size_t len, struct msghdr *message)
{
	struct cmsghdr *c = CMSG_FIRSTHDR(message);
	struct timespec t;

	if (len < bytes || get(frame + bytes - 24, 4) != MAGIC || !c || c->cmsg_type != SO_TIMESTAMPNS)
		return;
	memcpy(&t, CMSG_DATA(c), sizeof(t));
	seen[frames++] = (struct seen){get(frame + bytes - 16, 8), get(frame + bytes - 8, 8),
	                               (int64_t)t.tv_sec * NSEC_PER_SEC + t.tv_nsec + tai_offset_ns};
}

/* Returns how many there were. */
static int take(int fd)
{
	static uint8_t data[BATCH][MOST_BYTES];
	static char control[BATCH][64];
	struct mmsghdr messages[BATCH];
	struct iovec vectors[BATCH];
	int n;

	memset(messages, 0, sizeof(messages));
	for (unsigned i = 0; i < BATCH; i++) {
		vectors[i] = (struct iovec){data[i], sizeof(data[i])};
		messages[i].msg_hdr = (struct msghdr){.msg_iov = &vectors[i],
		                                      .msg_iovlen = 1,
		                                      .msg_control = control[i],
		                                      .msg_controllen = sizeof(control[i])};
	}
	n = recvmmsg(fd, messages, BATCH, MSG_DONTWAIT, NULL);
	for (int i = 0; i < n && frames < MOST; i++)
		note(data[i], messages[i].msg_len, &messages[i].msg_hdr);
	return n;
}

static int compare(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

static void print(const char *name, int64_t *values, size_t n)
{
	static const struct {
		const char *name;
		double share;
	} shown[] = {{"min", 0}, {"p50", 0.5}, {"p99", 0.99}, {"p99_9", 0.999}, {"max", 1}};

	qsort(values, n, sizeof(*values), compare);
	for (unsigned i = 0; i < sizeof(shown) / sizeof(*shown); i++)
		printf(", \"%s_%s_ns\": %lld", name, shown[i].name,
		       (long long)values[(size_t)((double)(n - 1) * shown[i].share)]);
}

static void judge(double gap_ns, int64_t settle_ns)
{
	int64_t *late = malloc(frames * sizeof(*late)), *posted = malloc(frames * sizeof(*posted));
	int64_t start = INT64_MAX, last = frames ? seen[0].arrived_ns : 0;
	size_t n = 0;

	check(!late || !posted, "malloc");
	for (size_t i = 0; i < frames; i++) {
		int64_t begun = seen[i].taken_up_ns - (int64_t)((double)seen[i].sequence * gap_ns);

		start = begun < start ? begun : start;
		last = seen[i].arrived_ns > last ? seen[i].arrived_ns : last;
	}
	for (size_t i = 0; i < frames; i++) {
		int64_t due = start + (int64_t)((double)seen[i].sequence * gap_ns);

		if (due - start < settle_ns && gap_ns > 0)
			continue;
		late[n] = seen[i].arrived_ns - due;
		posted[n++] = seen[i].arrived_ns - seen[i].taken_up_ns;
	}
	printf(", \"span_ns\": %lld, \"judged\": %zu", (long long)(frames ? last - seen[0].arrived_ns : 0),
	       n);
	if (n) {
		print("due", late, n);
		print("taken_up", posted, n);
	}
}

int main(int argc, char **argv)
{
	struct sigaction action = {.sa_handler = stop};
	struct tpacket_stats stats;
	socklen_t len = sizeof(stats);
	int fd;

	check(argc != 6, "arguments");
	bytes = (size_t)atoi(argv[3]);
	check(bytes < 66 || bytes > MOST_BYTES, "FRAME_BYTES");
	seen = malloc(MOST * sizeof(*seen));
	check(!seen, "malloc");
	tai_offset_ns = tai_minus_realtime_ns();
	sigaction(SIGTERM, &action, NULL);
	alarm(120);
	fd = open_socket(argv[1], (uint16_t)atoi(argv[2]));
	puts("ready");
	fflush(stdout);
	while (!stopped)
		if (take(fd) < (int)BATCH)
			usleep(PAUSE_US);
	while (take(fd) > 0)
		;
	check(getsockopt(fd, SOL_PACKET, PACKET_STATISTICS, &stats, &len), "PACKET_STATISTICS");
	printf("{\"frames\": %zu, \"dropped\": %u", frames, stats.tp_drops);
	judge(atof(argv[4]), atoll(argv[5]));
	puts("}");
	return 0;
}
