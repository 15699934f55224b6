/* SPDX-License-Identifier: MIT */
/*
 * xske.h - THE ABI of libxske: every struct, prototype and return code that Python (or another
 * embedder) may see. Python mirrors the structs in xsk_engine/_ffi/native.py; tests/ffi compares both
 * with what the compiler says. A change of meaning or layout here bumps XSKE_ABI_VERSION.
 *
 * Return codes: 0 (or a count) on success, a negative errno on failure. -EAGAIN always means "would
 * block": out of quota, out of chunks, ring full; nothing was consumed. -EBUSY: the object is in use by
 * another thread. Everything else is a caller's fault or a lack of memory.
 *
 * Objects and who may call:
 *   umem    any thread; create and destroy from one
 *   arena   the thread that has entered it (xske_arena_enter), one at a time
 *   txq     the thread that runs its loop
 *   loop    xske_loop_run: one thread. xske_loop_command, counter pages: any
 *   endpoint  any thread, one at a time: -EBUSY to a second one
 *   frag    whoever holds a reference
 *   tcp     xske_tcp_create, _destroy: while its loop does not run. Connections: any thread, one at a time for each:
 *           -EBUSY to a second one that writes; xske_tcp_info, _state, _abort: any
 *   check   frames: one thread. Reading: any
 *   receiver  xske_receiver_run: one thread. xske_receiver_stop, its counters: any
 *   wire    xske_wire_run: one thread. xske_wire_stop, its counters: any
 * Units: lengths in bytes, times in ns of CLOCK_MONOTONIC, addr = byte offset into the umem.
 */
#ifndef XSKE_H
#define XSKE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define XSKE_API __attribute__((visibility("default")))
#define XSKE_ABI_VERSION 10u

XSKE_API uint32_t xske_abi_version(void);

/* ---- umem and its chunk pool ------------------------------------------------------------------ */

struct xske_umem;

struct xske_umem_config {
	void *area;            /* start of the registered region, owned by the caller */
	uint64_t len;          /* multiple of chunk_size */
	uint32_t chunk_size;   /* 2048 or 4096 */
	uint32_t metadata_len; /* bytes in front of every desc, multiple of 8, < 256; 0 without tx metadata */
};
/* What flows need there: sizeof(struct xsk_tx_metadata), include/uapi/linux/if_xdp.h, Linux 6.17 */
#define XSKE_TX_METADATA_BYTES 24u

/* Where every chunk is. Exact when quiescent (see xske_umem_audit). */
struct xske_audit {
	uint32_t chunks;     /* all of them */
	uint32_t pooled;     /* in the chunk pool */
	uint32_t stacked;    /* on the arenas' local stacks */
	uint32_t returned;   /* on the arenas' return lists */
	uint32_t referenced; /* refs > 0 */
	uint32_t inflight;   /* of the referenced: posted and not completed */
	uint32_t lost;       /* on no list and without a reference: a bug */
	uint32_t doubled;    /* on two lists, or on a list with a reference: a bug */
	uint32_t arenas;     /* open ones, and closed ones that wait for chunks */
	uint32_t reserved;
	uint64_t inflight_descs; /* the chunks' own counts, added up */
};

XSKE_API int xske_umem_create(const struct xske_umem_config *config, struct xske_umem **out);
/* Frees the bookkeeping; the area stays the caller's. No thread may hold a frag. */
XSKE_API void xske_umem_destroy(struct xske_umem *umem);
/* strict: walk every list; only while no thread allocates or releases. 0 = clean, else -EUCLEAN.
 * Not strict: states counted one by one while others run; always 0. */
XSKE_API int xske_umem_audit(struct xske_umem *umem, int strict, struct xske_audit *out);

/* ---- arena and frags (the contract stands in arena.h) ------------------------------------------- */

struct xske_arena;

#define XSKE_ARENA_LOOP_OWNED 1u /* frags handed out are released by the owning (loop) thread itself */
#define XSKE_ARENA_POISON 2u     /* -EUCLEAN from allocations when a dead frag's bytes were written */
#define XSKE_SLAB_CHUNKS 16u

struct xske_arena_config {
	uint32_t quota_chunks; /* most chunks it may own, >= 1 */
	uint32_t txq_id;       /* the one txq its frags may be posted on */
	uint32_t flags;        /* XSKE_ARENA_* */
	uint32_t reserved;
};

struct xske_arena_stats {
	uint64_t allocated_frags;
	uint64_t recycled_chunks;      /* chunks that came back, any way */
	uint64_t cross_thread_returns; /* of them: over the return list */
	uint64_t quota_waits;          /* allocations refused: quota or pool exhausted */
	uint32_t owned_chunks;
	uint32_t reserved;
};

XSKE_API int xske_arena_open(struct xske_umem *umem, const struct xske_arena_config *config,
                             struct xske_arena **out);
/* The caller must not use the arena afterwards; its frags stay valid until their last reference. */
XSKE_API int xske_arena_close(struct xske_arena *arena);
XSKE_API int xske_arena_enter(struct xske_arena *arena); /* -EBUSY: another thread is in */
XSKE_API void xske_arena_leave(struct xske_arena *arena);
XSKE_API void xske_arena_park(struct xske_arena *arena);        /* gives back all that is not referenced */
XSKE_API int xske_arena_park_if_idle(struct xske_arena *arena); /* enters for it; 0: another thread is in */
XSKE_API void xske_arena_read_stats(const struct xske_arena *arena, struct xske_arena_stats *out);
/* Announces that the owner is about to wait for chunks, room or completions: the loop's event_fd will say so, once.
 * Then look again before you wait. */
XSKE_API void xske_arena_await(struct xske_arena *arena);

/* -EAGAIN at the quota, -EMSGSIZE above chunk_size - metadata_len, -EINVAL for 0 bytes. */
XSKE_API int xske_frag_alloc(struct xske_arena *arena, uint32_t len, uint64_t *addr);
/* self: the arena that the calling thread has entered, or NULL. */
XSKE_API int xske_frag_ref(struct xske_umem *umem, uint64_t addr);
/* 0, or 1 when the owner of the recycled chunk waits at its quota: wake it. */
XSKE_API int xske_frag_unref(struct xske_umem *umem, struct xske_arena *self, uint64_t addr);
struct xske_desc;
/* The same for n of them, by any thread: 1 when any of their owners waits. */
XSKE_API int xske_frags_unref(struct xske_umem *umem, const struct xske_desc *descs, uint32_t n);

/* ---- rings ------------------------------------------------------------------------------------- */

/* Same layout as libxdp's struct xsk_ring_prod and xsk_ring_cons (xdp/xsk.h), checked in txq.c. */
struct xske_ring {
	uint32_t cached_prod;
	uint32_t cached_cons;
	uint32_t mask;
	uint32_t size;
	uint32_t *producer;
	uint32_t *consumer;
	void *ring;
	uint32_t *flags;
};

/* One post, as the loop takes it from an endpoint's submit ring. */
struct xske_desc {
	uint64_t addr;
	uint32_t len;
	uint32_t options; /* XSKE_DESC_* */
};
#define XSKE_DESC_CONTD 1u            /* mirrors XDP_PKT_CONTD, include/uapi/linux/if_xdp.h, Linux 6.6 */
#define XSKE_DESC_METADATA 2u         /* mirrors XDP_TX_METADATA, as above, Linux 6.8 */
#define XSKE_MAX_DESCS_PER_PACKET 18u /* MAX_SKB_FRAGS + 1 in copy mode, net/xdp/xsk.c */

struct xske_txq;

/* Returns 0, or the errno that sendto() failed with. Replaceable so that tests need no socket. */
typedef int (*xske_kick_fn)(void *ctx);

struct xske_txq_config {
	struct xske_ring tx; /* taken over: the caller's copy must not be used any more */
	struct xske_ring cq;
	xske_kick_fn kick; /* NULL: sendto(fd) */
	void *kick_ctx;
	int32_t fd;
	uint32_t txq_id;      /* what the arenas' txq_id is compared with */
	uint32_t need_wakeup; /* 1: kick only when the kernel asks for it */
	uint32_t reserved;
};

XSKE_API int xske_txq_create(struct xske_umem *umem, const struct xske_txq_config *config,
                             struct xske_txq **out);
XSKE_API void xske_txq_destroy(struct xske_txq *txq);
/* Posts one desc of length 0 and looks whether it comes back; waits timeout_ns after the kernel has looked at
 * it. An enum xske_probe, or a negative errno of the kick. Before the loop runs. */
enum xske_probe {
	XSKE_PROBE_DROPPED = 0,
	XSKE_PROBE_COMPLETED = 1,
	XSKE_PROBE_UNSEEN = 2, /* and if the kernel looks later, it will count the desc as invalid */
};
XSKE_API int xske_txq_probe_invalid(struct xske_txq *txq, uint64_t timeout_ns);
/* To another socket, where the first one has completed nothing: detach while the old rings are still mapped,
 * attach when there are new ones of the same sizes; everything inflight is submitted again. While the loop
 * does not run. -EBUSY: something has completed. */
XSKE_API int xske_txq_detach(struct xske_txq *txq);
XSKE_API int xske_txq_attach(struct xske_txq *txq, const struct xske_txq_config *config);

/* Puts n chunks on an empty fill ring, for a driver in zero-copy to receive into: it takes the whole queue,
 * and without them what others receive there is lost. -ENOSPC: the ring is smaller. */
XSKE_API int xske_rx_fill(const struct xske_ring *fill, const uint64_t *addrs, uint32_t n);

/* ---- flows ------------------------------------------------------------------------------------- */

/* How the values of a field follow from the flow's sequence; index = sequence / hold. */
enum xske_patch_kind {
	XSKE_PATCH_RANGE = 0, /* base + step * (index % modulo); modulo 0 = never wraps */
	XSKE_PATCH_LIST = 1,  /* values[index % value_count] */
	XSKE_PATCH_RANDOM =
	        2, /* base + step * r, r from 0 to modulo - 1 (modulo 0: 64 bits) by key and sequence */
	XSKE_PATCH_LENGTH = 3, /* the packet's length - base; not counted from the end */
	XSKE_PATCH_TIME = 4,   /* CLOCK_TAI of the post */
};

/* Some bits of the packet that change from one to the next, written big-endian. */
struct xske_patch {
	int32_t offset;       /* of the bytes that hold them; negative: from the packet's end */
	uint32_t width;       /* of those: 1, 2, 4 or 8; 0 writes nothing and only counts in checksums */
	uint32_t kind;        /* enum xske_patch_kind */
	uint32_t csums;       /* bit i: the flow's checksum i covers it */
	uint32_t shift;       /* the value stands so many bits up */
	uint32_t value_count; /* of a list */
	uint64_t mask;        /* which bits of those bytes are its own */
	uint64_t base;
	uint64_t step;
	uint64_t modulo;
	uint64_t hold; /* packets with the same value; 0 = 1 */
	uint64_t key;
	const uint64_t *values; /* copied */
};
#define XSKE_MAX_PATCHES 48u

/* An Internet checksum (RFC 1071), kept right whatever the patches and the length do. In an order in which one
 * that is covered by another comes first. All offsets but `end` are even. */
struct xske_csum {
	uint32_t offset;        /* where it stands */
	uint32_t start;         /* the first byte it covers */
	uint32_t end;           /* and the last but one; 0 = the packet's end */
	uint32_t pseudo_offset; /* bytes elsewhere that it covers too: the addresses */
	uint32_t pseudo_len;
	uint32_t constant; /* added: the protocol */
	uint32_t csums;    /* bit i: checksum i covers this one */
	uint32_t flags;    /* XSKE_CSUM_* */
};
#define XSKE_CSUM_UDP 1u     /* a sum of 0 is sent as 0xffff (RFC 768) */
#define XSKE_CSUM_PARTIAL 2u /* only the pseudo header's sum: the device does the rest, see offload_start */
#define XSKE_MAX_CSUMS 8u

struct xske_flow_config {
	const uint8_t *frame; /* the template, frame_len bytes: the longest packet; copied, as all arrays */
	uint32_t frame_len;   /* bytes without FCS */
	uint32_t flags;       /* XSKE_FLOW_* */
	uint32_t patch_count;
	uint32_t csum_count;
	uint32_t size_count;
	uint32_t order_len;
	const struct xske_patch *patches;
	const struct xske_csum *csums;
	const uint32_t *sizes; /* the different lengths of its packets; NULL = frame_len alone */
	const uint32_t *order; /* packet i has length sizes[order[i % order_len]]; NULL = 0, 1, 2, ... */
	uint64_t size_key;     /* of XSKE_FLOW_RANDOM_SIZES */
	uint32_t weight;       /* its packets in a block of its mix */
	uint32_t queue;        /* this txq sends blocks queue, queue + queues, ... */
	uint32_t queues;
	uint32_t offload_start;  /* the device's checksum: what it covers from here on */
	uint32_t offload_offset; /* and where it stands, counted from there; 0 = none */
	uint32_t reserved;
};
#define XSKE_FLOW_TEMPLATES                                                                                  \
	1u /* nothing changes but lengths: one template per length, posted again and again */
#define XSKE_FLOW_RANDOM_SIZES 2u /* order[r], not order[i] */
#define XSKE_FLOW_TIMESTAMP 4u    /* the kernel says when each packet left (tx metadata) */

struct xske_flow;

XSKE_API int xske_flow_create(struct xske_umem *umem, const struct xske_flow_config *config,
                              struct xske_flow **out);
/* Only when its loop is not running, or has never got it. */
XSKE_API void xske_flow_destroy(struct xske_flow *flow);

/* What a flow has posted so far. */
struct xske_flow_counters {
	uint64_t packets;
	uint64_t bytes; /* of frames without FCS */
};
/* Of n flows, by any thread, at any time. */
XSKE_API void xske_flow_read(struct xske_flow *const *flows, uint32_t n, struct xske_flow_counters *out);

/* ---- replay: the packets of a capture file --------------------------------------------------------- */

/* Bytes of a header that are rewritten in every packet that has it; the checksums over them follow. */
enum xske_edit_layer {
	XSKE_EDIT_ETH = 0,
	XSKE_EDIT_IPV4 = 1,  /* the outermost */
	XSKE_EDIT_IPV6 = 2,  /* the outermost */
	XSKE_EDIT_PORTS = 3, /* of TCP, UDP or UDP-Lite in it */
	XSKE_EDIT_TAG = 4,   /* the outermost VLAN tag's TCI; a packet without one gets one */
	XSKE_EDIT_UNTAG = 5, /* all VLAN tags go */
};
struct xske_edit {
	uint32_t layer;  /* enum xske_edit_layer */
	uint32_t offset; /* in its header */
	uint32_t len;    /* 1 to 16 */
	uint32_t flags;  /* XSKE_EDIT_* */
	uint8_t value[16];
	uint8_t mask[16]; /* which bits of them */
};
#define XSKE_EDIT_KEEP_GROUP 1u /* not where the first byte says multicast or broadcast */

/* A packet that is longer than the device takes. */
enum xske_oversize {
	XSKE_OVERSIZE_REFUSE = 0, /* nothing more is taken */
	XSKE_OVERSIZE_SKIP = 1,
	XSKE_OVERSIZE_TRUNCATE = 2,
};

struct xske_trace_config {
	struct xske_arena *arena; /* not the loop's; entered by who takes. NULL: packets are only counted */
	const struct xske_edit *edits; /* copied */
	uint32_t edit_count;
	uint32_t flags;      /* XSKE_TRACE_* */
	uint32_t max_bytes;  /* of a frame without FCS and VLAN tags */
	uint32_t oversize;   /* enum xske_oversize */
	uint64_t max_gap_ns; /* longer ones are shortened; 0 = none */
	uint32_t chunk_size; /* of the umem, as the next: known before it is there */
	uint32_t metadata_len;
	uint32_t ring;   /* descs that wait for the loop, power of two: a stream; 0 = all packets stay */
	uint32_t passes; /* over packets that stay; 0 = without end */
};
#define XSKE_TRACE_FIX_CHECKSUMS 1u /* computed anew, whatever they were */
#define XSKE_TRACE_WITHOUT_GAPS 2u  /* a packet may go before the next one has come */

struct xske_trace_stats {
	uint64_t packets;    /* taken, as the next */
	uint64_t bytes;      /* of frames without FCS */
	uint64_t wire_bytes; /* with FCS, preamble and gap, padded */
	uint64_t longest_bytes;
	uint64_t oversize_packets; /* by enum xske_oversize refused, skipped or truncated */
	uint64_t edited_packets;   /* that edits or checksums have changed */
	uint64_t snapped_packets;  /* which the file holds the beginning of only */
	uint64_t short_packets;    /* without an Ethernet header: skipped */
	uint64_t backward_packets; /* older than the one before: sent right behind it */
	uint64_t long_gaps;        /* beyond max_gap_ns */
	uint64_t gaps_ns;          /* between them, as they are kept */
	uint64_t first_ns;         /* the file's times */
	uint64_t last_ns;
	uint64_t chunks;  /* that they fill */
	uint64_t refused; /* 1: by XSKE_OVERSIZE_REFUSE */
};

struct xske_trace;

XSKE_API int xske_trace_create(const struct xske_trace_config *config, struct xske_trace **out);
/* When its loop has ended, or has never got it, and nobody takes. */
XSKE_API void xske_trace_destroy(struct xske_trace *trace);
/* The next packet: a pcap_handler (pcap/pcap.h) for files read with times in ns. A stream waits for room here,
 * until the loop has ended or xske_trace_close. */
XSKE_API void xske_trace_take(uint8_t *trace, const void *header, const uint8_t *bytes);
/* The file is over. again: it comes once more. Otherwise the loop ends behind the last packet, when it has made its
 * passes. -ENOMEM: a packet was lost for want of memory, -ENOBUFS of chunks. */
XSKE_API int xske_trace_finish(struct xske_trace *trace, int again);
XSKE_API void xske_trace_close(struct xske_trace *trace); /* any thread */
XSKE_API int xske_trace_is_closed(const struct xske_trace *trace);
/* By who takes, or when nobody does. */
XSKE_API void xske_trace_read(const struct xske_trace *trace, struct xske_trace_stats *out);
/* What the loop has posted of it; any thread. */
XSKE_API void xske_trace_posted(const struct xske_trace *trace, struct xske_flow_counters *out);

/* When packets are due: time buys rate_units per period_ns, packets cost units (native/pace.h). */
struct xske_pace_config {
	uint64_t rate_units; /* 0 = as fast as possible */
	uint64_t period_ns;
	uint64_t packet_units; /* per packet */
	uint64_t byte_units;   /* per byte of max(length, min_bytes) + overhead_bytes */
	uint64_t first_units;  /* before the first packet: the queues take turns */
	uint64_t
	        burst_gap_units; /* after a burst, instead of its last packet's; 0: a burst pays at its end */
	uint64_t key;            /* of the Poisson gaps */
	uint32_t overhead_bytes;
	uint32_t min_bytes;
	uint32_t burst;    /* packets; 0 = no bursts */
	uint32_t poisson;  /* 1: costs are exponential, with this mean */
	uint32_t recorded; /* 1: a packet of a trace costs as many units as ns to the next */
	uint32_t reserved;
};

/* Flows that share one pace, in an order that repeats; or a trace. */
struct xske_mix;

struct xske_mix_config {
	struct xske_flow *const *flows; /* the mix's from now on: destroyed with it */
	const uint32_t *order; /* one block: order_len indexes into flows, each as often as it has weight */
	uint32_t flow_count;
	uint32_t order_len;
	struct xske_pace_config pace;
	uint64_t count;           /* packets to send, 0 = no limit */
	uint64_t duration_ns;     /* from the first post, time with the link down not counted; 0 = no limit */
	uint32_t quota_frags;     /* most descs inflight, 0 = the completion ring's size */
	uint32_t batch;           /* most packets per turn of the loop */
	struct xske_mix *beside;  /* another one, started and destroyed with this one; NULL = none */
	struct xske_trace *trace; /* instead of flows; the mix's from now on */
};

XSKE_API int xske_mix_create(const struct xske_mix_config *config, struct xske_mix **out);
/* Only when it has ended, its loop is not running, or has never got it. */
XSKE_API void xske_mix_destroy(struct xske_mix *mix);
/* 1: it and those beside it have posted all they will, and the loop has forgotten them. Any thread. */
XSKE_API int xske_mix_has_ended(const struct xske_mix *mix);
/* Once it has ended: 0, or why one of them could not start. ENOMEM: no chunks for its templates. */
XSKE_API int xske_mix_error(const struct xske_mix *mix);

/* Another pace while it runs, from the moment the loop sees it. */
struct xske_repace {
	struct xske_mix *mix; /* this one, not those beside it */
	struct xske_pace_config pace;
	uint32_t done; /* 1, released: the loop has forgotten it */
	uint32_t reserved;
};

/* Bytes of templates that change while running (a gateway's MAC), under no checksum: written when none of the flow's
 * is inflight, in the order of the commands. */
struct xske_update {
	struct xske_flow *const *flows;
	uint32_t flow_count;
	uint32_t offset;
	uint32_t len; /* 1 to 8 */
	uint8_t bytes[8];
	uint32_t done;            /* 1, released: the loop has forgotten it */
	struct xske_update *next; /* the loop's */
};

/* ---- gaps between packets ------------------------------------------------------------------------- */

/* Buckets of a histogram over ns: 16 of 1 ns, then 8 to every power of two. */
#define XSKE_BUCKETS 496u

struct xske_histogram {
	uint64_t count;
	uint64_t sum_ns;
	uint64_t min_ns;
	uint64_t max_ns;
	uint64_t bucket[XSKE_BUCKETS];
};

/* Written by the loop, as the counters. */
struct xske_gaps {
	struct xske_histogram post;  /* between a mix's packets, taken at the post */
	struct xske_histogram error; /* how far each of them was from what the pace asked */
	struct xske_histogram wire;  /* between the kernel's tx timestamps */
	/* From the post (CLOCK_TAI, as XSKE_PATCH_TIME) to the tx timestamp, of flows. It means something only where the
	 * stamps are of the same clock: in copy mode. */
	struct xske_histogram latency;
	uint64_t negative_latency_packets; /* stamped before they were posted: in no histogram */
	uint64_t paced_ns;                 /* the sum of the gaps that had a pace */
	uint64_t asked_ns;                 /* and of what it asked */
};

/* ---- capture: what is sent, as it is sent ----------------------------------------------------------- */

/* A ring of pcap records (nanoseconds, native byte order) from the loop to one reader. */
struct xske_capture;

/* bytes: power of two. limit: packets to take, 0 = all; then the rest is sent unseen. offset_ns: added (modulo
 * 2^64) to the loop's clock for the records' times. */
XSKE_API int xske_capture_create(uint64_t bytes, uint64_t limit, uint64_t offset_ns,
                                 struct xske_capture **out);
XSKE_API void xske_capture_destroy(struct xske_capture *capture);
/* Up to len bytes of whole records; how many. The loop waits while the ring is full. One thread at a time. */
XSKE_API uint64_t xske_capture_read(struct xske_capture *capture, void *to, uint64_t len);
/* Takes nothing more: the reader has gone. Any thread. */
XSKE_API void xske_capture_close(struct xske_capture *capture);

/* ---- a device that is none: for looking at traffic without sending it ------------------------------- */

struct xske_null;

#define XSKE_NULL_START_NS 1000000000u

/* Rings of `size` entries and a kick that completes everything; time passes only by sleeping, from START on. */
XSKE_API int xske_null_create(uint32_t size, struct xske_null **out);
XSKE_API void xske_null_destroy(struct xske_null *null);

/* ---- the loop ----------------------------------------------------------------------------------- */

enum xske_loop_state {
	XSKE_LOOP_NEW = 0,
	XSKE_LOOP_RUNNING = 1,
	XSKE_LOOP_DRAINING = 2,
	XSKE_LOOP_STOPPED = 3, /* drained, or the drain deadline passed */
	XSKE_LOOP_FAILED = 4,  /* error_* say why */
	/* Only returned by xske_loop_run, whose next call goes on; the time between does not count. */
	XSKE_LOOP_PAUSED = 5,  /* XSKE_COMMAND_PAUSE */
	XSKE_LOOP_STALLED = 6, /* no progress within a deadline: the caller goes on or gives up */
};

enum xske_loop_error {
	XSKE_ERROR_NONE = 0,
	XSKE_ERROR_KICK = 1,        /* error_errno: what sendto said */
	XSKE_ERROR_LINK_DOWN = 2,   /* longer than link_timeout_ns */
	XSKE_ERROR_NO_PROGRESS = 3, /* error_arg: inflight descs */
	XSKE_ERROR_COMPLETION = 4,  /* error_arg: an addr that was not inflight */
	XSKE_ERROR_RING_FULL = 5,   /* though all has completed; never given to xske_loop_give_up */
};

/* Written by the loop once a turn, read by anybody: aligned 64-bit words, no tearing. */
struct xske_counters {
	uint64_t state; /* enum xske_loop_state */
	uint64_t error; /* enum xske_loop_error */
	uint64_t error_errno;
	uint64_t error_arg;
	uint64_t submitted_packets;
	uint64_t submitted_descs;
	uint64_t submitted_bytes;   /* frame bytes without FCS */
	uint64_t completed_packets; /* all descs of the packet came back */
	uint64_t completed_descs;
	uint64_t completed_bytes;
	uint64_t completed_wire_bytes; /* with preamble, FCS, gap (24), frames below 60 padded */
	uint64_t inflight_descs;
	uint64_t bad_completions; /* addrs that were not inflight: unknown, duplicate or foreign */
	uint64_t kick_calls;
	uint64_t kick_eagain;
	uint64_t kick_ebusy; /* = packets dropped by the kernel */
	uint64_t kick_enobufs;
	uint64_t kick_enetdown;
	uint64_t kick_other;
	uint64_t backpressure;  /* turns in which a flow was due and had no room */
	uint64_t link_down_ns;  /* time that does not count: waiting for the link, or away from the loop */
	uint64_t first_post_ns; /* 0 = nothing posted yet */
	uint64_t last_post_ns;
	uint64_t last_completion_ns;
	uint64_t active_flows;
	uint64_t finished_flows;  /* have posted all they will */
	uint64_t allocated_frags; /* of the loop's own arena, as the four that follow */
	uint64_t recycled_chunks;
	uint64_t cross_thread_returns;
	uint64_t quota_waits;
	uint64_t owned_chunks;
	uint64_t turns; /* of the loop */
};

/* The loop's view of time; tests put a fake one in. NULL functions: the real clock and ppoll. */
struct xske_clock {
	uint64_t (*now_ns)(void *ctx);
	void (*sleep_ns)(void *ctx, uint64_t ns); /* may return early */
	void *ctx;
	uint32_t virtual_time; /* 1: time passes only by sleeping, so nothing is awaited awake */
	uint32_t reserved;
};

/* The null device's part of a loop: rings and kick, and its clock. */
XSKE_API void xske_null_attach(struct xske_null *null, struct xske_txq_config *txq, struct xske_clock *clock);

struct xske_loop_config {
	struct xske_txq *txq;
	struct xske_arena *arena;       /* loop-owned; entered by xske_loop_run */
	struct xske_counters *counters; /* outlives the loop, as the next two */
	struct xske_gaps *gaps;         /* NULL: not taken */
	struct xske_capture *capture;   /* NULL: none */
	struct xske_clock clock;
	uint64_t link_timeout_ns;
	uint64_t progress_timeout_ns; /* inflight without a completion for so long = stalled */
	uint64_t drain_timeout_ns;
	int32_t wake_fd;  /* eventfd: wakes the loop */
	int32_t event_fd; /* eventfd: the loop wakes whoever watches it; -1 = nobody */
};

enum xske_command_op {
	XSKE_COMMAND_START_MIX = 1,       /* object: struct xske_mix, and those `beside` it */
	XSKE_COMMAND_ADD_ENDPOINT = 2,    /* object: struct xske_endpoint */
	XSKE_COMMAND_REMOVE_ENDPOINT = 3, /* what it submitted and was not posted goes back */
	XSKE_COMMAND_DRAIN = 4,           /* stop the flows, wait for completions, leave */
	XSKE_COMMAND_PARK = 5,            /* give idle memory back now; turns says when it has */
	XSKE_COMMAND_PAUSE = 6,           /* xske_loop_run returns XSKE_LOOP_PAUSED */
	XSKE_COMMAND_UPDATE = 7,          /* object: struct xske_update */
	XSKE_COMMAND_STOP_MIX = 8,        /* object: struct xske_mix, and those `beside` it */
	XSKE_COMMAND_REPACE = 9,          /* object: struct xske_repace */
	XSKE_COMMAND_CONNECT = 10,        /* object: struct xske_tcp_conn */
};

struct xske_loop;

XSKE_API int xske_loop_create(const struct xske_loop_config *config, struct xske_loop **out);
XSKE_API void xske_loop_destroy(struct xske_loop *loop);
/* Runs until drained, failed, paused or stalled; returns which enum xske_loop_state. */
XSKE_API int xske_loop_run(struct xske_loop *loop);
/* By the loop's thread, instead of running on (after XSKE_LOOP_STALLED or _PAUSED) or for the first time: ends it, with this
 * enum xske_loop_error unless it was draining. */
XSKE_API void xske_loop_give_up(struct xske_loop *loop, uint32_t error);
/* While it is away, and by the thread it is away with: does anybody want it back? An enum xske_called. */
XSKE_API int xske_loop_called(struct xske_loop *loop);
enum xske_called {
	XSKE_NOT_CALLED = 0,
	XSKE_CALLED_BY_COMMAND = 1,
	XSKE_CALLED_TO_ABORT = 2,
};
/* One turn without sleeping; for tests. Returns the state. */
XSKE_API int xske_loop_step(struct xske_loop *loop);
XSKE_API int xske_loop_command(struct xske_loop *loop, uint32_t op, void *object);
/* Commands given so far, modulo 2^32, and those that the loop has carried out: what they name may go then. */
XSKE_API uint32_t xske_loop_commands(const struct xske_loop *loop, uint32_t *done);
/* Async-signal-safe and thread-safe: leave now, drain nothing. */
XSKE_API void xske_loop_abort(struct xske_loop *loop);

/* ---- an endpoint: an arena and its submit ring into the loop ------------------------------------- */

/* What stands in front of every payload, as it is but for lengths and checksums, which are written per packet. */
#define XSKE_HEADER_BYTES 80u
struct xske_header {
	uint64_t words[XSKE_HEADER_BYTES /
	               8];  /* the bytes: Ethernet, tags, IPv4 without options or IPv6, UDP */
	uint32_t len;       /* of them */
	uint32_t ip_offset; /* where IPv4 or IPv6 begins; UDP follows it */
};
/* Another Ethernet destination, while others send with it. */
XSKE_API void xske_header_set_mac(struct xske_header *header, const uint8_t mac[6]);

struct xske_endpoint;

struct xske_endpoint_config {
	struct xske_arena *arena;
	uint32_t entries;         /* of the submit ring, power of two */
	uint32_t max_frame_bytes; /* without FCS: the longest that the device takes */
	uint32_t flags;           /* XSKE_ENDPOINT_* */
	uint32_t batch;           /* most packets per turn of the loop, >= 1 */
};
#define XSKE_ENDPOINT_TIMESTAMPS 1u /* the kernel says when each packet left (tx metadata) */

XSKE_API int xske_endpoint_create(struct xske_loop *loop, const struct xske_endpoint_config *config,
                                  struct xske_endpoint **out);
/* When its state is XSKE_ENDPOINT_REMOVED, or after the loop ended; before the loop is destroyed. A call that comes a
 * moment too late still gets its -EPIPE. */
XSKE_API void xske_endpoint_destroy(struct xske_endpoint *endpoint);

/* Copies payloads into frags and hands them to the loop. header NULL: they are whole frames. A packet may take
 * several descs. -EMSGSIZE: longer than the device, the rings or the quota take, or a frame of less than 14 bytes; -EINVAL: no such header;
 * -EPIPE: the endpoint was removed, or is NULL, or its loop has ended. */
XSKE_API int xske_endpoint_send(struct xske_endpoint *endpoint, const struct xske_header *header,
                                const uint8_t *payload, uint64_t len);
/* n of them: `lens` bytes each, side by side (stride 0) or each `stride` bytes behind the one before. Returns how many
 * were taken, or why not the first. */
XSKE_API int64_t xske_endpoint_send_many(struct xske_endpoint *endpoint, const struct xske_header *header,
                                         const uint8_t *payloads, uint64_t stride, const uint32_t *lens,
                                         uint32_t n);

/* n frags at one distance from each other, to be filled in place. */
struct xske_span {
	uint64_t addr; /* of the first one's frame; its payload begins header->len further on */
	uint32_t pitch;
	uint32_t n;
};
/* For payloads of up to len bytes; the header is written. -EMSGSIZE: they do not fit into a chunk. */
XSKE_API int xske_endpoint_alloc(struct xske_endpoint *endpoint, const struct xske_header *header, uint32_t n,
                                 uint32_t len, struct xske_span *out);
struct xske_tracker;
/* Frames in frags of the endpoint's arena: their lengths and checksums are written by what the header says, and the
 * caller's references move to the loop. Returns how many were taken, or why not the first: -EINVAL for one that the kernel
 * would call invalid. */
XSKE_API int64_t xske_endpoint_post(struct xske_endpoint *endpoint, const struct xske_header *header,
                                    const struct xske_desc *descs, uint32_t n, struct xske_tracker *tracker);
/* The same as it is, packets of several descs among them: all or none. -EAGAIN: ring full, -EINVAL: a desc that the
 * kernel would call invalid. The thread that has entered the arena. */
XSKE_API int xske_endpoint_submit(struct xske_endpoint *endpoint, const struct xske_desc *descs, uint32_t n);

struct xske_endpoint_counters {
	uint64_t submitted_packets; /* handed to the loop */
	uint64_t submitted_bytes;   /* of frames without FCS */
	uint64_t submitted_descs;
	uint64_t posted_descs;    /* of them: on the tx ring, or further */
	uint64_t completed_descs; /* of them: come back */
};
/* Any thread; NULL: nothing. */
XSKE_API void xske_endpoint_read(const struct xske_endpoint *endpoint, struct xske_endpoint_counters *out);

enum xske_endpoint_state {
	XSKE_ENDPOINT_NEW = 0,
	XSKE_ENDPOINT_ADDED = 1,
	XSKE_ENDPOINT_REMOVED = 2,
};
XSKE_API int xske_endpoint_state(const struct xske_endpoint *endpoint);

/* ---- TCP: connections of a loop (the contract stands in tcp/tcp.h) ---------------------------------- */

struct xske_tcp;
struct xske_tcp_conn;
struct xske_rxq_config;

/* What has come, by the loop; read by anybody. */
struct xske_tcp_counters {
	uint64_t received_packets;
	uint64_t received_bytes; /* of frames without FCS */
	uint64_t
	        csum_partial_packets; /* with the pseudo header's sum instead of a checksum: from the same host's kernel */
	uint64_t bad_csum_packets;
	uint64_t malformed_packets;
	uint64_t foreign_packets; /* no TCP, or fragments */
	uint64_t stray_packets;   /* of no connection here */
	uint64_t icmp_packets;    /* about connections of ours */
	uint64_t bad_descs;       /* that no kernel may give */
	uint64_t bad_addr;        /* of the last one */
	uint64_t opened_connections;
	uint64_t established_connections; /* ever */
	uint64_t closed_connections;
	uint64_t connections; /* now, TIME-WAIT counts */
	uint64_t
	        copied_segments; /* whose payload was copied: sent again while inflight, where a packet is one desc */
};

struct xske_tcp_config {
	struct xske_loop *loop; /* which does not run yet; one for each loop */
	/* As many chunks as the fill rings have entries are the kernel's and the loop's by turns. NULL: the rings are full of
	 * whole chunks, which the caller has put there before it bound the sockets (xske_rx_fill) and of which it hands over
	 * its reference; a driver in zero-copy that finds none when it starts may never look again. Else the rings are empty,
	 * and the chunks are taken from this arena of the loop's umem, entered by who creates and destroys. */
	struct xske_arena *receive_arena;
	const struct xske_rxq_config *queues; /* copied. All that the connections' packets may come to */
	uint32_t queue_count;
	uint32_t max_connections; /* at most; at least 1 */
	uint32_t flags;           /* XSKE_TCP_* */
	uint32_t reserved;
	struct xske_tcp_counters *counters; /* outlives it */
};
#define XSKE_TCP_MULTI_BUFFER 1u /* a packet may be several descs */
#define XSKE_TCP_OFFLOAD 2u      /* the device finishes checksums (tx metadata) */

XSKE_API int xske_tcp_create(const struct xske_tcp_config *config, struct xske_tcp **out);
/* After its loop has ended, when the sockets are closed, and before the loop and the connections' arenas go. */
XSKE_API void xske_tcp_destroy(struct xske_tcp *tcp);

enum xske_tcp_state { /* RFC 9293, 3.3.2 */
	              XSKE_TCP_NEW = 0,
	              XSKE_TCP_SYN_SENT = 1,
	              XSKE_TCP_SYN_RECEIVED = 2, /* both ends have opened at the same time */
	              XSKE_TCP_ESTABLISHED = 3,
	              XSKE_TCP_FIN_WAIT_1 = 4,
	              XSKE_TCP_FIN_WAIT_2 = 5,
	              XSKE_TCP_CLOSE_WAIT = 6,
	              XSKE_TCP_CLOSING = 7,
	              XSKE_TCP_LAST_ACK = 8,
	              XSKE_TCP_TIME_WAIT = 9,
	              XSKE_TCP_CLOSED = 10, /* the loop has forgotten it: it may be destroyed */
};

enum xske_tcp_congestion {
	XSKE_TCP_RENO = 1,  /* RFC 5681, 6582 */
	XSKE_TCP_CUBIC = 2, /* RFC 9438 */
};

struct xske_tcp_conn_config {
	struct xske_arena *arena; /* its own, with the loop's txq_id; quota_chunks bounds what it pins */
	struct xske_header
	        header; /* Ethernet, tags, IPv4 without options or IPv6 and nothing behind; the addresses */
	uint16_t local_port; /* host order */
	uint16_t remote_port;
	uint32_t mtu;                  /* of the path, as far as we know: the longest IP packet */
	uint32_t flags;                /* XSKE_TCP_CONN_* */
	uint32_t congestion;           /* enum xske_tcp_congestion */
	uint32_t entries;              /* of the submit ring, power of two */
	uint32_t receive_buffer_bytes; /* power of two, 4096 to 2^30 */
	uint64_t send_buffer_bytes;    /* the most of what is written and not acknowledged, at most 2^30 */
	uint64_t connect_timeout_ns;
	uint64_t
	        user_timeout_ns; /* written and nothing acknowledged for so long: -ETIMEDOUT (RFC 9293, 3.8.3, R2) */
	uint64_t keepalive_idle_ns;     /* silence before the first probe */
	uint64_t keepalive_interval_ns; /* between them */
	uint32_t keepalive_probes;      /* without an answer: -ETIMEDOUT */
	uint32_t reserved;
	uint64_t time_wait_ns; /* 2 MSL (RFC 9293, 3.4.2); also how long FIN-WAIT-2 lasts when nobody reads */
};
#define XSKE_TCP_CONN_NODELAY 1u   /* small segments at once (RFC 9293, 3.7.4: without Nagle's algorithm) */
#define XSKE_TCP_CONN_KEEPALIVE 2u /* RFC 9293, 3.8.4 */
#define XSKE_TCP_CONN_PACING                                                                                 \
	4u /* spread over the RTT instead of in bursts: 2 * cwnd / srtt in slow start, 1.2 * after */

/* Allocated; the arena is entered by each call that writes. */
XSKE_API int xske_tcp_open(struct xske_tcp *tcp, const struct xske_tcp_conn_config *config,
                           struct xske_tcp_conn **out);
/* Sends SYN; what comes of it says xske_tcp_state(). -ENOBUFS: there are max_connections; -EISCONN: it
 * was called before; -EPIPE: the loop has ended. */
XSKE_API int xske_tcp_connect(struct xske_tcp_conn *conn);
/* When its state is XSKE_TCP_NEW or _CLOSED, or its loop has ended; frags that it has given out may outlive it. */
XSKE_API void xske_tcp_conn_destroy(struct xske_tcp_conn *conn);

/* Copies: how many bytes were taken, at most what the send buffer has room for. -EAGAIN: none, -ENOTCONN: not yet, -EPIPE:
 * after xske_tcp_shutdown, or what ended the connection: -ECONNRESET, -ETIMEDOUT, ... */
XSKE_API int64_t xske_tcp_write(struct xske_tcp_conn *conn, const uint8_t *bytes, uint64_t len);
/* A frag for up to *room bytes of payload at *addr (as many as a block holds), to be filled in place. Same errors. */
XSKE_API int xske_tcp_alloc(struct xske_tcp_conn *conn, uint64_t *addr, uint32_t *room);
/* It is to be sent, len (1 to room) bytes of it: the caller's reference moves. Same errors; then it is still the caller's. */
XSKE_API int xske_tcp_submit(struct xske_tcp_conn *conn, uint64_t addr, uint32_t len);
/* Received bytes, in order: how many; 0: the peer has ended its stream. -EAGAIN: none yet. */
XSKE_API int64_t xske_tcp_read(struct xske_tcp_conn *conn, uint8_t *to, uint64_t len);
/* No more will be written: FIN behind what was. Idempotent. While connecting: as soon as it is connected. */
XSKE_API int xske_tcp_shutdown(struct xske_tcp_conn *conn);
/* Shutdown, and nothing more will be read: what still comes is answered with RST (RFC 9293, 3.6.1), as unread data is. */
XSKE_API int xske_tcp_close(struct xske_tcp_conn *conn);
/* RST, and nothing more. */
XSKE_API int xske_tcp_abort(struct xske_tcp_conn *conn);
XSKE_API int xske_tcp_state(const struct xske_tcp_conn *conn);
/* Once it is closed: 0 or the errno that ended it. */
XSKE_API int xske_tcp_error(const struct xske_tcp_conn *conn);
/* Another Ethernet destination. Any thread. */
XSKE_API void xske_tcp_set_mac(struct xske_tcp_conn *conn, const uint8_t mac[6]);
/* Announces that its application is about to wait for any of these: the loop's event_fd will say so, once. Then look
 * again before you wait. */
XSKE_API void xske_tcp_await(struct xske_tcp_conn *conn, uint32_t what);
/* What of it has not happened yet: who has many connections looks at those only that it has happened to. */
XSKE_API uint32_t xske_tcp_awaited(const struct xske_tcp_conn *conn);
#define XSKE_TCP_READABLE 1u /* bytes, or the end */
#define XSKE_TCP_WRITABLE 2u /* room in the send buffer */
#define XSKE_TCP_CHANGED 4u  /* its state */
#define XSKE_TCP_DRAINED 8u  /* everything written is acknowledged */

/* One connection, at one moment: 64-bit words that the loop writes one by one. */
struct xske_tcp_info {
	uint64_t state;
	uint64_t sent_segments; /* all, as the next ones */
	uint64_t sent_bytes;    /* payload, each byte as often as it was sent */
	uint64_t acked_bytes;   /* payload */
	uint64_t received_segments;
	uint64_t received_bytes; /* payload, taken in order */
	uint64_t retransmitted_segments;
	uint64_t retransmitted_bytes;
	uint64_t dropped_segments; /* payload out of order or beyond the window: the peer sends it again */
	uint64_t duplicate_acks;
	uint64_t recoveries;        /* fast retransmit */
	uint64_t timeouts;          /* RTO */
	uint64_t tail_probes;       /* TLP */
	uint64_t undone_recoveries; /* nothing had been lost */
	uint64_t window_probes;
	uint64_t challenge_acks;   /* RFC 5961 */
	uint64_t refused_segments; /* PAWS, out of window, unacceptable ACKs */
	uint64_t csum_partial_segments;
	uint64_t icmp_messages;
	/* Gauges */
	uint64_t srtt_ns; /* 0: not measured yet */
	uint64_t rttvar_ns;
	uint64_t min_rtt_ns;
	uint64_t rto_ns;
	uint64_t cwnd_bytes;
	uint64_t ssthresh_bytes;
	uint64_t inflight_bytes; /* sent and not acknowledged */
	uint64_t unsent_bytes;
	uint64_t peer_window_bytes;
	uint64_t send_buffer_bytes; /* as it is tuned now */
	uint64_t mss_bytes;         /* payload of a full segment */
	uint64_t path_mtu;
	uint64_t recovery_state;       /* enum xske_tcp_recovery */
	uint64_t outstanding_segments; /* sent and not wholly acknowledged; FIN alone is one */
	uint64_t backoffs;             /* RTOs since the last round-trip time was measured */
	uint64_t options;              /* XSKE_TCP_HAS_*: what both sides speak */
	uint64_t send_wscale;          /* RFC 7323 shifts: of the peer's windows, and of ours */
	uint64_t receive_wscale;
	uint64_t receive_mss;   /* the longest payload that came in one segment */
	uint64_t written_bytes; /* payload, by who writes: all that it has handed over */
};
/* By the numbers of enum tcp_ca_state (include/uapi/linux/tcp.h); there is no ECN that would reduce cwnd (CWR, 2). */
enum xske_tcp_recovery {
	XSKE_TCP_RECOVERY_OPEN = 0,
	XSKE_TCP_RECOVERY_DISORDER = 1, /* something came out of order, and nothing is thought lost yet */
	XSKE_TCP_RECOVERY_FAST = 3,
	XSKE_TCP_RECOVERY_LOSS = 4, /* after an RTO */
};
/* By the numbers of TCPI_OPT_* (there, too). */
#define XSKE_TCP_HAS_TIMESTAMPS 1u
#define XSKE_TCP_HAS_SACK 2u
#define XSKE_TCP_HAS_WSCALE 4u
XSKE_API void xske_tcp_info(const struct xske_tcp_conn *conn, struct xske_tcp_info *out);

/* ---- a tracker: has the kernel done with these? ---------------------------------------------------- */

/* Of up to n packets of one desc. Who creates it posts with it, in one or several calls. */
XSKE_API int xske_tracker_create(uint32_t n, struct xske_tracker **out);
/* Any time: the loop keeps what it still needs. */
XSKE_API void xske_tracker_destroy(struct xske_tracker *tracker);
/* No more will be posted with it. */
XSKE_API void xske_tracker_close(struct xske_tracker *tracker);
enum xske_tracker_state {
	XSKE_TRACKER_PENDING = 0,
	XSKE_TRACKER_DONE = 1,
	XSKE_TRACKER_LOST =
	        2, /* the loop has ended, or the endpoint was removed, before all were posted and completed */
};
XSKE_API int xske_tracker_state(const struct xske_tracker *tracker);
/* Once it is done: when each left (CLOCK_TAI), 0 where nobody knows. Lives as long as the tracker. */
XSKE_API const uint64_t *xske_tracker_stamps(const struct xske_tracker *tracker);

/* ---- checking what arrived ------------------------------------------------------------------------- */

/* Received frames become counts per flow, by the signature at their end. What is counted how: native/check.h. */
struct xske_check;

struct xske_check_config {
	uint32_t max_flows; /* flow ids 0..max_flows-1, 4 KiB of memory for each that arrives; at least 1 */
	uint32_t flags;     /* XSKE_CHECK_REFLECTED */
};
#define XSKE_CHECK_REFLECTED 1u /* signatures as a reflector leaves them, and no others */

/* Every frame is one of received, duplicate, late, corrupt, truncated, foreign or unknown flow. */
struct xske_check_counters {
	uint64_t packets; /* frames looked at */
	uint64_t bytes;   /* of them, without FCS */
	uint64_t received_packets;
	uint64_t received_bytes; /* of frames without FCS */
	uint64_t lost_packets;
	uint64_t duplicate_packets;
	uint64_t reordered_packets;
	uint64_t late_packets;
	uint64_t restarts;
	uint64_t corrupt_packets;
	uint64_t truncated_packets;
	uint64_t foreign_packets;
	uint64_t unknown_flow_packets;
	uint64_t unverified_packets;   /* of those with a signature: without a checksum */
	uint64_t csum_partial_packets; /* likewise: with an unfinished one */
	uint64_t untimed_packets;      /* of the received: without a time of sending */
	uint64_t negative_latency_packets;
	uint64_t flows;    /* that have been seen */
	uint64_t first_ns; /* CLOCK_TAI of the first received packet, 0 = none */
	uint64_t last_ns;
};

/* Buckets of latencies: 32 of 1 ns, then 16 to every power of two; the last one has no upper end. */
#define XSKE_LATENCY_BUCKETS 656u

struct xske_latency {
	uint64_t count;
	uint64_t sum_ns;
	uint64_t min_ns;
	uint64_t max_ns;
	uint64_t bucket[XSKE_LATENCY_BUCKETS];
};

struct xske_check_flow {
	uint64_t flow_id;
	uint64_t received_packets;
	uint64_t received_bytes;
	uint64_t lost_packets;
	uint64_t duplicate_packets;
	uint64_t reordered_packets;
	uint64_t late_packets;
	uint64_t extent_max_packets; /* of the reordered: how far (RFC 4737, 4.2.2) */
	uint64_t extent_sum_packets;
	uint64_t least_extents; /* of the reordered: they may be further */
	uint64_t restarts;
	uint64_t first_sequence; /* the first expected, of the run */
	uint64_t highest_sequence;
	uint64_t untimed_packets;
	uint64_t negative_latency_packets;
	uint64_t latency_count;
	uint64_t latency_sum_ns;
	uint64_t latency_min_ns;
	uint64_t latency_max_ns;
	uint64_t jitter_ns;
};

XSKE_API int xske_check_create(const struct xske_check_config *config, struct xske_check **out);
XSKE_API void xske_check_destroy(struct xske_check *check);
#define XSKE_CHECK_CSUM_PARTIAL 1u /* whoever received it says that its transport checksum is not finished */
/* One frame without FCS, in one piece; arrived_ns: CLOCK_TAI. One thread. */
XSKE_API void xske_check_frame(struct xske_check *check, const uint8_t *frame, uint32_t len,
                               uint64_t arrived_ns, uint32_t flags);
/* latency: of all flows; NULL: not asked for. */
XSKE_API void xske_check_read(const struct xske_check *check, struct xske_check_counters *out,
                              struct xske_latency *latency);
/* Flows in order of their first packets: n of them from number `first` on, fewer if there are fewer; returns how many.
 * buckets: NULL, or room for n * XSKE_LATENCY_BUCKETS; a count that reaches 2^32 - 1 stays there. */
XSKE_API uint32_t xske_check_flows(const struct xske_check *check, uint32_t first, uint32_t n,
                                   struct xske_check_flow *out, uint32_t *buckets);

/* ---- receiving ------------------------------------------------------------------------------------ */

struct xske_receiver;

struct xske_rxq_config {
	struct xske_ring rx; /* taken over, as the next */
	struct xske_ring fill;
	int32_t fd;
	uint32_t reserved;
};

/* Written by the receiver at the end of a batch, read by anybody. */
struct xske_receive_counters {
	uint64_t packets;
	uint64_t bytes; /* of frames without FCS */
	uint64_t descs;
	uint64_t bad_descs;          /* that no kernel may give: not read */
	uint64_t bad_addr;           /* of the last one */
	uint64_t uncaptured_packets; /* the capture had no room */
	uint64_t overrun_packets;    /* a packet socket's: there was no room for them */
	uint64_t wakeup_calls;
	uint64_t sleeps;
	uint64_t first_ns; /* CLOCK_MONOTONIC of the first batch, 0: none yet */
	uint64_t last_ns;
};

struct xske_receiver_config {
	/* Of a umem without metadata; entered by who creates and destroys. As many chunks of it as the fill rings have
	 * entries are the kernel's and the receiver's by turns. NULL with a packet socket. */
	struct xske_arena *arena;
	const struct xske_rxq_config *queues; /* copied; the fill rings are empty */
	uint32_t queue_count;                 /* 0: a packet socket on the interface that the last four say */
	int32_t stop_fd;                      /* eventfd: wakes the receiver */
	struct xske_check *check;             /* NULL: packets are only counted */
	struct xske_capture *capture;         /* NULL: none. Its clock is CLOCK_TAI */
	struct xske_receive_counters *counters; /* outlives the receiver */
	uint32_t ifindex;
	uint32_t max_frame_bytes; /* with VLAN tags */
	const void *filter;       /* classic BPF instructions: which packets are meant; copied */
	uint32_t filter_count;
	uint32_t flags; /* XSKE_RECEIVER_* */
};
/* Never asleep: with nothing to take, the kernel polls the device in the receiver's system call. Not with a packet
 * socket. The sockets are set up for it by who opens them (SO_PREFER_BUSY_POLL). */
#define XSKE_RECEIVER_BUSY_POLL 1u

XSKE_API int xske_receiver_create(const struct xske_receiver_config *config, struct xske_receiver **out);
/* When the sockets are closed: until then the kernel writes into its chunks. */
XSKE_API void xske_receiver_destroy(struct xske_receiver *receiver);
/* Receives until it is stopped: 0, or a negative errno; -ENXIO: the device is gone. */
XSKE_API int xske_receiver_run(struct xske_receiver *receiver);
/* Any thread, any time, also before it runs. */
XSKE_API void xske_receiver_stop(struct xske_receiver *receiver);

/* ---- the laboratory's wire: one direction --------------------------------------------------------- */

/* Takes frames from one interface and sends them out of another one, in the calling thread's network namespace.
 * What it does to them stands in docs/lab.md; how, in wire.h. */
struct xske_wire;

/* 64-bit words that only the wire writes, one by one; in memory that may be shared with other processes.
 * Once held_packets is 0: forwarded = taken - dropped + duplicated - overrun - send_error. */
struct xske_wire_counters {
	uint64_t taken_packets;      /* all frames, IP or not */
	uint64_t forwarded_packets;  /* sent out, copies too */
	uint64_t dropped_packets;    /* by the fault "drop" */
	uint64_t duplicated_packets; /* sent twice */
	uint64_t reordered_packets;  /* held back, and then later ones went ahead */
	uint64_t corrupted_packets;  /* one bit flipped */
	uint64_t overrun_packets;    /* taken, but there was no room to delay them */
	uint64_t
	        send_error_packets; /* the kernel did not take them: the far end is down, or they are too long for it */
	uint64_t missed_packets; /* never taken: the receive ring was full */
	uint64_t held_packets;   /* delayed or held back at the moment */
};

struct xske_wire_config {
	struct xske_wire_counters *counters; /* the caller's, zeroed */
	uint64_t seed;
	uint64_t
	        drop; /* shares of 2^32 of the packets that are subject to faults; their sum is 2^32 at most */
	uint64_t duplicate;
	uint64_t reorder;
	uint64_t corrupt;
	uint64_t delay_ns;
	uint32_t direction;  /* told apart in the random numbers */
	uint32_t reorder_by; /* packets that go ahead of one that is held back */
	uint32_t from_ifindex;
	uint32_t to_ifindex;
	uint32_t max_frame_bytes; /* with VLAN tags; longer ones are cut off */
	uint32_t reserved;
};

XSKE_API int xske_wire_create(const struct xske_wire_config *config, struct xske_wire **out);
/* Only when nobody runs it. What it holds is lost. */
XSKE_API void xske_wire_destroy(struct xske_wire *wire);
/* Forwards until xske_wire_stop; 0 or a negative errno. The thread's timer slack becomes 1 ns. */
XSKE_API int xske_wire_run(struct xske_wire *wire);
XSKE_API void xske_wire_stop(struct xske_wire *wire);
/* A copy of the counters, by any thread that has them mapped. */
XSKE_API void xske_wire_read(const struct xske_wire_counters *counters, struct xske_wire_counters *out);

#ifdef __cplusplus
}
#endif
#endif
