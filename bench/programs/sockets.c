/* SPDX-License-Identifier: MIT */
/*
 * The kernel's UDP over many flows: SOCKETS connected sockets, each with a port of its own, that send in turn, one datagram
 * a call, until the program is killed.
 * Usage: sockets ADDRESS PORT CPU SOCKETS PAYLOAD_BYTES.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "common.h"

#define MOST_BYTES 65507u /* of a datagram over IPv4 */

static char payload[MOST_BYTES];

/* An fd for each; the hard limit is not ours to raise. */
static void allow_files(void)
{
	struct rlimit limit;

	check(getrlimit(RLIMIT_NOFILE, &limit), "getrlimit");
	limit.rlim_cur = limit.rlim_max;
	check(setrlimit(RLIMIT_NOFILE, &limit), "setrlimit");
}

int main(int argc, char **argv)
{
	struct sockaddr_in to = {.sin_family = AF_INET};
	size_t count, bytes;
	cpu_set_t cpus;
	int *fds;

	check(argc != 6, "arguments");
	CPU_ZERO(&cpus);
	CPU_SET(atoi(argv[3]), &cpus);
	check(sched_setaffinity(0, sizeof(cpus), &cpus), "sched_setaffinity");
	check(inet_pton(AF_INET, argv[1], &to.sin_addr) != 1, "address");
	to.sin_port = htons((uint16_t)atoi(argv[2]));
	count = (size_t)atoi(argv[4]);
	bytes = (size_t)atoi(argv[5]);
	check(!count || bytes > MOST_BYTES, "arguments");
	fds = calloc(count, sizeof(*fds));
	check(!fds, "calloc");
	allow_files();
	for (size_t i = 0; i < count; i++) {
		fds[i] = socket(AF_INET, SOCK_DGRAM, 0);
		check(fds[i] < 0 || connect(fds[i], (struct sockaddr *)&to, sizeof(to)), "connect");
	}
	for (size_t i = 0;; i = i + 1 < count ? i + 1 : 0)
		check(send(fds[i], payload, bytes, 0) < 0 && errno != ENOBUFS && errno != EAGAIN, "send");
}
