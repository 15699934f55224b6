/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

#include "edit.h"
#include "trace.h"

#define MAX_TAGS 2u /* that pass beside the MTU */

/* The longest packet that can be rewritten: libpcap's own limit (MAXIMUM_SNAPLEN, pcap-int.h). */
#define SCRATCH_BYTES (256u << 10)

/* A stream that has no room looks again after this time. Lower: a core for waiting; higher: the loop runs dry (a ring of
 * 2048 descs lasts 100 us at 20 Mpps). */
#define WAIT_NS (20 * NSEC_PER_USEC)

#define FIRST_DESCS 4096u

/* A year: more is no gap but a broken file, and sums of it would overflow. */
#define LONGEST_GAP_NS (365ull * 86400 * NSEC_PER_SEC)

/* struct pcap_pkthdr (pcap/pcap.h); with times in ns, tv_usec holds ns. */
struct file_header {
	struct timeval at;
	uint32_t captured;
	uint32_t len;
};

/* ---- life ---------------------------------------------------------------------------------------- */

static bool is_sound(const struct xske_trace_config *c)
{
	for (uint32_t i = 0; i < c->edit_count; i++) {
		const struct xske_edit *e = &c->edits[i];
		uint32_t end = e->offset + e->len;

		if (!e->len || e->len > sizeof(e->value) || e->layer > XSKE_EDIT_UNTAG || e->offset > 40 ||
		    (e->layer == XSKE_EDIT_ETH && end > 12) || (e->layer == XSKE_EDIT_PORTS && end > 4) ||
		    (e->layer == XSKE_EDIT_TAG && (e->offset || e->len != 2)) ||
		    (e->layer == XSKE_EDIT_IPV4 && end > 20) || (e->layer == XSKE_EDIT_IPV6 && end > 40))
			return false;
	}
	return c->max_bytes >= EDIT_ETH_BYTES && c->oversize <= XSKE_OVERSIZE_TRUNCATE &&
	       c->chunk_size > c->metadata_len && !(c->ring & (c->ring - 1)) &&
	       (!c->arena || (c->arena->umem->chunk_size == c->chunk_size &&
	                      c->arena->umem->metadata_len == c->metadata_len));
}

int xske_trace_create(const struct xske_trace_config *config, struct xske_trace **out)
{
	struct xske_trace *t;

	if (!is_sound(config))
		return -EINVAL;
	t = aligned_alloc(XSKE_CACHE_LINE, align_up(sizeof(*t), XSKE_CACHE_LINE));
	if (!t)
		return -ENOMEM;
	memset(t, 0, sizeof(*t));
	t->config = *config;
	t->umem = config->arena ? config->arena->umem : NULL;
	t->usable = config->chunk_size - config->metadata_len;
	t->max_bytes =
	        min_u32(config->max_bytes, XSKE_MAX_DESCS_PER_PACKET * t->usable - MAX_TAGS * EDIT_TAG_BYTES);
	t->allocated = config->ring ? config->ring : FIRST_DESCS;
	t->edits = calloc(config->edit_count + 1, sizeof(*t->edits));
	t->scratch = malloc(SCRATCH_BYTES + EDIT_GROWS);
	t->descs = config->arena ? malloc(t->allocated * sizeof(*t->descs)) : NULL;
	if (!t->edits || !t->scratch || (config->arena && !t->descs)) {
		xske_trace_destroy(t);
		return -ENOMEM;
	}
	if (config->edit_count)
		memcpy(t->edits, config->edits, config->edit_count * sizeof(*t->edits));
	*out = t;
	return 0;
}

void xske_trace_destroy(struct xske_trace *t)
{
	if (!t)
		return;
	for (uint64_t at = t->config.ring ? t->next.at : 0; at != t->filled && t->descs; at++)
		frag_unref(NULL, chunk_of(t->umem, trace_desc_at(t, at)->addr));
	free(t->descs);
	free(t->scratch);
	free(t->edits);
	free(t);
}

void xske_trace_close(struct xske_trace *t)
{
	atomic_store_explicit(&t->closed, 1, memory_order_relaxed);
}

int xske_trace_is_closed(const struct xske_trace *t)
{
	return (int)atomic_load_explicit(&t->closed, memory_order_relaxed);
}

void xske_trace_read(const struct xske_trace *t, struct xske_trace_stats *out)
{
	*out = t->stats;
}

void xske_trace_posted(const struct xske_trace *t, struct xske_flow_counters *out)
{
	*out = read_posted(&t->posted);
}

/* ---- taking ---------------------------------------------------------------------------------------- */

static void publish(struct xske_trace *t)
{
	/* Release: the packets' bytes and descs before it. */
	atomic_store_explicit(&t->head, t->filled, memory_order_release);
}

/* False: the loop has ended. */
static bool wait_for_room(struct xske_trace *t)
{
	const struct timespec pause = {.tv_nsec = WAIT_NS};

	if (xske_trace_is_closed(t))
		return false;
	nanosleep(&pause, NULL);
	return true;
}

static bool reserve_descs(struct xske_trace *t, uint32_t n)
{
	struct trace_desc *more;

	if (t->config.ring) {
		/* Acquire pairs with trace_post(): it has read what is written over. */
		while (t->filled + n - atomic_load_explicit(&t->tail, memory_order_acquire) > t->config.ring)
			if (!wait_for_room(t))
				return false;
		return true;
	}
	if (t->filled + n <= t->allocated)
		return true;
	more = realloc(t->descs, 2 * t->allocated * sizeof(*more));
	if (!more) {
		t->error = -ENOMEM;
		return false;
	}
	t->descs = more;
	t->allocated *= 2;
	return true;
}

static bool alloc_frag(struct xske_trace *t, uint32_t len, uint64_t *addr)
{
	while (arena_alloc(t->config.arena, len, addr)) {
		if (!t->config.ring)
			t->error = -ENOBUFS;
		if (!t->config.ring || !wait_for_room(t))
			return false;
	}
	return true;
}

/* Writes a packet behind the newest one. */
static bool store(struct xske_trace *t, const uint8_t *frame, uint32_t len)
{
	uint32_t n = (len + t->usable - 1) / t->usable;
	uint64_t at = t->filled;

	if (!reserve_descs(t, n))
		return false;
	for (uint32_t left = len, part; left; left -= part, frame += part, at++) {
		struct trace_desc *d = trace_desc_at(t, at);

		part = min_u32(left, t->usable);
		*d = (struct trace_desc){.len = part, .options = left > part ? XSKE_DESC_CONTD : 0};
		if (!alloc_frag(t, part, &d->addr)) {
			while (at-- > t->filled)
				frag_unref(t->config.arena, chunk_of(t->umem, trace_desc_at(t, at)->addr));
			return false;
		}
		memcpy(t->umem->area + d->addr, frame, part);
	}
	trace_desc_at(t, t->filled)->packet_bytes = len;
	trace_desc_at(t, t->filled)->packet_descs = n;
	return true;
}

/* As arena_alloc() would fill chunks. */
static void count_chunks(struct xske_trace *t, uint32_t len)
{
	for (uint32_t left = len, part; left; left -= part) {
		uint32_t need;

		part = min_u32(left, t->usable);
		need = align_up(part + t->config.metadata_len, FRAG_ALIGN);
		if (!t->stats.chunks || need > t->config.chunk_size - t->chunk_used) {
			t->stats.chunks++;
			t->chunk_used = 0;
		}
		t->chunk_used += need;
	}
}

static uint64_t max_gap_ns(const struct xske_trace *t)
{
	return t->config.max_gap_ns ? t->config.max_gap_ns : LONGEST_GAP_NS;
}

/* The newest packet's gap is known now, and so it may go. */
static void release_newest(struct xske_trace *t, uint64_t gap_ns)
{
	if (t->newest == t->filled)
		return;
	if (gap_ns > max_gap_ns(t)) {
		gap_ns = max_gap_ns(t);
		t->stats.long_gaps++;
	}
	t->stats.gaps_ns += gap_ns;
	if (t->descs) {
		trace_desc_at(t, t->newest)->gap_ns = gap_ns;
		publish(t);
	}
	t->newest = t->filled;
}

static uint64_t gap_to(struct xske_trace *t, uint64_t now_ns)
{
	if (t->pass_packets && now_ns < t->stats.last_ns) {
		t->stats.backward_packets++;
		return 0;
	}
	return t->pass_packets ? now_ns - t->stats.last_ns : 0;
}

/* Its length as it is sent, in the scratch buffer; 0: not at all. */
static uint32_t prepare(struct xske_trace *t, const uint8_t *bytes, uint32_t captured)
{
	uint32_t len = min_u32(captured, SCRATCH_BYTES), most, tags;

	if (len < EDIT_ETH_BYTES) {
		t->stats.short_packets++;
		return 0;
	}
	memcpy(t->scratch, bytes, len);
	len = edit_packet(t->edits, t->config.edit_count, t->scratch, len);
	tags = edit_tag_bytes(t->scratch, len);
	most = t->max_bytes + min_u32(tags, MAX_TAGS * EDIT_TAG_BYTES);
	if (len > most) {
		t->stats.oversize_packets++;
		t->stats.longest_bytes = len > t->stats.longest_bytes ? len : t->stats.longest_bytes;
		t->stats.refused |= t->config.oversize == XSKE_OVERSIZE_REFUSE;
		if (t->config.oversize != XSKE_OVERSIZE_TRUNCATE)
			return 0;
		len = most;
	}
	if (t->config.flags & XSKE_TRACE_FIX_CHECKSUMS)
		edit_fix_checksums(t->scratch, len);
	t->edited = len > captured || memcmp(t->scratch, bytes, len);
	return len;
}

void xske_trace_take(uint8_t *trace, const void *header, const uint8_t *bytes)
{
	struct xske_trace *t = (struct xske_trace *)(void *)trace;
	const struct file_header *h = header;
	uint64_t now_ns = (uint64_t)h->at.tv_sec * NSEC_PER_SEC + (uint64_t)h->at.tv_usec;
	uint32_t len;

	if (t->error || xske_trace_is_closed(t) || (t->stats.refused && t->descs))
		return;
	len = prepare(t, bytes, h->captured);
	if (!len)
		return;
	release_newest(t, gap_to(t, now_ns));
	if (t->descs && !store(t, t->scratch, len))
		return;
	count_chunks(t, len);
	t->filled += (len + t->usable - 1) / t->usable;
	t->stats.edited_packets += t->edited;
	t->stats.snapped_packets += h->captured < h->len;
	t->stats.longest_bytes = len > t->stats.longest_bytes ? len : t->stats.longest_bytes;
	t->stats.packets++;
	t->stats.bytes += len;
	t->stats.wire_bytes += txq_wire_bytes(len);
	t->pass_packets++;
	if (t->stats.packets == 1) /* not by its time, which may be 0 */
		t->stats.first_ns = now_ns;
	if (now_ns > t->stats.last_ns || t->pass_packets == 1)
		t->stats.last_ns = now_ns;
	if (t->config.flags & XSKE_TRACE_WITHOUT_GAPS)
		release_newest(t, 0);
}

int xske_trace_finish(struct xske_trace *t, int again)
{
	uint64_t gaps_ns = t->stats.gaps_ns, mean = 0;

	/* From the last packet to the first one of the next pass: the mean gap, so that the rate stays the file's. */
	if (t->pass_packets > 1)
		mean = (gaps_ns - t->pass_gaps_ns) / (t->pass_packets - 1);
	release_newest(t, mean);
	t->stats.gaps_ns = t->pass_gaps_ns = gaps_ns;
	t->pass_packets = 0;
	if (!again)
		atomic_store_explicit(&t->ended, 1, memory_order_release);
	return t->error;
}

uint32_t trace_max_bytes(const struct xske_trace *t)
{
	return t->max_bytes + MAX_TAGS * EDIT_TAG_BYTES;
}

uint32_t trace_max_descs(const struct xske_trace *t)
{
	return (trace_max_bytes(t) + t->usable - 1) / t->usable;
}
