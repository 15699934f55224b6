/* SPDX-License-Identifier: MIT */
/* rx.c - what a driver in zero-copy receives into. */
#include <errno.h>
#include <string.h>

#include <xdp/xsk.h>

#include "xske.h"

int xske_rx_fill(const struct xske_ring *fill, const uint64_t *addrs, uint32_t n)
{
	struct xsk_ring_prod ring;
	uint32_t idx;

	memcpy(&ring, fill, sizeof(ring));
	ring.cached_prod = __atomic_load_n(ring.producer, __ATOMIC_RELAXED);
	ring.cached_cons = __atomic_load_n(ring.consumer, __ATOMIC_ACQUIRE) + ring.size;
	if (xsk_ring_prod__reserve(&ring, n, &idx) != n)
		return -ENOSPC;
	for (uint32_t i = 0; i < n; i++)
		*xsk_ring_prod__fill_addr(&ring, idx + i) = addrs[i];
	xsk_ring_prod__submit(&ring, n);
	return 0;
}
