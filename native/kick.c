/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <sys/socket.h>

#include "kick.h"

static int kick_sendto(void *ctx)
{
	const struct kick *k = ctx;

	/* Without MSG_DONTWAIT the kernel says EOPNOTSUPP (net/xdp/xsk.c, __xsk_sendmsg). */
	return sendto(k->fd, NULL, 0, MSG_DONTWAIT, NULL, 0) >= 0 ? 0 : errno;
}

void kick_init(struct kick *k, const struct xske_txq_config *config)
{
	/* Its counters go on: they are the txq's, whatever its socket. */
	k->fn = config->kick ? config->kick : kick_sendto;
	k->ctx = config->kick ? config->kick_ctx : k;
	k->fd = config->fd;
}

void kick_reset_counters(struct kick *k)
{
	k->calls = k->eagain = k->ebusy = k->enobufs = k->enetdown = k->other = 0;
}

enum kick_result COLD kick_classify(struct kick *k, int err)
{
	k->last_errno = err;
	switch (err) {
	case EAGAIN:
	case EINTR:
		k->eagain++;
		return KICK_AGAIN;
	case EBUSY:
		k->ebusy++;
		return KICK_DROPPED;
	case ENOBUFS:
	case ENOMEM:
		k->enobufs++;
		return KICK_NOBUFS;
	case ENETDOWN:
		k->enetdown++;
		return KICK_LINK_DOWN;
	default:
		k->other++;
		return KICK_FATAL;
	}
}
