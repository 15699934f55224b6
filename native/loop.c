/* SPDX-License-Identifier: MIT */
/*
 * loop.c - the poll loop of one txq, and an index of everything else: reap, take commands, post what
 * endpoints submitted and flows owe, kick, rest. One thread runs it; it never waits without a deadline.
 */
#include <errno.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "loop.h"
#include "tcp/tcp.h"

/* Commands of one engine: a start per flow and a few more. Full = -EAGAIN to the caller. */
#define COMMAND_ENTRIES 1024u

/* Deadlines count a turn as at most this long, so that a machine that stopped (a debugger, a suspended VM)
 * is not taken for a kernel that did. */
#define MAX_TURN_NS (50 * NSEC_PER_MSEC)

void COLD loop_fail(struct xske_loop *l, enum xske_loop_error error, int err, uint64_t arg)
{
	if (l->state == XSKE_LOOP_FAILED) /* in the same turn: the first is why */
		return;
	l->state = XSKE_LOOP_FAILED;
	l->error = error;
	l->error_errno = (uint64_t)err;
	l->error_arg = arg;
	l->signal = true;
}

static bool reap(struct xske_loop *l)
{
	struct xske_txq *q = l->txq;
	uint32_t n = txq_reap(q);

	if (!n)
		return false;
	if (unlikely(q->bad_completions))
		loop_fail(l, XSKE_ERROR_COMPLETION, EPROTO, q->bad_addr);
	l->last_completion_ns = l->now_ns;
	l->stalled_ns = l->waited_ns = 0;
	return true;
}

static void start_draining(struct xske_loop *l)
{
	mixes_end(l);
	if (l->state == XSKE_LOOP_RUNNING)
		l->state = XSKE_LOOP_DRAINING;
}

static bool take_commands(struct xske_loop *l)
{
	uint32_t first, ready = spsc_ready(&l->commands, &first);

	for (uint32_t i = 0; i < ready; i++) {
		const struct xske_desc *command = &l->commands.slots[(first + i) & l->commands.mask];
		void *object = (void *)(uintptr_t)command->addr;

		switch (command->len) {
		case XSKE_COMMAND_START_MIX:
			mixes_start(l, object);
			break;
		case XSKE_COMMAND_UPDATE:
			mixes_update(l, object);
			break;
		case XSKE_COMMAND_STOP_MIX:
			mixes_stop(l, object);
			break;
		case XSKE_COMMAND_REPACE:
			mixes_repace(l, object);
			break;
		case XSKE_COMMAND_ADD_ENDPOINT:
			endpoint_add(l, object);
			break;
		case XSKE_COMMAND_REMOVE_ENDPOINT:
			endpoint_remove(l, object);
			break;
		case XSKE_COMMAND_CONNECT:
			tcps_connect(l, object);
			break;
		case XSKE_COMMAND_PARK:
			loop_park(l);
			break;
		case XSKE_COMMAND_PAUSE:
			loop_leave(l, XSKE_LOOP_PAUSED);
			break;
		default:
			start_draining(l);
		}
	}
	spsc_pop(&l->commands, ready);
	return ready > 0;
}

/* Endpoints, mixes and connections take turns, round by round; where room runs out is where the next turn begins. */
static bool post(struct xske_loop *l, uint32_t limit)
{
	static bool (*const run[PARTIES])(struct xske_loop *, uint32_t, uint32_t *) = {
	        [PARTY_ENDPOINTS] = endpoints_post, [PARTY_MIXES] = mixes_run, [PARTY_TCP] = tcps_post};
	uint32_t posted = 0;

	for (int rounds = 0; rounds < PARTIES; rounds++) {
		if (!run[l->next_turn](l, limit, &posted))
			break;
		l->next_turn = (l->next_turn + 1) % PARTIES;
	}
	if (!l->txq->filled) /* answers to what has come are there already */
		return false;
	txq_submit(l->txq);
	l->last_post_ns = l->now_ns;
	if (unlikely(!l->first_post_ns))
		l->first_post_ns = l->now_ns;
	return true;
}

/* True when the kernel took something. */
static bool drive(struct xske_loop *l)
{
	struct xske_txq *q = l->txq;
	uint32_t unseen = txq_unseen(q);

	l->kicked_ns = l->now_ns;
	switch (kick(&q->kick)) {
	case KICK_OK:
		/* With nothing to send it only tells that our own end is up. */
		if (unlikely(l->down_since_ns) && (unseen || !l->down_by_drops))
			link_up(l);
		if (unseen)
			link_passed(l);
		break;
	case KICK_AGAIN:
	case KICK_NOBUFS:
		break;
	case KICK_DROPPED:
		link_dropped(l);
		break;
	case KICK_LINK_DOWN:
		link_down(l);
		break;
	case KICK_FATAL:
		loop_fail(l, XSKE_ERROR_KICK, q->kick.last_errno, txq_inflight(q));
		break;
	}
	return txq_unseen(q) != unseen;
}

/* With nothing to send: is the device still there? A link that is down is no news before there is something. */
void COLD loop_look(struct xske_loop *l)
{
	l->kicked_ns = l->now_ns;
	if (kick(&l->txq->kick) == KICK_FATAL)
		loop_fail(l, XSKE_ERROR_KICK, l->txq->kick.last_errno, txq_inflight(l->txq));
}

/* The link is down: one packet at a time asks whether it is back. */
static bool probe_link(struct xske_loop *l)
{
	if (l->now_ns < l->probe_ns)
		return false;
	if (!txq_unseen(l->txq)) {
		l->outlet.gaps = NULL; /* it comes when the probe does, not when it is due */
		l->outlet.probing = true;
		post(l, 1);
		l->outlet.probing = false;
		l->outlet.gaps = l->config.gaps;
	}
	drive(l);
	if (l->down_since_ns && l->state < XSKE_LOOP_STOPPED)
		link_down(l); /* whatever it said: not yet, until the deadline */
	return !l->down_since_ns;
}

/* A short flow must not hide a driver that has never done anything. */
static void COLD end_drain(struct xske_loop *l)
{
	if (l->txq->completed_descs)
		l->state = XSKE_LOOP_STOPPED;
	else
		loop_leave(l, XSKE_LOOP_STALLED);
}

static void check_deadlines(struct xske_loop *l, uint64_t turn_ns)
{
	bool starved;

	turn_ns = min_u64(turn_ns, MAX_TURN_NS);
	if (l->state == XSKE_LOOP_DRAINING) {
		l->draining_ns += turn_ns;
		if (l->tcp && (tcps_are_settled(l) || l->draining_ns > l->config.drain_timeout_ns / 2))
			tcps_end(l, true);
		if (!loop_has_work(l) && (!l->tcp || !l->tcp->conns))
			l->state = XSKE_LOOP_STOPPED;
		else if (l->draining_ns > l->config.drain_timeout_ns)
			end_drain(l);
	}
	/* A flow may wait for chunks that applications hold; without those it waits in vain. So does everybody for a kernel
	 * that takes nothing off the ring. */
	starved = (l->outlet.starved && !l->endpoints) || (txq_is_stuck(l->txq) && loop_has_work(l));
	if (l->state != XSKE_LOOP_RUNNING || l->down_since_ns || (!txq_inflight(l->txq) && !starved)) {
		l->stalled_ns = l->waited_ns = 0;
		return;
	}
	l->stalled_ns += turn_ns;
	if (unlikely(l->stalled_ns > l->config.progress_timeout_ns))
		loop_leave(l, XSKE_LOOP_STALLED);
}

static void COLD signal_event(struct xske_loop *l)
{
	const uint64_t one = 1;

	l->signal = false;
	if (l->config.event_fd >= 0 && write(l->config.event_fd, &one, sizeof(one)) < 0)
		return; /* full: whoever watches it has not looked yet */
}

static bool turn(struct xske_loop *l)
{
	uint64_t before = l->now_ns;
	bool moved;

	l->now_ns = l->config.clock.now_ns(l->config.clock.ctx);
	moved = reap(l);
	moved |= take_commands(l);
	if (l->tcp)
		moved |= tcps_turn(l);
	if (unlikely(l->down_since_ns)) {
		moved |= probe_link(l);
	} else if (likely(l->state < XSKE_LOOP_STOPPED)) {
		moved |= post(l, UINT32_MAX);
		/* Also with nothing unseen: a zero-copy driver may need it to clean up what it has sent. */
		if ((txq_unseen(l->txq) ? moved || loop_may_kick(l) : !moved && loop_backed_off(l)) &&
		    txq_wants_kick(l->txq))
			moved |= drive(l);
	}
	check_deadlines(l, before ? l->now_ns - before : 0);
	if (unlikely(atomic_load_explicit(&l->aborted, memory_order_relaxed)) && l->state < XSKE_LOOP_STOPPED)
		l->state = XSKE_LOOP_STOPPED;
	l->signal |= l->txq->owner_waits | l->txq->tracker_done;
	l->txq->owner_waits = l->txq->tracker_done = false;
	counters_publish(l);
	if (unlikely(l->signal))
		signal_event(l);
	return moved;
}

/* ---- life ---------------------------------------------------------------------------------------- */

int xske_loop_create(const struct xske_loop_config *config, struct xske_loop **out)
{
	struct xske_loop *l;

	if (!config->txq || !config->arena || !config->counters || config->arena->txq_id != config->txq->id ||
	    config->arena->umem != config->txq->umem || !(config->arena->flags & XSKE_ARENA_LOOP_OWNED))
		return -EINVAL;
	l = aligned_alloc(XSKE_CACHE_LINE, sizeof(*l));
	if (!l)
		return -ENOMEM;
	memset(l, 0, sizeof(*l));
	l->config = *config;
	l->txq = config->txq;
	l->arena = config->arena;
	l->served_end = &l->served;
	graveyard_init(&l->dead);
	loop_set_clock(l);
	loop_moved(l);
	if (!spsc_init(&l->commands, COMMAND_ENTRIES)) {
		free(l);
		return -ENOMEM;
	}
	pthread_mutex_init(&l->command_lock, NULL);
	l->txq->self = l->arena;
	l->outlet = (struct outlet){.q = l->txq, .gaps = config->gaps, .capture = config->capture};
	*out = l;
	return 0;
}

void xske_loop_destroy(struct xske_loop *l)
{
	if (!l)
		return;
	graveyard_free(&l->dead);
	pthread_mutex_destroy(&l->command_lock);
	free(l->commands.slots);
	free(l->mixes.heap);
	free(l);
}

int loop_begin(struct xske_loop *l)
{
	int err = xske_arena_enter(l->arena);

	if (err)
		return err;
	l->state = XSKE_LOOP_RUNNING;
	return 0;
}

/* Whatever ended it: references that the loop holds for others go back. Inflight chunks stay pinned, a
 * driver may still read them. */
void loop_finish(struct xske_loop *l)
{
	counters_show(l); /* why, before anybody hears that it has ended */
	pthread_mutex_lock(&l->command_lock);
	take_commands(l);   /* what came too late ends as what was running does; the next is refused */
	tcps_end(l, false); /* before `ended`: who sees that finds every connection over, and why */
	atomic_store_explicit(&l->ended, 1, memory_order_release);
	pthread_mutex_unlock(&l->command_lock);
	start_draining(l);
	while (l->endpoints)
		endpoint_remove(l, l->endpoints);
	txq_lose_watches(l->txq);
	xske_arena_park(l->arena);
	xske_arena_leave(l->arena);
	l->signal = true;
	counters_publish(l);
	signal_event(l);
}

int xske_loop_step(struct xske_loop *l)
{
	if (l->state == XSKE_LOOP_NEW) {
		int err = loop_begin(l);

		if (err)
			return err;
	}
	if (l->state >= XSKE_LOOP_STOPPED)
		return (int)l->state;
	if (unlikely(l->away))
		loop_come_back(l);
	if (!turn(l) && l->state < XSKE_LOOP_STOPPED && !l->away)
		loop_rest(l);
	else
		loop_moved(l);
	if (l->state >= XSKE_LOOP_STOPPED)
		loop_finish(l);
	else if (unlikely(l->away))
		return l->away;
	return (int)l->state;
}

int xske_loop_run(struct xske_loop *l)
{
	int state;

	/* The default slack of 50 us would be the error of every paced packet. */
	prctl(PR_SET_TIMERSLACK, 1000ul, 0ul, 0ul, 0ul);
	do {
		state = xske_loop_step(l);
	} while (state == XSKE_LOOP_RUNNING || state == XSKE_LOOP_DRAINING);
	return state;
}

int xske_loop_command(struct xske_loop *l, uint32_t op, void *object)
{
	const struct xske_desc command = {.addr = (uintptr_t)object, .len = op};
	int err = 0;

	if (op < XSKE_COMMAND_START_MIX || op > XSKE_COMMAND_CONNECT)
		return -EINVAL;
	pthread_mutex_lock(&l->command_lock);
	if (atomic_load_explicit(&l->ended, memory_order_relaxed))
		err = -EPIPE;
	else if (!spsc_push(&l->commands, &command, 1))
		err = -EAGAIN;
	pthread_mutex_unlock(&l->command_lock);
	if (!err)
		loop_wake(l);
	return err;
}

uint32_t xske_loop_commands(const struct xske_loop *l, uint32_t *done)
{
	/* Acquire pairs with the pop's release: what they did. */
	*done = atomic_load_explicit(&l->commands.tail, memory_order_acquire);
	return atomic_load_explicit(&l->commands.head, memory_order_relaxed);
}

void xske_loop_abort(struct xske_loop *l)
{
	const uint64_t one = 1;

	atomic_store_explicit(&l->aborted, 1, memory_order_relaxed);
	if (write(l->config.wake_fd, &one, sizeof(one)) < 0)
		return;
}

uint32_t xske_abi_version(void)
{
	return XSKE_ABI_VERSION;
}
