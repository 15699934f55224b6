/* SPDX-License-Identifier: MIT */
/* wire_port.c - the wire's packet sockets. No BPF, so that it works for anybody in a user namespace. */
#include <errno.h>
#include <linux/if_packet.h>
#include <poll.h>
#include <time.h>
#include <unistd.h>

#include "wire.h"

/* A receiver's backlog is full (ENOBUFS): it gets so long to make room, in naps. */
#define FULL_NS (2 * NSEC_PER_MSEC)
#define FULL_NAP_NS (20 * NSEC_PER_USEC)
/* Frames in flight fill the socket's buffer: as long as this we wait for the receiver to free one. */
#define SEND_TIMEOUT_US 100000
/* An interface that is down says so at once, again and again. */
#define DOWN_NAP_NS (1 * NSEC_PER_MSEC)

uint64_t wire_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * NSEC_PER_SEC + (uint64_t)t.tv_nsec;
}

static struct timespec timespec_of(uint64_t ns)
{
	return (struct timespec){.tv_sec = (time_t)(ns / NSEC_PER_SEC), .tv_nsec = (long)(ns % NSEC_PER_SEC)};
}

void wire_nap(uint64_t ns)
{
	struct timespec t = timespec_of(ns);

	clock_nanosleep(CLOCK_MONOTONIC, 0, &t, NULL);
}

static int open_out(struct wire_port *p, const struct xske_wire_config *config)
{
	struct sockaddr_ll at = {.sll_family = AF_PACKET, .sll_ifindex = (int)config->to_ifindex};
	int one = 1, bytes = 8 << 20;
	struct timeval timeout = {.tv_usec = SEND_TIMEOUT_US};

	p->out_fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
	if (p->out_fd < 0 || setsockopt(p->out_fd, SOL_PACKET, PACKET_QDISC_BYPASS, &one, sizeof(one)) ||
	    setsockopt(p->out_fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout)) ||
	    bind(p->out_fd, (struct sockaddr *)&at, sizeof(at)))
		return -errno;
	/* For root. Others have the system's default, which is enough for 200 small frames. */
	setsockopt(p->out_fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes));
	return 0;
}

int port_open(struct wire_port *p, const struct xske_wire_config *config)
{
	int err;

	*p = (struct wire_port){.in.fd = -1, .out_fd = -1};
	err = open_out(p, config);
	return err ? err
	           : packet_ring_open(&p->in, config->from_ifindex, config->max_frame_bytes, NULL, true);
}

void port_close(struct wire_port *p)
{
	packet_ring_close(&p->in);
	if (p->out_fd >= 0)
		close(p->out_fd);
}

/* ENOBUFS: veth's receiver is full, down, or takes no frame so long. Only the first of these passes. */
static bool COLD try_again(struct wire_port *p, uint64_t *since_ns)
{
	uint64_t now = wire_now();

	if (errno == EINTR)
		return true;
	if (errno != ENOBUFS || p->refused)
		return false;
	if (!*since_ns)
		*since_ns = now;
	if (now - *since_ns > FULL_NS) {
		p->refused = true;
		return false;
	}
	wire_nap(FULL_NAP_NS);
	return true;
}

uint32_t port_send(struct wire_port *p, struct mmsghdr *messages, uint32_t n)
{
	uint32_t at = 0, taken = 0;
	uint64_t since_ns = 0;

	while (at < n) {
		int sent = sendmmsg(p->out_fd, messages + at, n - at, 0);

		if (sent > 0) {
			at += (uint32_t)sent;
			taken += (uint32_t)sent;
			p->refused = false;
			since_ns = 0;
		} else if (!try_again(p, &since_ns)) {
			at++;
			since_ns = 0;
		}
	}
	return taken;
}

void port_wait(struct wire_port *p, uint64_t ns)
{
	struct pollfd in = {.fd = p->in.fd, .events = POLLIN};
	struct timespec t = timespec_of(ns);
	int error;
	socklen_t len = sizeof(error);

	if (ppoll(&in, 1, &t, NULL) > 0 && in.revents & POLLERR) {
		getsockopt(p->in.fd, SOL_SOCKET, SO_ERROR, &error, &len); /* takes it away */
		wire_nap(min_u64(ns, DOWN_NAP_NS));
	}
}
