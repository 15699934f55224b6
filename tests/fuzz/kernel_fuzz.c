/* SPDX-License-Identifier: MIT */
/*
 * libFuzzer over a loop whose kernel is hostile: it completes addrs that it never got, twice or not at all, lets the indices
 * of its rings jump, asks to be woken or not, answers kicks with any errno, and writes any stamps. Whatever it does, the
 * loop counts per chunk what a model here counts, drops no reference, comes to an end or says why it does not, and in the
 * end every chunk is free or still with the kernel.
 */
#include <errno.h>

#include "kernel_scene.h"

#define FRAME 64u

/* ---- the kernel ------------------------------------------------------------------------------------------ */

static uint64_t some_addr(struct world *w, struct input *in)
{
	uint32_t how = byte(in), held = fake_held(w->kernel);
	uint64_t addr = take(in, 2);

	switch (how % 6) {
	case 0: /* one that it has, and keeps */
		return held ? fake_held_desc(w->kernel, (uint32_t)addr % held).addr : addr;
	case 1: /* in the same chunk */
		return held ? fake_held_desc(w->kernel, (uint32_t)addr % held).addr / CHUNK * CHUNK + byte(in)
		            : addr;
	case 2:
		return addr % CHUNKS * CHUNK + byte(in);
	case 3: /* around the end */
		return w->umem->len - 2 + addr % 4;
	case 4:
		return ((uint64_t *)w->cq.ring)[addr % CQ]; /* once more */
	default:
		return take(in, 8);
	}
}

/* A stamp where the request stands, as the kernel writes it. */
static void stamp(struct world *w, struct input *in)
{
	uint32_t held = fake_held(w->kernel);
	uint64_t addr, value = take(in, 8) >> (byte(in) & 63);

	if (!held)
		return;
	addr = fake_held_desc(w->kernel, byte(in) % held).addr;
	memcpy(w->area + addr - XSKE_TX_METADATA_BYTES + 8, &value, sizeof(value));
}

static void answer_kicks(struct world *w, struct input *in)
{
	static const int ERRNOS[] = {EAGAIN, EBUSY, ENOBUFS, ENETDOWN, ENXIO, EINTR, ENOMEM, 0};
	uint32_t which = byte(in), times = byte(in);

	fake_script(w->kernel, which < 0xf0 ? ERRNOS[which % 8] : (int8_t)byte(in),
	            times > 250   ? UINT32_MAX
	            : times > 240 ? 2000
	                          : times % 16);
}

static void move_indices(struct world *w, struct input *in)
{
	uint32_t how = byte(in), by = how & 8 ? (uint32_t)take(in, 4) : byte(in) % 64;

	switch (how % 5) {
	case 0: /* the tx ring's, for a moment or from now on */
		*w->tx.consumer = w->lie = *w->tx.producer - by;
		w->lies = how & 16;
		break;
	case 1:
		*w->tx.consumer = w->lie = *w->tx.producer + by;
		w->lies = how & 16;
		break;
	case 2: /* the completion ring's */
		*w->cq.producer += by;
		break;
	case 3:
		*w->tx.flags = how & 16 ? by : !*w->tx.flags;
		break;
	default:
		w->lies = false;
	}
}

/* ---- the application ------------------------------------------------------------------------------------- */

static void start_mix(struct world *w, struct input *in)
{
	uint8_t frame[FRAME] = {2};
	uint32_t how = byte(in), order[1] = {0};
	struct xske_patch patch = {.offset = 20, .width = 4, .mask = UINT32_MAX, .step = 1};
	struct xske_flow_config flow = {.frame = frame,
	                                .frame_len = FRAME,
	                                .flags = (how & 1 ? XSKE_FLOW_TEMPLATES : 0) |
	                                         (how & 2 ? XSKE_FLOW_TIMESTAMP : 0),
	                                .patch_count = !(how & 1),
	                                .patches = &patch,
	                                .weight = 1,
	                                .queues = 1};
	struct xske_flow *made;
	struct xske_mix_config mix = {
	        .flows = &made, .order = order, .flow_count = 1, .order_len = 1, .batch = 1 + byte(in) % 32};

	if (w->mix_count == MIXES)
		return;
	if (how & 4)
		mix.pace = (struct xske_pace_config){
		        .rate_units = 1, .period_ns = 1000ull << (how >> 5), .packet_units = 1};
	mix.count = how & 8 ? byte(in) : 0;
	mix.quota_frags = how & 16 ? 1 + byte(in) % 16 : 0;
	must(!xske_flow_create(w->umem, &flow, &made) && !xske_mix_create(&mix, &w->mixes[w->mix_count]),
	     "a mix");
	(void)xske_loop_command(w->loop, XSKE_COMMAND_START_MIX, w->mixes[w->mix_count++]);
}

static void send_some(struct world *w, struct input *in)
{
	uint8_t frame[FRAME] = {2};
	uint32_t n = 1 + byte(in) % 8;

	while (n-- > 0)
		(void)xske_endpoint_send(w->endpoint, NULL, frame, FRAME);
}

static void post_watched(struct world *w)
{
	struct xske_span span;
	struct xske_desc d;

	if (w->tracker || xske_endpoint_alloc(w->endpoint, NULL, 1, FRAME, &span))
		return;
	must(!xske_tracker_create(1, &w->tracker), "a tracker");
	d = (struct xske_desc){span.addr, FRAME, 0};
	if (xske_endpoint_post(w->endpoint, NULL, &d, 1, w->tracker) != 1)
		xske_frag_unref(w->umem, NULL, span.addr);
	xske_tracker_close(w->tracker);
}

static void command(struct world *w, struct input *in)
{
	static const uint32_t OPS[] = {XSKE_COMMAND_PARK, XSKE_COMMAND_PAUSE, XSKE_COMMAND_STOP_MIX,
	                               XSKE_COMMAND_DRAIN};
	uint32_t how = byte(in), op = OPS[how % 4];

	if (op == XSKE_COMMAND_STOP_MIX && !w->mix_count)
		return;
	(void)xske_loop_command(w->loop, op,
	                        op == XSKE_COMMAND_STOP_MIX ? w->mixes[how / 4 % w->mix_count] : NULL);
}

static void act(struct world *w, struct input *in)
{
	static const uint64_t WAITS_NS[] = {0, 10000, MS, PROGRESS_NS, LINK_NS, 1000, 50000, 2 * MS};
	uint32_t what = byte(in);

	switch (what % 16) {
	case 0:
	case 1:
	case 2:
		for (uint32_t n = 1 + what / 16; n-- > 0;)
			world_step(w);
		break;
	case 3:
		(void)fake_run(w->kernel, world_step, w, fake_clock(w->kernel) + WAITS_NS[what / 16 % 8],
		               500);
		break;
	case 4:
		if (fake_held(w->kernel))
			(void)fake_complete(w->kernel, byte(in) % fake_held(w->kernel));
		break;
	case 5:
		fake_complete_oldest(w->kernel, 1 + what / 16);
		break;
	case 6:
		(void)fake_complete_addr(w->kernel, some_addr(w, in));
		break;
	case 7:
		answer_kicks(w, in);
		break;
	case 8:
		fake_policy(w->kernel, byte(in) % 32, what / 16 & 1);
		break;
	case 9:
		move_indices(w, in);
		break;
	case 10:
		stamp(w, in);
		break;
	case 11:
		start_mix(w, in);
		break;
	case 12:
		command(w, in);
		break;
	case 13:
		post_watched(w);
		break;
	case 14:
		fake_lossy(w->kernel, what / 16);
		break;
	default:
		send_some(w, in);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, data + size};
	struct world *w = calloc(1, sizeof(*w));

	world_open(w, byte(&in));
	while (in.at < in.end && w->page.state < XSKE_LOOP_STOPPED)
		act(w, &in);
	world_expect_progress(w);
	world_close(w);
	free(w);
	return 0;
}
