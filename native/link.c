/* SPDX-License-Identifier: MIT */
/* link.c - is the link down? Told by ENETDOWN, or by packets that are all dropped. */
#include "loop.h"

/* How often a link that is down is tried; each try may lose one packet when only the peer is down. */
#define LINK_PROBE_NS (10 * NSEC_PER_MSEC)

/* Packets dropped by the kernel without one that passed: the peer is down or has no carrier. Lower: a burst that
 * overruns the receiver's backlog looks like a lost link; higher: more packets lost before we wait. */
#define DROPS_ARE_LINK_DOWN 1000u

void COLD link_down(struct xske_loop *l)
{
	if (!l->down_since_ns)
		l->down_since_ns = l->now_ns;
	l->probe_ns = l->now_ns + LINK_PROBE_NS;
	if (l->now_ns - l->down_since_ns > l->config.link_timeout_ns)
		loop_fail(l, XSKE_ERROR_LINK_DOWN, l->txq->kick.last_errno, l->now_ns - l->down_since_ns);
}

void COLD link_shift(struct xske_loop *l, uint64_t ns)
{
	mixes_shift(l, ns);
	l->down_total_ns += ns;
	l->stalled_ns = 0;
}

void COLD link_up(struct xske_loop *l)
{
	link_shift(l, l->now_ns - l->down_since_ns);
	l->down_since_ns = 0;
	l->down_by_drops = false;
}

void link_passed(struct xske_loop *l)
{
	l->run_completed = l->txq->completed_packets;
	l->run_dropped = l->txq->kick.ebusy;
}

/* The kernel dropped a packet. With the peer down it drops every one, and says EBUSY for each; a receiver that
 * is merely too slow lets others pass between them, also within one kick. */
void COLD link_dropped(struct xske_loop *l)
{
	uint64_t completed = l->txq->completed_packets - l->run_completed;
	uint64_t dropped = l->txq->kick.ebusy - l->run_dropped;

	if (completed > dropped) {
		link_passed(l);
		if (l->down_since_ns)
			link_up(l);
	} else if (dropped >= DROPS_ARE_LINK_DOWN && !l->down_since_ns) {
		l->down_by_drops = true;
		link_down(l);
	}
}
