/* SPDX-License-Identifier: MIT */
/*
 * grave.h - objects that were destroyed while somebody may be just about to use them: he finds them ended, not gone. Their
 * memory goes back when that is so long ago that it cannot be any more.
 */
#ifndef XSKE_GRAVE_H
#define XSKE_GRAVE_H

#include <pthread.h>
#include <stdint.h>

/* A part of the object. */
struct grave {
	struct grave *next;
	void (*free)(void *object);
	void *object;
	uint64_t died_ns;
};

/* Under a lock of its owner's; the oldest first. */
struct graveyard {
	struct grave *first, **end;
};

void graveyard_init(struct graveyard *y);
/* Any thread; `g` has free and object. */
void graveyard_bury(struct graveyard *y, pthread_mutex_t *lock, struct grave *g);
/* All of them. */
void graveyard_free(struct graveyard *y);

#endif
