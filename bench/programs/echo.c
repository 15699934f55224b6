/* SPDX-License-Identifier: MIT */
/*
 * Round trips of the kernel's UDP, which tell what a load on the same wire does to others.
 * Usage: echo serve ADDRESS PORT CPU; prints "ready", and answers until it is killed.
 *        echo ask ADDRESS PORT CPU GAP_NS; one question every GAP_NS, the next one only when the last is answered or given
 *        up; at SIGTERM a JSON object: asked, lost, and percentiles of the round trips.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <sched.h>
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

#define MOST (1u << 18)
#define NSEC_PER_SEC 1000000000ull
#define GIVE_UP_US 100000 /* longer than any scheduler's slice; shorter: what is late counts as lost */

static int64_t trips[MOST];
static atomic_int stopped;

static void stop(int number)
{
	(void)number;
	stopped = 1;
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * NSEC_PER_SEC + (uint64_t)t.tv_nsec;
}

static int compare(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

static void serve(int fd)
{
	for (;;) {
		struct sockaddr_storage from;
		socklen_t len = sizeof(from);
		char data[64];
		ssize_t n = recvfrom(fd, data, sizeof(data), 0, (struct sockaddr *)&from, &len);

		if (n > 0)
			sendto(fd, data, (size_t)n, 0, (struct sockaddr *)&from, len);
	}
}

/* Its round trip in ns; -1: lost. Answers to questions that were given up are passed over. */
static int64_t ask(int fd, uint64_t number)
{
	uint64_t start = now_ns(), answer;

	if (send(fd, &number, sizeof(number), 0) < 0)
		return -1;
	while (recv(fd, &answer, sizeof(answer), 0) == sizeof(answer))
		if (answer == number)
			return (int64_t)(now_ns() - start);
	return -1;
}

static void report(unsigned asked, unsigned n)
{
	printf("{\"asked\": %u, \"lost\": %u", asked, asked - n);
	qsort(trips, n, sizeof(*trips), compare);
	if (n)
		printf(", \"p50_ns\": %lld, \"p99_ns\": %lld, \"p99_9_ns\": %lld, \"max_ns\": %lld",
		       (long long)trips[(n - 1) / 2], (long long)trips[(size_t)((n - 1) * 0.99)],
		       (long long)trips[(size_t)((n - 1) * 0.999)], (long long)trips[n - 1]);
	puts("}");
}

int main(int argc, char **argv)
{
	struct timeval patience = {.tv_usec = GIVE_UP_US};
	struct sockaddr_in address = {.sin_family = AF_INET};
	struct sigaction action = {.sa_handler = stop};
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	unsigned asked = 0, n = 0;
	cpu_set_t cpus;
	uint64_t next;

	check(argc < 5 || fd < 0 || inet_pton(AF_INET, argv[2], &address.sin_addr) != 1, "arguments");
	address.sin_port = htons((uint16_t)atoi(argv[3]));
	CPU_ZERO(&cpus);
	CPU_SET(atoi(argv[4]), &cpus);
	check(sched_setaffinity(0, sizeof(cpus), &cpus), "sched_setaffinity");
	if (!strcmp(argv[1], "serve")) {
		check(bind(fd, (struct sockaddr *)&address, sizeof(address)), "bind");
		puts("ready");
		fflush(stdout);
		serve(fd);
	}
	check(argc != 6, "arguments");
	sigaction(SIGTERM, &action, NULL);
	alarm(120);
	check(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)), "SO_RCVTIMEO");
	check(connect(fd, (struct sockaddr *)&address, sizeof(address)), "connect");
	for (next = now_ns(); !stopped && n < MOST; next += strtoull(argv[5], NULL, 10)) {
		struct timespec t = {(time_t)(next / NSEC_PER_SEC), (long)(next % NSEC_PER_SEC)};

		if (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL))
			break;
		trips[n] = ask(fd, asked++);
		n += trips[n] >= 0;
	}
	report(asked, n);
	return 0;
}
