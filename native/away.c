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

static uint64_t gone_for_ns(const struct xske_loop *l, uint64_t now)
{
	uint64_t ns = now - l->away_since_ns;

	return l->away == XSKE_LOOP_STALLED ? ns + l->stalled_ns : ns;
}

void COLD loop_come_back(struct xske_loop *l)
{
	l->now_ns = l->config.clock.now_ns(l->config.clock.ctx);
	link_shift(l, gone_for_ns(l, l->now_ns));
	if (l->away == XSKE_LOOP_STALLED)
		l->draining_ns = 0;
	l->away = 0;
}

void xske_loop_give_up(struct xske_loop *l, uint32_t error)
{
	uint64_t now = l->config.clock.now_ns(l->config.clock.ctx);

	if (!l->away || l->state >= XSKE_LOOP_STOPPED)
		return;
	if (l->state == XSKE_LOOP_DRAINING)
		l->state = XSKE_LOOP_STOPPED;
	else
		loop_fail(l, (enum xske_loop_error)error, l->txq->kick.last_errno,
		          error == XSKE_ERROR_LINK_DOWN ? gone_for_ns(l, now) : txq_inflight(l->txq));
	loop_finish(l);
}
