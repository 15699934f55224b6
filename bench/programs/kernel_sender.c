/* SPDX-License-Identifier: MIT */
/*
 * What the engine is compared with: the kernel's own TCP, sent by a program that does nothing else (UDP: udp_sender.c).
 * Usage: kernel_sender tcp|zerocopy|maybe-zerocopy|sendfile ADDRESS PORT CPU COUNT [FLOWS]. CPU: -1 for any; COUNT:
 * megabytes of each flow; FLOWS: connections, a thread each. maybe-zerocopy: MSG_ZEROCOPY also where the kernel copies after
 * all, as on veth (skb_orphan_frags_rx()); with zerocopy that is a failure.
 * The marks stand around the sending alone, which ends when the peer has acknowledged everything.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/errqueue.h>
#include <linux/sockios.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

#include "mark.h"
#include "common.h"

#define MEGABYTE (1u << 20)
#define WRITE_BYTES (128u << 10) /* what iperf3 writes at once */
#define LIMIT_S 60u
#define MOST_FLOWS 256
/* MSG_ZEROCOPY lends its pages until the peer has acknowledged: the kernel's usual bound for a socket's send memory
 * (tcp_wmem) is what it is lent at most. Less: the window would be ours. */
#define LENT_WRITES (4 * MEGABYTE / WRITE_BYTES)

struct sender {
	const char *how;
	int fd, file;
	unsigned count;
	pthread_t thread;
};

static unsigned char data[4 * MEGABYTE];
static bool may_copy;

static void send_tcp(int fd, unsigned megabytes)
{
	for (size_t left = (size_t)megabytes * MEGABYTE; left;) {
		ssize_t n = write(fd, data, left < WRITE_BYTES ? left : WRITE_BYTES);

		check(n <= 0, "write");
		left -= (size_t)n;
	}
}

/* Writes that the kernel has given back, of `lent`. wait: for the first one. */
static unsigned take_back(int fd, int wait)
{
	struct pollfd errors = {.fd = fd};
	unsigned back = 0;

	check(wait && poll(&errors, 1, -1) < 0, "poll");
	for (;;) {
		char control[128];
		struct msghdr message = {.msg_control = control, .msg_controllen = sizeof(control)};
		struct sock_extended_err told;

		if (recvmsg(fd, &message, MSG_ERRQUEUE | MSG_DONTWAIT) < 0) {
			check(errno != EAGAIN, "MSG_ERRQUEUE");
			return back;
		}
		memcpy(&told, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(told));
		errno = EOPNOTSUPP;
		check(told.ee_origin != SO_EE_ORIGIN_ZEROCOPY, "MSG_ERRQUEUE");
		check(!may_copy && told.ee_code & SO_EE_CODE_ZEROCOPY_COPIED, "MSG_ZEROCOPY was copied");
		back += told.ee_data - told.ee_info + 1;
	}
}

/* As an application must that writes into its buffers again: only into those that came back. */
static void send_lent(int fd, unsigned megabytes)
{
	unsigned writes = megabytes * (MEGABYTE / WRITE_BYTES), lent = 0;
	const int one = 1;

	check(setsockopt(fd, SOL_SOCKET, SO_ZEROCOPY, &one, sizeof(one)), "SO_ZEROCOPY");
	for (unsigned i = 0; i < writes; i++) {
		const unsigned char *from = data + (size_t)(i % LENT_WRITES) * WRITE_BYTES;

		for (size_t at = 0; at < WRITE_BYTES;) {
			ssize_t n;

			while (lent >= LENT_WRITES)
				lent -= take_back(fd, 1);
			n = send(fd, from + at, WRITE_BYTES - at, MSG_ZEROCOPY);
			if (n < 0 && errno == ENOBUFS) { /* too many notifications wait to be read */
				lent -= take_back(fd, 1);
				continue;
			}
			check(n <= 0, "MSG_ZEROCOPY");
			at += (size_t)n;
			lent++;
		}
	}
	while (lent)
		lent -= take_back(fd, 1);
}

static void send_file(int fd, int file, unsigned megabytes)
{
	for (unsigned i = 0; i < megabytes; i++)
		for (off_t at = 0; at < MEGABYTE;)
			check(sendfile(fd, file, &at, MEGABYTE - (size_t)at) <= 0, "sendfile");
}

static void await_acknowledged(int fd)
{
	for (int unsent = 1; unsent; usleep(1000))
		check(ioctl(fd, SIOCOUTQ, &unsent), "SIOCOUTQ");
}

static void *run(void *arg)
{
	const struct sender *s = arg;

	if (!strcmp(s->how, "sendfile"))
		send_file(s->fd, s->file, s->count);
	else if (strcmp(s->how, "tcp"))
		send_lent(s->fd, s->count);
	else
		send_tcp(s->fd, s->count);
	await_acknowledged(s->fd);
	return NULL;
}

int main(int argc, char **argv)
{
	struct sockaddr_in to = {.sin_family = AF_INET};
	struct sender senders[MOST_FLOWS];
	int file, flows = argc == 7 ? atoi(argv[6]) : 1;

	errno = EINVAL;
	check(argc < 6 || flows < 1 || flows > MOST_FLOWS, "arguments");
	may_copy = !strcmp(argv[1], "maybe-zerocopy");
	check(strcmp(argv[1], "tcp") && strcmp(argv[1], "zerocopy") && strcmp(argv[1], "sendfile") &&
	              !may_copy,
	      argv[1]);
	alarm(LIMIT_S);
	pin(atoi(argv[4]));
	check(inet_pton(AF_INET, argv[2], &to.sin_addr) != 1, "address");
	to.sin_port = htons((unsigned short)atoi(argv[3]));
	memset(data, 0x5a, sizeof(data));
	file = memfd_create("data", MFD_CLOEXEC);
	check(file < 0 || write(file, data, MEGABYTE) != MEGABYTE, "memfd");
	for (int i = 0; i < flows; i++) {
		int fd = socket(AF_INET, SOCK_STREAM, 0);

		check(fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof(to)), "connect");
		senders[i] = (struct sender){argv[1], fd, file, (unsigned)atoi(argv[5]), 0};
	}

	MARK(MARK_BEGIN);
	for (int i = 1; i < flows; i++)
		check(pthread_create(&senders[i].thread, NULL, run, &senders[i]), "pthread_create");
	run(&senders[0]);
	for (int i = 1; i < flows; i++)
		pthread_join(senders[i].thread, NULL);
	MARK(MARK_END);
	return 0;
}
