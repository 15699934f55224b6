/* SPDX-License-Identifier: MIT */
/*
 * What the engine is compared with: the kernel's own UDP, sent by a program that does nothing else.
 * Usage: udp_sender sendto|sendmmsg|segment ADDRESS PORT CPU PAYLOAD_BYTES [COUNT]; CPU: -1 for any. Without COUNT (datagrams)
 * until it is killed; with it, between marks, exactly as many.
 * The socket is connected: the kernel then looks its route up once and not per datagram, and who sends to one peer
 * as fast as he can connects. So `sendto` is given no address.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/udp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "mark.h"
#include "common.h"

#define LIMIT_S 60u               /* of a run with a COUNT */
#define SOURCE_PORT 9             /* as the frames of the other senders have it */
#define MOST_PAYLOAD_BYTES 65507u /* RFC 768 and 791: 65535 less 28 of headers */
#define BATCH 64u                 /* datagrams of one sendmmsg: as many as the engine posts at once */
#define MOST_SEGMENTS 128u        /* UDP_MAX_SEGMENTS, include/linux/udp.h; 64 before Linux 6.9 */
#define OLD_SEGMENTS 64u

static unsigned char data[MOST_PAYLOAD_BYTES];
static struct mmsghdr batch[BATCH];
static unsigned segments; /* of one send */

/* The queue of the device is full (a driver may say so), or the peer's port was closed a moment ago. */
static void check_retry(void)
{
	check(errno != ENOBUFS && errno != ECONNREFUSED && errno != EINTR, "send");
}

/* Each returns the datagrams it has sent, of at most `left`; 0: none this time. */
static unsigned send_one(int fd, unsigned bytes, unsigned long long left)
{
	(void)left;
	if (sendto(fd, data, bytes, 0, NULL, 0) >= 0)
		return 1;
	check_retry();
	return 0;
}

static unsigned send_batch(int fd, unsigned bytes, unsigned long long left)
{
	int sent = sendmmsg(fd, batch, left < BATCH ? (unsigned)left : BATCH, 0);

	(void)bytes; /* prepare_batch knew */
	if (sent >= 0)
		return (unsigned)sent;
	check_retry();
	return 0;
}

static unsigned send_segments(int fd, unsigned bytes, unsigned long long left)
{
	unsigned n = left < segments ? (unsigned)left : segments;

	if (sendto(fd, data, (size_t)n * bytes, 0, NULL, 0) >= 0)
		return n;
	if (errno == EINVAL && segments > OLD_SEGMENTS)
		segments = OLD_SEGMENTS;
	else
		check_retry();
	return 0;
}

static void prepare_batch(unsigned bytes)
{
	static struct iovec vector = {.iov_base = data};

	vector.iov_len = bytes;
	for (unsigned i = 0; i < BATCH; i++)
		batch[i].msg_hdr = (struct msghdr){.msg_iov = &vector, .msg_iovlen = 1};
}

static void prepare_segments(int fd, unsigned bytes)
{
	const int size = (int)bytes;

	segments = MOST_PAYLOAD_BYTES / bytes;
	if (segments > MOST_SEGMENTS)
		segments = MOST_SEGMENTS;
	check(segments > 1 && setsockopt(fd, IPPROTO_UDP, UDP_SEGMENT, &size, sizeof(size)), "UDP_SEGMENT");
}

static int open_socket(const char *address, const char *port)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(port))};
	struct sockaddr_in from = {.sin_family = AF_INET, .sin_port = htons(SOURCE_PORT)};
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	const int on = 1;

	check(fd < 0, "socket");
	check(inet_pton(AF_INET, address, &to.sin_addr) != 1, "address");
	check(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)), "SO_REUSEADDR");
	check(bind(fd, (struct sockaddr *)&from, sizeof(from)), "bind");
	check(connect(fd, (struct sockaddr *)&to, sizeof(to)), "connect");
	return fd;
}

int main(int argc, char **argv)
{
	unsigned (*send_some)(int fd, unsigned bytes, unsigned long long left) = send_one;
	unsigned long long left = ~0ull;
	unsigned bytes;
	int fd;

	errno = EINVAL;
	check(argc != 6 && argc != 7, "arguments");
	bytes = (unsigned)atoi(argv[5]);
	check(!bytes || bytes > MOST_PAYLOAD_BYTES, "PAYLOAD_BYTES");
	if (argc == 7) {
		left = strtoull(argv[6], NULL, 10);
		alarm(LIMIT_S);
	}
	pin(atoi(argv[4]));
	fd = open_socket(argv[2], argv[3]);
	if (!strcmp(argv[1], "sendmmsg")) {
		send_some = send_batch;
		prepare_batch(bytes);
	} else if (!strcmp(argv[1], "segment")) {
		send_some = send_segments;
		prepare_segments(fd, bytes);
	} else {
		errno = EINVAL;
		check(strcmp(argv[1], "sendto") != 0, argv[1]);
	}

	MARK(MARK_BEGIN);
	while (left)
		left -= send_some(fd, bytes, left);
	MARK(MARK_END);
	return 0;
}
