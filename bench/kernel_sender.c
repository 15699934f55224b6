/* SPDX-License-Identifier: MIT */
/*
 * What the engine is compared with: the kernel's own TCP and UDP, sent by a program that does nothing else.
 * Usage: kernel_sender tcp|sendfile|udp ADDRESS PORT CPU COUNT. COUNT: megabytes for TCP, datagrams for UDP.
 * The marks stand around the sending alone; TCP's ends when the peer has acknowledged everything.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/sockios.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

#include "mark.h"

#define MEGABYTE (1u << 20)
#define WRITE_BYTES (128u << 10) /* what iperf3 writes at once */
#define DATAGRAM_BYTES 1472u     /* fills an MTU of 1500 */
#define LIMIT_S 60u

static unsigned char data[MEGABYTE];

static void check(int failed, const char *what)
{
	if (failed) {
		perror(what);
		exit(1);
	}
}

static void send_tcp(int fd, unsigned megabytes)
{
	for (size_t left = (size_t)megabytes * MEGABYTE; left;) {
		ssize_t n = write(fd, data, left < WRITE_BYTES ? left : WRITE_BYTES);

		check(n <= 0, "write");
		left -= (size_t)n;
	}
}

static void send_file(int fd, int file, unsigned megabytes)
{
	for (unsigned i = 0; i < megabytes; i++)
		for (off_t at = 0; at < MEGABYTE;)
			check(sendfile(fd, file, &at, MEGABYTE - (size_t)at) <= 0, "sendfile");
}

static void send_udp(int fd, unsigned datagrams)
{
	for (unsigned i = 0; i < datagrams; i++)
		while (write(fd, data, DATAGRAM_BYTES) < 0)
			check(errno != ENOBUFS && errno != ECONNREFUSED, "write");
}

static void await_acknowledged(int fd)
{
	for (int unsent = 1; unsent; usleep(1000))
		check(ioctl(fd, SIOCOUTQ, &unsent), "SIOCOUTQ");
}

int main(int argc, char **argv)
{
	struct sockaddr_in to = {.sin_family = AF_INET};
	int fd, file, udp;
	unsigned count;
	cpu_set_t cpus;

	check(argc != 6, "arguments");
	udp = !strcmp(argv[1], "udp");
	count = (unsigned)atoi(argv[5]);
	alarm(LIMIT_S);
	CPU_ZERO(&cpus);
	CPU_SET(atoi(argv[4]), &cpus);
	check(sched_setaffinity(0, sizeof(cpus), &cpus), "sched_setaffinity");
	check(inet_pton(AF_INET, argv[2], &to.sin_addr) != 1, "address");
	to.sin_port = htons((unsigned short)atoi(argv[3]));
	memset(data, 0x5a, sizeof(data));
	file = memfd_create("data", MFD_CLOEXEC);
	check(file < 0 || write(file, data, sizeof(data)) != (ssize_t)sizeof(data), "memfd");
	fd = socket(AF_INET, udp ? SOCK_DGRAM : SOCK_STREAM, 0);
	check(fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof(to)), "connect");

	MARK(MARK_BEGIN);
	if (udp)
		send_udp(fd, count);
	else if (!strcmp(argv[1], "sendfile"))
		send_file(fd, file, count);
	else
		send_tcp(fd, count);
	await_acknowledged(fd);
	MARK(MARK_END);
	return 0;
}
