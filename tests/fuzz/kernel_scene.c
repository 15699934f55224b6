/* SPDX-License-Identifier: MIT */
#include "kernel_scene.h"

/* ---- the model ------------------------------------------------------------------------------------------- */

/* What the loop took off the completion ring in this turn. */
static void model_completions(struct world *w, const uint64_t *slots, uint32_t from)
{
	for (uint32_t at = from; at != *w->cq.consumer; at++) {
		uint64_t addr = slots[at & w->cq.mask];

		if (w->probe_is_out && addr == w->umem->len - 1) {
			w->probe_is_out = false;
		} else if (addr >= w->umem->len || chunk_of(w->umem, addr)->txq_id ||
		           !w->inflight[addr / CHUNK]) {
			w->bad++;
		} else {
			w->inflight[addr / CHUNK]--;
			w->completed++;
		}
	}
}

static void model_posts(struct world *w)
{
	for (; w->tx_seen != *w->tx.producer; w->tx_seen++) {
		const struct xske_desc *d = &((struct xske_desc *)w->tx.ring)[w->tx_seen & w->tx.mask];

		must(chunk_holds_desc(w->umem, d->addr, d->len), "a desc is one that the kernel takes");
		w->inflight[d->addr / CHUNK]++;
		w->submitted++;
	}
}

static void compare(const struct world *w)
{
	const struct xske_counters *page = &w->page;
	struct xske_audit audit;

	must(page->submitted_descs == w->submitted && page->completed_descs == w->completed &&
	             page->inflight_descs == w->submitted - w->completed && page->bad_completions == w->bad,
	     "every desc is counted once");
	must(page->inflight_descs <= CQ, "the kernel has room for every completion");
	must(page->completed_packets <= page->submitted_packets, "no packet completes that was not sent");
	must(!w->bad || page->state == XSKE_LOOP_FAILED, "a completion that cannot be ends the loop");
	must(page->state != XSKE_LOOP_FAILED || (page->error && page->error <= XSKE_ERROR_RING_FULL),
	     "who fails says why");
	must((page->error == XSKE_ERROR_COMPLETION) == (w->bad > 0), "and names such a completion");
	must(w->gaps.post.max_ns <= fake_clock(w->kernel), "no gap is longer than all time so far");
	if (page->turns % 16 && page->state < XSKE_LOOP_STOPPED) /* it takes its time */
		return;
	for (uint32_t i = 0; i < CHUNKS; i++)
		must(w->umem->chunks[i].inflight == w->inflight[i], "what is inflight of every chunk");
	must(!xske_umem_audit(w->umem, 1, &audit), "every chunk is in one place");
}

int world_step(void *world)
{
	struct world *w = world;
	uint64_t slots[CQ];
	uint32_t from = *w->cq.consumer;

	memcpy(slots, w->cq.ring, sizeof(slots));
	w->state = xske_loop_step(w->loop);
	model_completions(w, slots, from);
	model_posts(w);
	compare(w);
	return w->state;
}

/* ---- one run --------------------------------------------------------------------------------------------- */

static int hostile_kick(void *world)
{
	struct world *w = world;
	int err = fake_kick(w->kernel);

	if (w->lies)
		*w->tx.consumer = w->lie;
	return err;
}

static uint64_t now_ns(void *world)
{
	return fake_now(((struct world *)world)->kernel);
}

static void sleep_ns(void *world, uint64_t ns)
{
	fake_sleep(((struct world *)world)->kernel, ns);
}

static struct xske_arena *open_arena(struct world *w, uint32_t txq_id, uint32_t flags)
{
	struct xske_arena_config config = {.quota_chunks = 24, .txq_id = txq_id, .flags = flags};
	struct xske_arena *a;

	must(!xske_arena_open(w->umem, &config, &a), "an arena");
	return a;
}

/* A chunk of another loop's, with something inflight there: never ours to complete. */
static void own_foreign(struct world *w)
{
	uint64_t addr = 0;

	w->foreign_arena = open_arena(w, 1, 0);
	must(!xske_arena_enter(w->foreign_arena) && !xske_frag_alloc(w->foreign_arena, CHUNK - 24, &addr),
	     "a foreign frag");
	w->umem->chunks[addr / CHUNK].inflight = w->inflight[addr / CHUNK] = 1;
	xske_arena_leave(w->foreign_arena);
}

void world_open(struct world *w, uint32_t how)
{
	struct xske_umem_config umem = {
	        .len = CHUNKS * CHUNK, .chunk_size = CHUNK, .metadata_len = XSKE_TX_METADATA_BYTES};
	struct xske_txq_config txq = {.kick = hostile_kick, .kick_ctx = w, .fd = -1, .need_wakeup = how & 1};
	struct xske_loop_config loop = {
	        .counters = &w->page,
	        .gaps = how & 2 ? &w->gaps : NULL,
	        .clock = {.now_ns = now_ns, .sleep_ns = sleep_ns, .ctx = w, .virtual_time = how >> 2 & 1},
	        .link_timeout_ns = LINK_NS,
	        .progress_timeout_ns = PROGRESS_NS,
	        .drain_timeout_ns = DRAIN_NS,
	        .wake_fd = -1,
	        .event_fd = -1};
	struct xske_endpoint_config endpoint = {
	        .entries = 16, .max_frame_bytes = 1514, .flags = XSKE_ENDPOINT_TIMESTAMPS, .batch = 4};

	umem.area = w->area = aligned_alloc(CHUNK, umem.len);
	memset(w->area, 0, umem.len);
	must(!xske_umem_create(&umem, &w->umem), "a umem");
	w->kernel = fake_create(TX, CQ, UINT32_MAX - 20);
	fake_rings(w->kernel, &w->tx, &w->cq);
	w->tx_seen = *w->tx.producer;
	txq.tx = w->tx;
	txq.cq = w->cq;
	must(!xske_txq_create(w->umem, &txq, &w->txq), "a txq");
	w->txq->probe_is_out = w->probe_is_out = how >> 3 & 1;
	loop.txq = w->txq;
	loop.arena = w->loop_arena = open_arena(w, 0, XSKE_ARENA_LOOP_OWNED);
	must(!xske_loop_create(&loop, &w->loop), "a loop");
	if (how & 16)
		own_foreign(w);
	if (how & 32)
		return;
	endpoint.arena = w->app_arena = open_arena(w, 0, 0);
	must(!xske_endpoint_create(w->loop, &endpoint, &w->endpoint) &&
	             !xske_loop_command(w->loop, XSKE_COMMAND_ADD_ENDPOINT, w->endpoint),
	     "an endpoint");
}

void world_expect_progress(struct world *w)
{
	uint64_t before, half = fake_clock(w->kernel) + LONG_NS / 2;
	int32_t turns = fake_run(w->kernel, world_step, w, half, BUSY_TURNS);

	before = w->completed;
	if (w->state > XSKE_LOOP_DRAINING || turns < 0)
		return; /* it has said so, or is busy */
	(void)fake_run(w->kernel, world_step, w, half + LONG_NS / 2, BUSY_TURNS);
	must(w->state > XSKE_LOOP_DRAINING || w->completed != before ||
	             (w->submitted == w->completed && !w->page.active_flows && !loop_has_work(w->loop)),
	     "no wait without an end");
}

static void end_loop(struct world *w)
{
	(void)xske_loop_command(w->loop, XSKE_COMMAND_DRAIN, NULL);
	for (uint32_t times = 0; w->page.state < XSKE_LOOP_STOPPED; times++) {
		must(times < 8, "a loop that is asked to end ends");
		must(fake_run(w->kernel, world_step, w, fake_clock(w->kernel) + LONG_NS, MOST_TURNS) >= 0 ||
		             w->page.state >= XSKE_LOOP_STOPPED,
		     "in not too many turns");
		if (w->state == XSKE_LOOP_STALLED)
			xske_loop_give_up(w->loop, XSKE_ERROR_NO_PROGRESS);
	}
	compare(w);
}

void world_close(struct world *w)
{
	struct xske_audit audit;
	uint32_t chunks = 0;

	end_loop(w);
	must(!w->tracker || xske_tracker_state(w->tracker) != XSKE_TRACKER_PENDING,
	     "no tracker is forgotten");
	xske_tracker_destroy(w->tracker);
	xske_endpoint_destroy(w->endpoint);
	xske_loop_destroy(w->loop);
	for (uint32_t i = 0; i < w->mix_count; i++)
		xske_mix_destroy(w->mixes[i]);
	must(!xske_arena_close(w->loop_arena) && (!w->app_arena || !xske_arena_close(w->app_arena)) &&
	             (!w->foreign_arena || !xske_arena_close(w->foreign_arena)),
	     "the arenas close");
	for (uint32_t i = 0; i < CHUNKS; i++)
		chunks += w->inflight[i] > 0;
	must(!xske_umem_audit(w->umem, 1, &audit) && audit.referenced == chunks &&
	             audit.pooled == CHUNKS - chunks,
	     "what is not with the kernel is free");
	xske_txq_destroy(w->txq);
	fake_destroy(w->kernel);
	xske_umem_destroy(w->umem);
	free(w->area);
}
