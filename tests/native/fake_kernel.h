/* SPDX-License-Identifier: MIT */
/*
 * The kernel's side of a tx ring and its completion ring, on heap memory. A test decides what each kick
 * answers and which addrs complete when; time moves only when told, or when the loop sleeps.
 */
#ifndef FAKE_KERNEL_H
#define FAKE_KERNEL_H

#include "xske.h"

struct fake_kernel;

XSKE_API struct fake_kernel *fake_create(uint32_t tx_size, uint32_t cq_size, uint32_t first_cursor);
XSKE_API void fake_destroy(struct fake_kernel *k);
XSKE_API void fake_rings(struct fake_kernel *k, struct xske_ring *tx, struct xske_ring *cq);
XSKE_API int fake_kick(void *k); /* an xske_kick_fn */
XSKE_API uint64_t fake_now(void *k);
XSKE_API void fake_sleep(void *k, uint64_t ns);
XSKE_API void fake_advance(struct fake_kernel *k, uint64_t ns);
XSKE_API uint64_t fake_slept_ns(const struct fake_kernel *k);
XSKE_API uint64_t fake_clock(const struct fake_kernel *k);   /* a look that takes no time */
XSKE_API uint64_t fake_wake_ns(const struct fake_kernel *k); /* until when the loop last wanted to sleep */
/* What a look at the clock takes; 0: time passes by sleeping alone. */
XSKE_API void fake_turn(struct fake_kernel *k, uint64_t ns);

/* Steps a loop until it is until_ns and the loop has nothing to do but to sleep; no sleep goes beyond. Turns that it took;
 * -1: not within `most`. */
typedef int (*fake_step_fn)(void *loop);
XSKE_API int32_t fake_run(struct fake_kernel *k, fake_step_fn step, void *loop, uint64_t until_ns,
                          uint32_t most);

/* Told of every desc that a kick takes, and of those that were held when they complete. */
typedef void (*fake_desc_fn)(void *watcher, const struct xske_desc *desc, uint64_t now_ns);
XSKE_API void fake_watch(struct fake_kernel *k, fake_desc_fn posted, fake_desc_fn completed, void *watcher);

/* Each kick takes at most `budget` descs; auto_complete completes them at once, as far as the ring goes. */
XSKE_API void fake_policy(struct fake_kernel *k, uint32_t budget, int auto_complete);
/* The next `times` kicks answer err; EBUSY takes and completes one packet, as the kernel does. */
XSKE_API void fake_script(struct fake_kernel *k, int err, uint32_t times);

/* An EBUSY comes after so many packets that passed in the same kick. */
XSKE_API void fake_lossy(struct fake_kernel *k, uint32_t pass_before_drop);

/* From now on it does not publish what it takes. */
XSKE_API void fake_silent(struct fake_kernel *k);

XSKE_API uint32_t fake_held(const struct fake_kernel *k); /* descs taken and not completed */
XSKE_API struct xske_desc fake_held_desc(const struct fake_kernel *k, uint32_t i);
XSKE_API int fake_complete(struct fake_kernel *k, uint32_t i); /* the i-th held; 0, or -1: ring full */
XSKE_API uint32_t fake_complete_oldest(struct fake_kernel *k, uint32_t n);    /* of the held; how many */
XSKE_API void fake_shuffle(struct fake_kernel *k, uint32_t n, uint64_t seed); /* the n oldest held */
XSKE_API int fake_complete_addr(struct fake_kernel *k, uint64_t addr);        /* any addr: a broken kernel */
XSKE_API uint64_t fake_taken(const struct fake_kernel *k);                    /* descs taken in all */
XSKE_API uint64_t fake_kicks(const struct fake_kernel *k);

#endif
