/* SPDX-License-Identifier: MIT */
/*
 * libFuzzer over the flow runner: any configuration that is accepted must give descs that the kernel takes, packets of
 * the right length whose checksums add up, and leave no chunk behind. Offsets, masks, lengths, orders, paces and the
 * order of completions come from the input; which checksum covers which field is worked out here, by the bytes.
 */
#include "fuzz.h"
#include "mix.h"

#define CHUNKS 64u
#define RING 64u
#define MOST_FRAME 12000u
#define TURNS 24u

/* ---- the smallest kernel: holds what it took, completes when told ------------------------------------- */

struct kernel {
	uint32_t tx_producer, tx_consumer, cq_producer, cq_consumer, flags;
	struct xske_desc tx[RING];
	uint64_t cq[RING], held[RING];
	uint32_t holds;
};

static struct xske_ring ring(uint32_t *producer, uint32_t *consumer, void *slots, uint32_t *flags)
{
	return (struct xske_ring){.mask = RING - 1,
	                          .size = RING,
	                          .producer = producer,
	                          .consumer = consumer,
	                          .ring = slots,
	                          .flags = flags};
}

static void complete(struct kernel *k, uint32_t i)
{
	k->cq[k->cq_producer++ % RING] = k->held[i];
	memmove(&k->held[i], &k->held[i + 1], (--k->holds - i) * sizeof(*k->held));
}

/* ---- a flow from the input ------------------------------------------------------------------------------ */

struct plan {
	struct xske_flow_config config;
	struct xske_patch patches[8];
	struct xske_csum csums[3];
	uint32_t sizes[6], order[8];
	uint64_t values[4];
	uint8_t frame[MOST_FRAME];
};

static bool csum_covers(const struct xske_csum *s, int64_t at)
{
	return (at >= s->start && (!s->end || at < s->end)) ||
	       (at >= s->pseudo_offset && at < (int64_t)s->pseudo_offset + s->pseudo_len);
}

/* The checksums over all its bytes; false: it is under one in part, or twice. */
static bool find_csums(const struct plan *p, struct xske_patch *patch, const uint8_t *used)
{
	for (uint32_t i = 0; i < p->config.csum_count; i++) {
		const struct xske_csum *s = &p->csums[i];
		uint32_t inside = 0;

		for (uint32_t b = 0; b < patch->width; b++) {
			int64_t at = patch->offset + (int64_t)b;

			if (patch->offset < 0) /* the trailer lies behind everything else */
				inside += !s->end;
			else if (used[at] || at == s->offset || at == s->offset + 1)
				return false;
			else
				inside += csum_covers(s, at);
		}
		if (inside && inside != patch->width)
			return false;
		patch->csums |= (inside ? 1u : 0) << i;
	}
	for (uint32_t b = 0; patch->offset >= 0 && b < patch->width; b++)
		if (used[patch->offset + (int64_t)b])
			return false;
	return true;
}

static void plan_csums(struct plan *p, struct input *in, uint32_t shortest)
{
	uint32_t n = below(in, 4), at = 0;

	/* Side by side or one over all behind it, the inner ones first. */
	for (uint32_t i = 0; i < n; i++) {
		struct xske_csum *s = &p->csums[i];

		if (i && shortest <= 64)
			break;
		s->start = shortest > 64 ? (n - 1 - i) * 16 + 16 : 0;
		s->offset = s->start + 2 * below(in, 4);
		s->end = below(in, 2) ? s->start + 14 : 0;
		s->pseudo_offset = 0;
		s->pseudo_len = 2 * below(in, 8);
		s->constant = below(in, 256);
		s->flags = below(in, 2);
		if (s->offset + 2 > shortest || s->start + 14 > shortest || s->pseudo_len > s->start)
			break;
		p->config.csum_count = ++at;
	}
	for (uint32_t i = 0; i < at; i++)
		for (uint32_t k = i + 1; k < at; k++)
			if (csum_covers(&p->csums[k], p->csums[i].offset))
				p->csums[i].csums |= 1u << k;
}

static void plan_patches(struct plan *p, struct input *in, uint32_t shortest)
{
	uint8_t used[MOST_FRAME] = {0};
	uint32_t n = below(in, 9), tail = 0;

	for (uint32_t i = 0; i < n; i++) {
		struct xske_patch patch = {.kind = below(in, 5), .width = 1u << below(in, 4)};

		patch.mask = patch.width == 8 ? UINT64_MAX : (1ull << patch.width * 8) - 1;
		patch.offset = (int32_t)below(in, shortest);
		if (below(in, 8) == 0) {
			tail += patch.width;
			patch.offset = -(int32_t)tail;
		} else if (below(in, 3) == 0) {
			patch.shift = below(in, patch.width * 8);
			patch.mask &= take(in, 8) << patch.shift;
		}
		patch.base = take(in, 3);
		patch.step = take(in, 2);
		patch.modulo = below(in, 2) ? take(in, 2) : 0;
		patch.hold = below(in, 4);
		patch.key = take(in, 2);
		patch.values = p->values;
		patch.value_count = 1 + below(in, 4);
		if ((patch.offset >= 0 && patch.offset + patch.width > shortest) ||
		    !find_csums(p, &patch, used))
			continue;
		for (uint32_t b = 0; patch.offset >= 0 && b < patch.width; b++)
			used[patch.offset + (int64_t)b] = 1;
		p->patches[p->config.patch_count++] = patch;
	}
	/* A trailer must not reach into a field or a checksum. */
	for (uint32_t at = shortest > tail ? shortest - tail : 0; tail && at < shortest; at++) {
		bool clash = used[at] || shortest < tail + 80;

		if (clash) {
			p->config.patch_count = 0;
			return;
		}
	}
}

static void plan_flow(struct plan *p, struct input *in)
{
	uint32_t n = below(in, 6), shortest = 1 + below(in, MOST_FRAME - 100), longest = shortest;

	p->sizes[0] = shortest;
	for (uint32_t i = 1; i < n; i++) {
		p->sizes[i] = shortest + below(in, MOST_FRAME - shortest);
		longest = max_u32(longest, p->sizes[i]);
	}
	for (uint32_t i = 0; i < longest; i++)
		p->frame[i] = (uint8_t)(i * 13 + 7);
	for (uint32_t i = 0; i < 4; i++)
		p->values[i] = take(in, 2);
	p->config = (struct xske_flow_config){
	        .frame = p->frame,
	        .frame_len = longest,
	        .flags = below(in, 4) ? below(in, 2) * XSKE_FLOW_RANDOM_SIZES : XSKE_FLOW_TEMPLATES,
	        .size_count = n,
	        .sizes = n ? p->sizes : NULL,
	        .patches = p->patches,
	        .csums = p->csums,
	        .size_key = take(in, 1),
	        .weight = 1 + below(in, 3),
	        .queues = 1 + below(in, 3),
	};
	p->config.queue = below(in, p->config.queues);
	if (n && below(in, 2)) {
		p->config.order = p->order;
		p->config.order_len = 1 + below(in, 8);
		for (uint32_t i = 0; i < p->config.order_len; i++)
			p->order[i] = below(in, n);
	}
	plan_csums(p, in, shortest);
	if (!(p->config.flags & XSKE_FLOW_TEMPLATES))
		plan_patches(p, in, shortest);
}

/* ---- what must hold of every packet ------------------------------------------------------------------------ */

static uint64_t sum_of(const uint8_t *data, uint32_t start, uint32_t end)
{
	uint64_t sum = 0;

	for (uint32_t i = start; i < end; i++)
		sum += (uint64_t)data[i] << (i & 1 ? 0 : 8);
	return sum;
}

static void describe(const struct plan *p, uint32_t len)
{
	const struct xske_flow_config *c = &p->config;

	fprintf(stderr, "a packet of %u bytes; frame %u, sizes %u, flags %u, queue %u of %u\n", len,
	        c->frame_len, c->size_count, c->flags, c->queue, c->queues);
	for (uint32_t i = 0; i < c->csum_count; i++)
		fprintf(stderr, "checksum %u: at %u, %u to %u, pseudo %u, csums %x, flags %u\n", i,
		        p->csums[i].offset, p->csums[i].start, p->csums[i].end, p->csums[i].pseudo_len,
		        p->csums[i].csums, p->csums[i].flags);
	for (uint32_t i = 0; i < c->patch_count; i++)
		fprintf(stderr, "patch %u: at %d, width %u, kind %u, csums %x, mask %llx, shift %u\n", i,
		        p->patches[i].offset, p->patches[i].width, p->patches[i].kind, p->patches[i].csums,
		        (unsigned long long)p->patches[i].mask, p->patches[i].shift);
}

static void judge(const struct plan *p, const uint8_t *packet, uint32_t len)
{
	bool known = !p->config.sizes && len == p->config.frame_len;

	for (uint32_t i = 0; i < p->config.size_count; i++)
		known |= p->sizes[i] == len;
	must(known, "a packet has one of its flow's lengths");
	for (uint32_t i = 0; i < p->config.csum_count; i++) {
		const struct xske_csum *s = &p->csums[i];
		uint64_t sum = s->constant + sum_of(packet, s->start, s->end ? s->end : len);

		sum += sum_of(packet, s->pseudo_offset, s->pseudo_offset + s->pseudo_len);
		while (sum >> 16)
			sum = (sum & 0xffff) + (sum >> 16);
		if (sum != 0xffff && sum)
			describe(p, len);
		must(sum == 0xffff || sum == 0, "a checksum adds up");
	}
}

/* All packets that were posted since the last look; which flow's is not told, so the first one's rules hold for one. */
static void look(const struct plan *plans, uint32_t flows, const struct xske_umem *u, struct kernel *k)
{
	static uint8_t packet[MOST_FRAME + 4096];
	uint32_t len = 0, descs = 0;

	for (; k->tx_consumer != k->tx_producer; k->tx_consumer++) {
		const struct xske_desc *d = &k->tx[k->tx_consumer % RING];

		must(chunk_holds_desc(u, d->addr, d->len), "a desc is one that the kernel takes");
		must(len + d->len <= sizeof(packet) && ++descs <= XSKE_MAX_DESCS_PER_PACKET, "a packet ends");
		memcpy(packet + len, u->area + d->addr, d->len);
		len += d->len;
		k->held[k->holds++] = d->addr;
		if (d->options & XSKE_DESC_CONTD)
			continue;
		if (flows == 1)
			judge(&plans[0], packet, len);
		len = descs = 0;
	}
	must(!len, "the last packet is whole");
}

/* ---- one run ------------------------------------------------------------------------------------------------- */

struct world {
	struct xske_umem *umem;
	struct xske_arena *arena;
	struct xske_txq *txq;
	struct kernel kernel;
};

static int no_kick(void *ctx)
{
	(void)ctx;
	return 0;
}

static void open_world(struct world *w, struct input *in)
{
	static uint8_t area[CHUNKS * 4096u] __attribute__((aligned(4096)));
	uint32_t chunk = below(in, 2) ? 4096 : 2048;
	struct xske_umem_config umem = {area, (uint64_t)CHUNKS * chunk, chunk,
	                                below(in, 2) * XSKE_TX_METADATA_BYTES};
	struct xske_arena_config arena = {.quota_chunks = CHUNKS, .flags = XSKE_ARENA_LOOP_OWNED};
	struct kernel *k = &w->kernel;
	struct xske_txq_config txq = {.kick = no_kick,
	                              .tx = ring(&k->tx_producer, &k->tx_consumer, k->tx, &k->flags),
	                              .cq = ring(&k->cq_producer, &k->cq_consumer, k->cq, &k->flags)};

	must(!xske_umem_create(&umem, &w->umem) && !xske_arena_open(w->umem, &arena, &w->arena) &&
	             !xske_arena_enter(w->arena) && !xske_txq_create(w->umem, &txq, &w->txq),
	     "the world opens");
	w->txq->self = w->arena;
}

static void close_world(struct world *w)
{
	struct xske_audit audit;

	while (w->kernel.holds)
		complete(&w->kernel, 0);
	txq_reap(w->txq);
	must(!w->txq->bad_completions && !txq_inflight(w->txq), "everything completes");
	xske_arena_leave(w->arena);
	must(!xske_arena_close(w->arena), "the arena closes");
	must(!xske_umem_audit(w->umem, 1, &audit) && audit.pooled == audit.chunks, "no chunk is left behind");
	xske_txq_destroy(w->txq);
	xske_umem_destroy(w->umem);
}

static struct xske_mix *make_mix(struct world *w, struct input *in, struct plan *plans, uint32_t *flows)
{
	struct xske_flow *made[3];
	uint32_t order[8], wanted = *flows;
	struct xske_mix_config config = {.flows = made, .order = order, .batch = 1 + below(in, 100)};
	struct xske_mix *m;

	for (uint32_t i = 0; i < wanted; i++) {
		memset(&plans[i], 0, sizeof(plans[i]));
		plan_flow(&plans[i], in);
		if (!xske_flow_create(w->umem, &plans[i].config, &made[config.flow_count]))
			config.flow_count++;
	}
	*flows = config.flow_count == wanted ? wanted : 0;
	if (!config.flow_count)
		return NULL;
	config.order_len = config.flow_count == 1 ? 1 : 1 + below(in, 8);
	for (uint32_t i = 0; i < config.order_len; i++)
		order[i] = below(in, config.flow_count);
	config.count = below(in, 2) * take(in, 2);
	config.quota_frags = below(in, 3) ? 0 : below(in, RING);
	config.pace = (struct xske_pace_config){.rate_units = below(in, 2) * take(in, 4),
	                                        .period_ns = 1 + take(in, 4),
	                                        .packet_units = take(in, 2),
	                                        .byte_units = below(in, 3),
	                                        .burst = below(in, 4),
	                                        .burst_gap_units = take(in, 1),
	                                        .poisson = below(in, 2)};
	must(!xske_mix_create(&config, &m), "a mix of sound flows is sound");
	return m;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct plan plans[3];
	static struct xske_gaps gaps;
	struct input in = {data, data + size};
	struct world w = {0};
	struct outlet *o = calloc(1, sizeof(*o));
	uint32_t flows;
	struct xske_mix *m;

	open_world(&w, &in);
	flows = 1 + below(&in, 3);
	m = make_mix(&w, &in, plans, &flows);
	*o = (struct outlet){.q = w.txq, .gaps = &gaps, .now_ns = 1000};
	if (m && !mix_load(m, w.txq, o->now_ns)) {
		for (uint32_t turn = 0; turn < TURNS; turn++) {
			o->now_ns += take(&in, 2) * 1000;
			o->tai_ns = o->now_ns;
			if (!mix_is_over(m, o->now_ns))
				mix_run(m, o, UINT32_MAX);
			txq_submit(w.txq);
			look(plans, flows, w.umem, &w.kernel);
			for (uint32_t n = below(&in, RING); n-- > 0 && w.kernel.holds;)
				complete(&w.kernel, below(&in, 4) ? 0 : below(&in, w.kernel.holds));
			txq_reap(w.txq);
		}
		mix_unload(m, w.txq);
	}
	close_world(&w);
	xske_mix_destroy(m);
	free(o);
	return 0;
}
