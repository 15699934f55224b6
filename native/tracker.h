/* SPDX-License-Identifier: MIT */
/*
 * tracker.h - has the kernel done with these frags? A watch per frag goes through the submit ring with its desc, stands
 * on its chunk's list while it is inflight, and is settled when nothing of that chunk is inflight any more. That
 * is exact whatever order completions come in, and costs nothing where nobody watches.
 * The watches are the tracker's memory; it lives until its user has let go and all of them are settled.
 */
#ifndef XSKE_TRACKER_H
#define XSKE_TRACKER_H

#include <stdatomic.h>
#include <stdbool.h>

#include "util.h"
#include "xske.h"

struct watch {
	struct watch *next; /* on the chunk's list: the loop's */
	struct xske_tracker *tracker;
	uint64_t addr;
};

struct xske_tracker {
	/* Its user, and what is pending. Acq_rel: who frees it has seen what the other did. */
	_Atomic uint32_t holders;
	/* Watches under way, and 1 while more may come. Settling releases stamps and `lost`; who finds 0 acquires them. Only
	 * the user adds to it, while it is not 0: relaxed. */
	_Atomic uint32_t pending;
	_Atomic uint32_t lost; /* relaxed: stored before its watch is settled, loaded behind `pending` */
	bool closed;           /* its user's, as the next two */
	uint32_t used;         /* watches given out */
	uint32_t n;
	uint64_t *stamps;
	struct watch watches[];
};

/* The next n, for these frags; NULL: it has not so many. */
struct watch *tracker_watch(struct xske_tracker *t, const struct xske_desc *descs, uint32_t n);
/* The frag's post has come back; true when that was the last one. */
bool watch_settle(struct watch *w, uint64_t stamp_ns);
/* n watches will never be settled. */
void watches_lose(struct watch *w, uint32_t n);

#endif
