/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "gaps.h"
#include "metadata.h"
#include "tracker.h"
#include "txq.h"

_Static_assert(sizeof(struct xske_ring) == sizeof(struct xsk_ring_prod), "libxdp's producer ring");
_Static_assert(sizeof(struct xske_ring) == sizeof(struct xsk_ring_cons), "libxdp's consumer ring");
_Static_assert(offsetof(struct xske_ring, flags) == offsetof(struct xsk_ring_prod, flags), "ring flags");
_Static_assert(offsetof(struct xske_ring, producer) == offsetof(struct xsk_ring_prod, producer), "producer");
_Static_assert(sizeof(struct xske_desc) == sizeof(struct xdp_desc), "struct xdp_desc");

/* So many timeouts for a driver to look at the probe at all; then the loop will find out that it does not. */
#define PROBE_LOOKS 10u

static bool is_power_of_two(uint32_t n)
{
	return n && !(n & (n - 1));
}

static void take_over(struct xske_txq *q, const struct xske_txq_config *config)
{
	memcpy(&q->tx, &config->tx, sizeof(q->tx));
	memcpy(&q->cq, &config->cq, sizeof(q->cq));
	/* libxdp 1.3.1 leaves the cached indices of a caller's struct as they were. */
	q->tx.cached_prod = __atomic_load_n(q->tx.producer, __ATOMIC_RELAXED);
	q->tx.cached_cons = __atomic_load_n(q->tx.consumer, __ATOMIC_ACQUIRE) + q->tx.size;
	q->cq.cached_prod = __atomic_load_n(q->cq.producer, __ATOMIC_ACQUIRE);
	q->cq.cached_cons = __atomic_load_n(q->cq.consumer, __ATOMIC_RELAXED);
	q->need_wakeup = config->need_wakeup;
	q->probe_is_out = false;
	kick_init(&q->kick, config);
}

int xske_txq_create(struct xske_umem *umem, const struct xske_txq_config *config, struct xske_txq **out)
{
	struct xske_txq *q;

	if (!is_power_of_two(config->tx.size) || !is_power_of_two(config->cq.size))
		return -EINVAL;
	q = calloc(1, sizeof(*q));
	if (!q)
		return -ENOMEM;
	take_over(q, config);
	q->umem = umem;
	q->id = config->txq_id;
	/* A packet has at least one desc and inflight <= cq.size: the runs cannot overflow. */
	q->run_mask = q->cq.size * 2 - 1;
	q->runs = calloc((size_t)q->run_mask + 1, sizeof(*q->runs));
	q->watches = calloc(umem->chunk_count, sizeof(*q->watches));
	q->accounts = calloc(1, sizeof(*q->accounts));
	if (!q->runs || !q->watches || !q->accounts) {
		xske_txq_destroy(q);
		return -ENOMEM;
	}
	q->accounts[0].open = true;
	q->account_count = 1;
	*out = q;
	return 0;
}

void xske_txq_destroy(struct xske_txq *q)
{
	if (!q)
		return;
	if (q->watching)
		txq_lose_watches(q);
	free(q->kept);
	free(q->runs);
	free(q->watches);
	free(q->accounts);
	free(q);
}

int xske_txq_detach(struct xske_txq *q)
{
	uint32_t n = txq_inflight(q);

	/* Nothing has completed, so what is inflight is what was posted last, and still lies in the ring. */
	if (q->completed_descs || q->kept || n > q->tx.size)
		return -EBUSY;
	q->kept = malloc((n ? n : 1) * sizeof(*q->kept));
	if (!q->kept)
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++)
		q->kept[i] = *xsk_ring_prod__tx_desc(&q->tx, q->tx.cached_prod - n + i);
	return 0;
}

int xske_txq_attach(struct xske_txq *q, const struct xske_txq_config *config)
{
	uint32_t idx, n = txq_inflight(q);

	if (!q->kept || config->tx.size != q->tx.size || config->cq.size != q->cq.size)
		return -EINVAL;
	take_over(q, config);
	if (n && xsk_ring_prod__reserve(&q->tx, n, &idx) != n)
		return -EBUSY;
	for (uint32_t i = 0; i < n; i++)
		*xsk_ring_prod__tx_desc(&q->tx, idx + i) = q->kept[i];
	if (n)
		xsk_ring_prod__submit(&q->tx, n);
	free(q->kept);
	q->kept = NULL;
	return 0;
}

void txq_log_new_run(struct xske_txq *q, uint32_t bytes, uint32_t descs, uint32_t packets)
{
	q->runs[q->run_head++ & q->run_mask] =
	        (struct packet_run){bytes, (uint16_t)descs, (uint16_t)q->account, packets};
}

uint32_t txq_open_account(struct xske_txq *q)
{
	struct account *accounts;

	for (uint32_t i = 1; i < q->account_count; i++) {
		if (q->accounts[i].open || q->accounts[i].inflight)
			continue;
		q->accounts[i].open = true;
		return i;
	}
	if (q->account_count == MAX_ACCOUNTS)
		return 0;
	accounts = realloc(q->accounts, (q->account_count + 1) * sizeof(*accounts));
	if (!accounts)
		return 0;
	q->accounts = accounts;
	accounts[q->account_count] = (struct account){.open = true};
	return q->account_count++;
}

static void count_packets(struct xske_txq *q, uint32_t descs)
{
	q->run_credit += descs;
	while (q->run_tail != q->run_head) {
		struct packet_run *run = &q->runs[q->run_tail & q->run_mask];
		uint64_t n = run->descs == 1 ? q->run_credit : q->run_credit / run->descs;

		n = min_u64(n, run->packets);
		if (!n)
			return;
		q->run_credit -= (uint32_t)n * run->descs;
		q->completed_packets += n;
		q->completed_bytes += n * run->bytes;
		q->completed_wire_bytes += n * txq_wire_bytes(run->bytes);
		q->accounts[run->account].inflight -= (uint32_t)n * run->descs;
		run->packets -= n;
		if (run->packets)
			return;
		q->run_tail++;
	}
}

static void COLD bad_completions(struct xske_txq *q, uint64_t addr, uint32_t n)
{
	q->bad_completions += n;
	q->bad_addr = addr;
}

/* Of an endpoint. */
static void count_for(struct xske_txq *q, struct xske_arena *a, uint32_t descs)
{
	/* Store, then look who waits for them: pairs with xske_arena_await(). */
	atomic_store_explicit(&a->completed_descs, a->completed_descs + descs, memory_order_seq_cst);
	q->owner_waits |= arena_waits(a);
}

void txq_watch(struct xske_txq *q, const struct chunk *c, struct watch *w)
{
	struct watch **list = &q->watches[chunk_index(q->umem, c)];

	w->next = *list;
	*list = w;
	q->watching++;
}

/* The kernel has written where the request was; 0: there was none. Before the frag can be anybody else's. */
static uint64_t stamp_of(const struct xske_txq *q, uint64_t addr)
{
	const uint8_t *metadata;
	uint64_t flags, stamp;

	if (q->umem->metadata_len < XSKE_TX_METADATA_BYTES || addr < XSKE_TX_METADATA_BYTES ||
	    addr >= q->umem->len)
		return 0;
	metadata = q->umem->area + addr - XSKE_TX_METADATA_BYTES;
	memcpy(&flags, metadata, sizeof(flags));
	memcpy(&stamp, metadata + sizeof(flags), sizeof(stamp));
	/* Not of a desc behind the first; nor is it one where the request's own four bytes still stand. */
	return flags & TXMD_TIMESTAMP && stamp >> 32 ? stamp : 0;
}

static void COLD settle_watches(struct xske_txq *q, const struct chunk *c)
{
	struct watch **list = &q->watches[chunk_index(q->umem, c)], *w = *list, *next;

	*list = NULL;
	for (; w; w = next, q->watching--) {
		next = w->next;
		q->tracker_done |= watch_settle(w, stamp_of(q, w->addr));
	}
}

void COLD txq_lose_watches(struct xske_txq *q)
{
	for (uint32_t i = 0; q->watching && i < q->umem->chunk_count; i++) {
		struct watch *w = q->watches[i], *next;

		q->watches[i] = NULL;
		for (; w; w = next, q->watching--) {
			next = w->next;
			watches_lose(w, 1);
		}
	}
}

/* n completions of c, all of the same chunk. The judgement is per chunk: strangers and duplicates never take
 * a reference. Returns how many were right. */
static inline uint32_t complete(struct xske_txq *q, struct chunk *c, uint64_t addr, uint32_t n)
{
	uint32_t good = n;

	/* txq_id first: another loop's inflight is not ours to read. */
	if (unlikely(!c || c->txq_id != q->id || c->inflight < n)) {
		good = c && c->txq_id == q->id ? c->inflight : 0;
		bad_completions(q, addr, n - good);
		if (!good)
			return 0;
	}
	c->inflight -= good;
	if (chunk_arena(c) != q->self)
		count_for(q, chunk_arena(c), good);
	if (!c->inflight) {
		if (unlikely(q->watching))
			settle_watches(q, c);
		if (frag_unref(q->self, c))
			q->owner_waits = true;
	}
	return good;
}

/* Of the invalid desc: no frag starts at an odd byte. */
static uint64_t probe_addr(const struct xske_txq *q)
{
	return q->umem->len - 1;
}

static void COLD read_stamp(struct xske_txq *q, uint64_t addr)
{
	const struct chunk *c = chunk_of(q->umem, addr);
	uint64_t posted_ns, stamp = stamp_of(q, addr);

	if (!stamp || !c || !chunk_arena(c) || chunk_arena(c)->flags & ARENA_PIECES)
		return;
	/* What flow.c has put behind it. */
	memcpy(&posted_ns, q->umem->area + addr - sizeof(posted_ns), sizeof(posted_ns));
	if (q->last_stamp_ns && stamp >= q->last_stamp_ns)
		histogram_add(&q->gaps->wire, stamp - q->last_stamp_ns, 1);
	q->last_stamp_ns = stamp;
	if (!posted_ns) /* an endpoint's */
		return;
	if (stamp < posted_ns)
		q->gaps->negative_latency_packets++;
	else
		histogram_add(&q->gaps->latency, stamp - posted_ns, 1);
}

/* The probe's completion is not to be judged: it is taken off when it is first, and else left for the next look, with all
 * behind it. */
static void COLD take_probe(struct xske_txq *q, uint32_t *idx, uint32_t *n)
{
	uint32_t at = 0;

	while (at < *n && *xsk_ring_cons__comp_addr(&q->cq, *idx + at) != probe_addr(q))
		at++;
	if (at) {
		xsk_ring_cons__cancel(&q->cq, *n - at);
		*n = at;
	} else if (*n) {
		xsk_ring_cons__release(&q->cq, 1);
		q->probe_is_out = false;
		++*idx;
		--*n;
	}
}

uint32_t txq_reap(struct xske_txq *q)
{
	uint32_t idx, good = 0, run, n = xsk_ring_cons__peek(&q->cq, q->cq.size, &idx);
	uint32_t shift = q->umem->chunk_shift;

	if (unlikely(q->probe_is_out))
		take_probe(q, &idx, &n);
	if (!n)
		return 0;
	/* Mostly they come as they were posted, so neighbours share a chunk: one write for all of them. */
	for (uint32_t i = 0; i < n; i += run) {
		uint64_t addr = *xsk_ring_cons__comp_addr(&q->cq, idx + i);

		for (run = 1; i + run < n; run++)
			if (*xsk_ring_cons__comp_addr(&q->cq, idx + i + run) >> shift != addr >> shift)
				break;
		for (uint32_t at = i; unlikely(q->gaps != NULL) && at < i + run; at++)
			read_stamp(q, *xsk_ring_cons__comp_addr(&q->cq, idx + at));
		good += complete(q, chunk_of(q->umem, addr), addr, run);
	}
	xsk_ring_cons__release(&q->cq, n);
	q->completed_descs += good;
	count_packets(q, good);
	return n;
}

static uint64_t monotonic_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * NSEC_PER_SEC + (uint64_t)t.tv_nsec;
}

int xske_txq_probe_invalid(struct xske_txq *q, uint64_t timeout_ns)
{
	const struct timespec pause = {.tv_nsec = 50000};
	uint64_t now = monotonic_ns(), end = now + PROBE_LOOKS * timeout_ns;
	int result = XSKE_PROBE_UNSEEN;
	uint32_t idx;

	if (xsk_ring_prod__reserve(&q->tx, 1, &idx) != 1)
		return -EBUSY;
	*xsk_ring_prod__tx_desc(&q->tx, idx) = (struct xdp_desc){.addr = probe_addr(q)};
	xsk_ring_prod__submit(&q->tx, 1);
	for (; now < end; now = monotonic_ns()) {
		if (kick(&q->kick) == KICK_FATAL)
			return -q->kick.last_errno;
		if (xsk_ring_cons__peek(&q->cq, 1, &idx)) {
			xsk_ring_cons__release(&q->cq, 1);
			result = XSKE_PROBE_COMPLETED;
			break;
		}
		/* Copy mode looks within the kick, a driver in zero-copy when it gets round to it. */
		if (result == XSKE_PROBE_UNSEEN &&
		    __atomic_load_n(q->tx.consumer, __ATOMIC_ACQUIRE) == q->tx.cached_prod) {
			result = XSKE_PROBE_DROPPED;
			end = now + timeout_ns;
		}
		nanosleep(&pause, NULL);
	}
	q->probe_is_out = result != XSKE_PROBE_COMPLETED;
	kick_reset_counters(&q->kick); /* they count packets' kicks */
	return result;
}
