/* SPDX-License-Identifier: MIT */
/*
 * Who receives TCP in the benchmark, from every sender alike: reads connections to their ends and throws the bytes away.
 * Usage: tcp_reader ADDRESS CPU FLOWS. CPU: -1 for any. Says its port first; in the end the bytes that came, and the
 * nanoseconds from the first to the last of them.
 */
#include <arpa/inet.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "common.h"

#define READ_BYTES (1u << 20)
#define MOST_FLOWS 256
#define LIMIT_S 60u

struct flow {
	pthread_t thread;
	int fd;
	uint64_t bytes, first_ns, last_ns;
};

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void *read_all(void *arg)
{
	struct flow *f = arg;
	char *buffer = malloc(READ_BYTES);
	ssize_t n;

	check(!buffer, "malloc");
	while ((n = recv(f->fd, buffer, READ_BYTES, 0)) > 0) {
		f->last_ns = now_ns();
		if (!f->bytes)
			f->first_ns = f->last_ns;
		f->bytes += (uint64_t)n;
	}
	check(n < 0, "recv");
	free(buffer);
	return NULL;
}

static int listen_at(const char *address)
{
	struct sockaddr_in at = {.sin_family = AF_INET};
	socklen_t len = sizeof(at);
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	check(fd < 0 || inet_pton(AF_INET, address, &at.sin_addr) != 1, "address");
	check(bind(fd, (struct sockaddr *)&at, len) || listen(fd, MOST_FLOWS), "listen");
	check(getsockname(fd, (struct sockaddr *)&at, &len), "getsockname");
	printf("%d\n", ntohs(at.sin_port));
	fflush(stdout);
	return fd;
}

int main(int argc, char **argv)
{
	uint64_t bytes = 0, first_ns = UINT64_MAX, last_ns = 0;
	int flows = argc == 4 ? atoi(argv[3]) : 0, listener;
	static struct flow all[MOST_FLOWS];

	check(flows < 1 || flows > MOST_FLOWS, "arguments");
	alarm(LIMIT_S);
	pin(atoi(argv[2]));
	listener = listen_at(argv[1]);
	for (int i = 0; i < flows; i++) {
		all[i].fd = accept(listener, NULL, NULL);
		check(all[i].fd < 0, "accept");
		check(pthread_create(&all[i].thread, NULL, read_all, &all[i]), "pthread_create");
	}
	for (int i = 0; i < flows; i++) {
		pthread_join(all[i].thread, NULL);
		bytes += all[i].bytes;
		if (all[i].first_ns < first_ns)
			first_ns = all[i].first_ns;
		if (all[i].last_ns > last_ns)
			last_ns = all[i].last_ns;
	}
	printf("%llu %llu\n", (unsigned long long)bytes, (unsigned long long)(last_ns - first_ns));
	return 0;
}
