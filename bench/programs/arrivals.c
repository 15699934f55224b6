/* SPDX-License-Identifier: MIT */
/*
 * When do frames arrive? An AF_PACKET socket that sees one UDP port, and the kernel's receive time of each frame.
 * Usage: arrivals INTERFACE PORT SECONDS_OF_SILENCE MEAN_GAP_NS; ends after the silence that follows the first frame. Prints
 * a JSON object: frames, dropped, span_ns, and percentiles of |gap - MEAN_GAP_NS|.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "common.h"

#define MOST (1u << 22)
#define BATCH 64u
#define BUFFER_BYTES (64 << 20)
#define PATIENCE_MS 20000

static int64_t *times;
static size_t frames;

static int open_socket(const char *interface, uint16_t port)
{
	/* tcpdump -dd 'udp dst port P' for IPv4 without options */
	struct sock_filter code[] = {{0x28, 0, 0, 12}, {0x15, 0, 5, 0x0800}, {0x30, 0, 0, 23},
	                             {0x15, 0, 3, 17}, {0x28, 0, 0, 36},     {0x15, 0, 1, port},
	                             {0x06, 0, 0, 96}, {0x06, 0, 0, 0}};
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

static void take(int fd)
{
	static char data[BATCH][128], control[BATCH][64];
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
	for (int i = 0; i < n && frames < MOST; i++) {
		struct cmsghdr *c = CMSG_FIRSTHDR(&messages[i].msg_hdr);
		struct timespec t;

		if (!c || c->cmsg_type != SO_TIMESTAMPNS)
			continue;
		memcpy(&t, CMSG_DATA(c), sizeof(t));
		times[frames++] = (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
	}
}

static int compare(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
	struct tpacket_stats stats;
	socklen_t len = sizeof(stats);
	double silence, gap;
	int64_t *errors, span;
	int fd;

	check(argc != 5, "arguments");
	silence = atof(argv[3]);
	gap = atof(argv[4]);
	times = malloc(MOST * sizeof(*times));
	errors = malloc(MOST * sizeof(*errors));
	check(!times || !errors, "malloc");
	fd = open_socket(argv[1], (uint16_t)atoi(argv[2]));
	puts("ready");
	fflush(stdout);
	for (;;) {
		struct pollfd p = {.fd = fd, .events = POLLIN};

		if (poll(&p, 1, frames ? (int)(silence * 1000) : PATIENCE_MS) <= 0)
			break;
		take(fd);
	}
	check(getsockopt(fd, SOL_PACKET, PACKET_STATISTICS, &stats, &len), "PACKET_STATISTICS");
	if (frames < 2) {
		printf("{\"frames\": %zu}\n", frames);
		return 1;
	}
	for (size_t i = 1; i < frames; i++)
		errors[i - 1] = llabs(times[i] - times[i - 1] - (int64_t)gap);
	span = times[frames - 1] - times[0];
	qsort(errors, frames - 1, sizeof(*errors), compare);
	printf("{\"frames\": %zu, \"dropped\": %u, \"span_ns\": %lld, \"p50_ns\": %lld, \"p99_ns\": %lld, \"p99_9_ns\": %lld, "
	       "\"max_ns\": %lld}\n",
	       frames, stats.tp_drops, (long long)span, (long long)errors[(frames - 2) / 2],
	       (long long)errors[(size_t)((double)(frames - 2) * 0.99)],
	       (long long)errors[(size_t)((double)(frames - 2) * 0.999)], (long long)errors[frames - 2]);
	return 0;
}
