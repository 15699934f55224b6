/* SPDX-License-Identifier: MIT */
/*
 * kick.h - the one system call of the hot path: the sendto() that makes the kernel look at the tx ring, and
 * what its errno means. The classifier is cold: a kick that succeeds costs a call and a compare.
 */
#ifndef XSKE_KICK_H
#define XSKE_KICK_H

#include <stdint.h>

#include "util.h"
#include "xske.h"

enum kick_result {
	KICK_OK,
	KICK_AGAIN,     /* nothing lost: budget used up, send buffer or completion ring full */
	KICK_DROPPED,   /* EBUSY: one packet was completed without being sent */
	KICK_NOBUFS,    /* no memory: back off */
	KICK_LINK_DOWN, /* ENETDOWN */
	KICK_FATAL,     /* errno in last_errno; ENXIO: the device is gone */
};

struct kick {
	xske_kick_fn fn;
	void *ctx;
	int fd;
	int last_errno;
	uint64_t calls, eagain, ebusy, enobufs, enetdown, other;
};

void kick_init(struct kick *k, const struct xske_txq_config *config);
void kick_reset_counters(struct kick *k);
enum kick_result kick_classify(struct kick *k, int err);

static inline enum kick_result kick(struct kick *k)
{
	int err = k->fn(k->ctx);

	k->calls++;
	if (likely(!err))
		return KICK_OK;
	return kick_classify(k, err);
}

#endif
