/* SPDX-License-Identifier: MIT */
/*
 * away.c - the loop's thread goes back to its caller and may come again: paused because others must change
 * something under it, or stalled, so that who knows the interface can judge why. Not time that counts.
 */
#include "loop.h"

/* At the end of this turn. */
void COLD loop_leave(struct xske_loop *l, enum xske_loop_state why)
{
	l->away = (int)why;
	l->away_since_ns = l->now_ns;
}

void COLD loop_come_back(struct xske_loop *l)
{
	uint64_t ns;

	l->now_ns = l->config.clock.now_ns(l->config.clock.ctx);
	ns = l->now_ns - l->away_since_ns;
	if (l->down_since_ns) {
		l->down_since_ns += ns; /* the link's own time goes on from here */
		l->probe_ns += ns;
	} else if (l->outlet.starved) {
		/* Nor since when something was due and nothing could be posted. */
		ns += min_u64(l->stalled_ns, l->away_since_ns - l->last_post_ns);
	}
	if (l->away == XSKE_LOOP_STALLED) {
		l->waited_ns += l->now_ns - l->away_since_ns + l->stalled_ns;
		l->draining_ns = 0;
	}
	link_shift(l, ns);
	l->away = 0;
}

int xske_loop_called(struct xske_loop *l)
{
	uint32_t first;

	if (atomic_load_explicit(&l->aborted, memory_order_relaxed))
		return XSKE_CALLED_TO_ABORT;
	return spsc_ready(&l->commands, &first) ? XSKE_CALLED_BY_COMMAND : XSKE_NOT_CALLED;
}

void xske_loop_give_up(struct xske_loop *l, uint32_t error)
{
	uint64_t now = l->config.clock.now_ns(l->config.clock.ctx);

	if (l->state >= XSKE_LOOP_STOPPED || (l->state == XSKE_LOOP_NEW && loop_begin(l)))
		return;
	if (l->state == XSKE_LOOP_DRAINING)
		l->state = XSKE_LOOP_STOPPED;
	else if (error == XSKE_ERROR_NO_PROGRESS && txq_is_stuck(l->txq))
		loop_fail(l, XSKE_ERROR_RING_FULL, l->txq->kick.last_errno, 0);
	else
		loop_fail(l, (enum xske_loop_error)error, l->txq->kick.last_errno,
		          error == XSKE_ERROR_LINK_DOWN
		                  ? now - l->away_since_ns + l->stalled_ns + l->waited_ns
		                  : txq_inflight(l->txq));
	loop_finish(l);
}
