/* SPDX-License-Identifier: MIT */
/* loop.h - what loop.c, link.c, idle.c, away.c, counters.c and endpoint.c share. */
#ifndef XSKE_LOOP_H
#define XSKE_LOOP_H

#include "grave.h"
#include "mix.h"
#include "spsc.h"

/* All mixes of the loop, the first to be due on top. */
struct schedule {
	struct xske_mix **heap;
	uint32_t count;
};

/* Who posts, in turns. */
enum loop_party { PARTY_ENDPOINTS, PARTY_MIXES, PARTY_TCP, PARTIES };

struct xske_loop {
	/* The loop thread's own. */
	struct xske_loop_config config;
	struct xske_txq *txq;
	struct xske_arena *arena;
	struct schedule mixes;
	struct xske_update *update; /* they wait until nothing of their flows is inflight */
	uint32_t updated;           /* flows of the first */
	struct outlet outlet;
	struct xske_endpoint *endpoints;
	struct xske_endpoint *backlog; /* endpoints whose turn is still to come in this round */
	struct xske_endpoint *served;  /* and those that have had it and have more */
	struct xske_endpoint **served_end;
	struct xske_tcp *tcp;      /* NULL: none */
	enum loop_party next_turn; /* whose it is */
	uint32_t mixes_left;       /* in this round */
	uint64_t state, error, error_errno, error_arg;
	uint64_t turns, backpressure, active_flows, finished_flows;
	uint64_t now_ns;
	uint64_t tai_offset_ns, tai_refreshed_ns;
	uint64_t first_post_ns, last_post_ns, last_completion_ns;
	uint64_t down_since_ns;              /* 0 = the link is up, as far as we know */
	uint64_t run_completed, run_dropped; /* packets, when the last one passed (link.c) */
	uint64_t probe_ns;                   /* when to kick again while it is down */
	uint64_t down_total_ns;
	uint64_t stalled_ns; /* inflight and nothing completed for so long */
	uint64_t waited_ns;  /* before that, since something completed: stalled, and away for it */
	uint64_t draining_ns;
	uint64_t idle_since_ns;
	uint64_t collected_ns; /* the last time */
	uint64_t sleep_ns;     /* the next back-off */
	uint64_t kicked_ns;    /* the last time */
	uint64_t spin_ns;      /* awake for so long before a paced packet */
	uint64_t away_since_ns;
	int away;           /* 0, XSKE_LOOP_PAUSED or XSKE_LOOP_STALLED: the caller has the thread */
	bool down_by_drops; /* the peer's end, not ours */
	bool parked;
	bool signal; /* somebody must look: write event_fd at the end of the turn */
	/* Shared (models: sleep_wake.pml, command_ring.pml, submit_ring.pml). */
	/* Store, fence, look for mail; mail, fence, look here: without both fences each may miss the other. Taken back relaxed:
	 * whoever gets the 1 writes the eventfd, and that orders. */
	alignas(XSKE_CACHE_LINE) _Atomic uint32_t sleeping;
	_Atomic uint32_t aborted; /* relaxed: the eventfd is written behind it in any case */
	/* Nobody reads commands or submit rings any more. Stored under command_lock, which orders it for commands; released for
	 * who submits or asks: what crosses it stays in the ring, and who destroys that drops it. */
	_Atomic uint32_t ended;
	/* Endpoints with fresh work, pushed by their threads: released for next_pending, acquired by the loop, which takes all. The
	 * seq_cst load before sleeping needs no more than the fence in front of it. */
	_Atomic(struct xske_endpoint *) pending;
	struct graveyard dead; /* under the umem's lock: endpoints and connections */
	/* One producer at a time, and none between the last look into the ring and `ended`. */
	pthread_mutex_t command_lock;
	struct spsc commands;
};

/* An application's way in. `arena` and the ring's producer side belong to the thread that has entered the
 * arena, the rest to the loop. */
struct xske_endpoint {
	struct xske_loop *loop;
	struct xske_arena *arena;
	struct xske_endpoint *next;         /* in loop->endpoints */
	struct xske_endpoint *next_pending; /* in loop->pending, backlog or served, while `queued` */
	struct watch *watch;                /* the loop's: for the frags to come */
	uint32_t watches_left;
	uint32_t max_frame_bytes;
	uint32_t flags;
	uint32_t batch;
	uint32_t turn_left; /* the loop's: packets of a turn that room has run out in */
	struct grave grave;
	/* Exchanged acq_rel on both sides: whoever finds the other's value has seen his ring (or list). As both only exchange it,
	 * no fence is needed between that and the look. */
	_Atomic uint32_t queued;
	_Atomic uint32_t state; /* released by the loop when it has done with the endpoint */
	/* Written by who has entered the arena; relaxed: figures, which may lag behind what is posted. */
	alignas(XSKE_CACHE_LINE) _Atomic uint64_t submitted_packets;
	_Atomic uint64_t submitted_bytes;
	_Atomic uint64_t submitted_descs;
	struct spsc submits;
};

/* In a submit ring, in front of `len` descs: addr points at a watch for each. */
#define DESC_WATCHES 0x80000000u

/* idle.c */
void loop_set_clock(struct xske_loop *l);
void loop_wake(struct xske_loop *l); /* any thread */
void loop_moved(struct xske_loop *l);
void loop_rest(struct xske_loop *l);
void loop_park(struct xske_loop *l);
void loop_collect(struct xske_loop *l); /* a flow has no chunk: what endpoints keep and do not use */
bool loop_has_work(const struct xske_loop *l);
bool loop_may_kick(const struct xske_loop *l);
bool loop_backed_off(const struct xske_loop *l);

/* link.c */
void link_down(struct xske_loop *l);
void link_up(struct xske_loop *l);
void link_shift(struct xske_loop *l, uint64_t ns); /* this time does not count */
void link_passed(struct xske_loop *l);             /* a packet was sent */
void link_dropped(struct xske_loop *l);            /* the kernel dropped one */

/* loop.c */
void loop_fail(struct xske_loop *l, enum xske_loop_error error, int err, uint64_t arg);
int loop_begin(struct xske_loop *l);
void loop_finish(struct xske_loop *l);
void loop_look(struct xske_loop *l);

/* schedule.c */
void mixes_start(struct xske_loop *l, struct xske_mix *m);
void mixes_end(struct xske_loop *l);
void mixes_update(struct xske_loop *l, struct xske_update *update);
void mixes_stop(struct xske_loop *l, struct xske_mix *m);
void mixes_repace(struct xske_loop *l, struct xske_repace *repace);
/* A round gives each mix that is due its turn; false: no room, the rest of the round is still to come. */
bool mixes_run(struct xske_loop *l, uint32_t limit, uint32_t *posted);
uint64_t mixes_next_ns(const struct xske_loop *l);
void mixes_shift(struct xske_loop *l, uint64_t ns);

/* away.c */
void loop_leave(struct xske_loop *l, enum xske_loop_state why);
void loop_come_back(struct xske_loop *l);

/* counters.c */
void counters_show(struct xske_loop *l); /* all but the state */
void counters_publish(struct xske_loop *l);

/* endpoint.c, for who sends. */
bool endpoint_is_open(const struct xske_endpoint *e);
bool endpoint_may_post(const struct xske_endpoint *e, uint64_t addr, uint32_t len); /* the kernel takes it */
void endpoint_hand_over(struct xske_endpoint *e); /* what its ring holds, to the loop */
void endpoint_count(struct xske_endpoint *e, uint32_t packets, uint32_t descs, uint64_t bytes);
/* For the loop's thread. A round gives each endpoint with work its turn, of at most its batch or `limit` packets;
 * false: no room, the rest of the round is still to come. */
bool endpoints_post(struct xske_loop *l, uint32_t limit, uint32_t *posted);
bool endpoints_have_work(const struct xske_loop *l);
void endpoint_add(struct xske_loop *l, struct xske_endpoint *e);
void endpoint_remove(struct xske_loop *l, struct xske_endpoint *e);
bool endpoints_park(struct xske_loop *l);

#endif
