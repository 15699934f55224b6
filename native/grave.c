/* SPDX-License-Identifier: MIT */
#include "grave.h"

#include <stddef.h>
#include <time.h>

#include "util.h"

/* A thread that has its handle and not called yet: longer than any of them is kept from running. Higher: more memory where
 * endpoints and connections come and go. */
#define GRAVE_NS NSEC_PER_SEC

void graveyard_init(struct graveyard *y)
{
	y->first = NULL;
	y->end = &y->first;
}

void graveyard_bury(struct graveyard *y, pthread_mutex_t *lock, struct grave *g)
{
	struct timespec t;

	g->next = NULL;
	pthread_mutex_lock(lock);
	clock_gettime(CLOCK_MONOTONIC, &t); /* here, for the order */
	g->died_ns = (uint64_t)t.tv_sec * NSEC_PER_SEC + (uint64_t)t.tv_nsec;
	*y->end = g;
	y->end = &g->next;
	while (y->first != g && g->died_ns - y->first->died_ns > GRAVE_NS) {
		struct grave *old = y->first;

		y->first = old->next;
		old->free(old->object);
	}
	pthread_mutex_unlock(lock);
}

void graveyard_free(struct graveyard *y)
{
	for (struct grave *next; y->first; y->first = next) {
		next = y->first->next;
		y->first->free(y->first->object);
	}
	y->end = &y->first;
}
