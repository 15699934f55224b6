/* SPDX-License-Identifier: MIT */
/*
 * The least that a sender of its own can do with the ACKs that come to it: takes them off the receive ring of an
 * AF_XDP socket, reads the acknowledgment number of each, gives its chunk back. It sleeps when there is none, as
 * spinning would be counted with it.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include <xdp/xsk.h>

#include "xske.h"

#define API __attribute__((visibility("default")))
#define BATCH 64u
#define CHUNK 4096u
#define ACK_OFFSET 42u /* Ethernet, IPv4 without options, and RFC 9293, 3.1 */

/* Written by the reader; `stop` by anybody. */
struct acks {
	uint64_t packets;
	uint32_t last;
	uint32_t stop;
};

/* Until it is told to stop. The fill ring has its chunks already; `area` is the umem. 0, or -errno. */
API int read_acks(const struct xske_ring *from, const struct xske_ring *to, const unsigned char *area, int fd,
                  uint32_t nap_us, struct acks *acks);

int read_acks(const struct xske_ring *from, const struct xske_ring *to, const unsigned char *area, int fd,
              uint32_t nap_us, struct acks *acks)
{
	const struct timespec nap = {.tv_nsec = (long)nap_us * 1000};
	struct xsk_ring_cons rx;
	struct xsk_ring_prod fill;
	uint32_t n, at, back, ack;

	memcpy(&rx, from, sizeof(rx));
	memcpy(&fill, to, sizeof(fill));
	rx.cached_cons = __atomic_load_n(rx.consumer, __ATOMIC_RELAXED);
	rx.cached_prod = rx.cached_cons;
	fill.cached_prod = __atomic_load_n(fill.producer, __ATOMIC_RELAXED);
	fill.cached_cons = __atomic_load_n(fill.consumer, __ATOMIC_ACQUIRE) + fill.size;
	while (!__atomic_load_n(&acks->stop, __ATOMIC_ACQUIRE)) {
		n = xsk_ring_cons__peek(&rx, BATCH, &at);
		if (!n) {
			nanosleep(&nap, NULL);
			continue;
		}
		/* As many as came: the kernel has taken those chunks off the ring. */
		if (xsk_ring_prod__reserve(&fill, n, &back) != n)
			return -ENOSPC;
		for (uint32_t i = 0; i < n; i++) {
			const struct xdp_desc *desc = xsk_ring_cons__rx_desc(&rx, at + i);

			memcpy(&ack, area + desc->addr + ACK_OFFSET, sizeof(ack));
			acks->last = ntohl(ack);
			*xsk_ring_prod__fill_addr(&fill, back + i) = desc->addr & ~(uint64_t)(CHUNK - 1);
		}
		xsk_ring_prod__submit(&fill, n);
		xsk_ring_cons__release(&rx, n);
		__atomic_store_n(&acks->packets, acks->packets + n, __ATOMIC_RELEASE);
		if (xsk_ring_prod__needs_wakeup(&fill))
			recvfrom(fd, NULL, 0, MSG_DONTWAIT, NULL, NULL);
	}
	return 0;
}
