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
 *   loop    xske_loop_run: one thread. xske_loop_command: one thread at a time. Counter pages: any reader
 *   frag    whoever holds a reference
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
#define XSKE_ABI_VERSION 2u

XSKE_API uint32_t xske_abi_version(void);

/* ---- umem and its chunk pool ------------------------------------------------------------------ */

struct xske_umem;

struct xske_umem_config {
	void *area;            /* start of the registered region, owned by the caller */
	uint64_t len;          /* multiple of chunk_size */
	uint32_t chunk_size;   /* 2048 or 4096 */
	uint32_t metadata_len; /* bytes in front of every desc, multiple of 8, < 256; 0 without tx metadata */
};

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
XSKE_API void xske_arena_park(struct xske_arena *arena); /* gives back all that is not referenced */
XSKE_API void xske_arena_read_stats(const struct xske_arena *arena, struct xske_arena_stats *out);
/* Announces that the owner is about to wait at its quota. 1 = a chunk is back, do not wait. */
XSKE_API int xske_arena_await(struct xske_arena *arena);

/* -EAGAIN at the quota, -EMSGSIZE above chunk_size - metadata_len, -EINVAL for 0 bytes. */
XSKE_API int xske_frag_alloc(struct xske_arena *arena, uint32_t len, uint64_t *addr);
/* self: the arena that the calling thread has entered, or NULL. */
XSKE_API int xske_frag_ref(struct xske_umem *umem, uint64_t addr);
/* 0, or 1 when the owner of the recycled chunk waits at its quota: wake it. */
XSKE_API int xske_frag_unref(struct xske_umem *umem, struct xske_arena *self, uint64_t addr);

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

/* One field of the head that changes from packet to packet: value = base + step * (sequence % modulo),
 * written big-endian at offset. modulo 0 = never wraps. */
struct xske_patch {
	uint32_t offset;
	uint32_t width;       /* 1, 2, 4 or 8 bytes */
	uint32_t csum_offset; /* Internet checksum to keep right, inside the head; 0 = none */
	uint32_t csum_udp;    /* 1: a sum of 0 is sent as 0xffff (RFC 768) */
	uint64_t base;
	uint64_t step;
	uint64_t modulo;
};
#define XSKE_MAX_PATCHES 16u

struct xske_flow_config {
	const uint8_t *frame; /* the template, frame_len bytes, copied */
	uint32_t frame_len;   /* bytes without FCS */
	uint32_t patch_count; /* 0: one template posted many times, nothing is copied */
	const struct xske_patch *patches;
	uint64_t count;        /* packets to send, 0 = no limit */
	uint64_t duration_ns;  /* from the first post, time with the link down not counted; 0 = no limit */
	uint64_t rate_packets; /* packets per rate_period_ns; 0 = as fast as possible */
	uint64_t rate_period_ns;
	uint64_t first_sequence;
	uint32_t quota_frags; /* most descs inflight, 0 = the completion ring's size */
	uint32_t batch;       /* most packets per turn of the loop */
};

struct xske_flow;

XSKE_API int xske_flow_create(struct xske_umem *umem, const struct xske_flow_config *config,
                              struct xske_flow **out);
/* Only when its loop is not running. */
XSKE_API void xske_flow_destroy(struct xske_flow *flow);

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
	XSKE_ERROR_FLOW = 5,        /* error_arg: frame length; error_errno: why it could not start */
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
};

struct xske_loop_config {
	struct xske_txq *txq;
	struct xske_arena *arena;       /* loop-owned; entered by xske_loop_run */
	struct xske_counters *counters; /* outlives the loop */
	struct xske_clock clock;
	uint64_t link_timeout_ns;
	uint64_t progress_timeout_ns; /* inflight without a completion for so long = stalled */
	uint64_t drain_timeout_ns;
	int32_t wake_fd;  /* eventfd: wakes the loop */
	int32_t event_fd; /* eventfd: the loop wakes whoever watches it; -1 = nobody */
};

enum xske_command_op {
	XSKE_COMMAND_START_FLOW = 1,      /* object: struct xske_flow */
	XSKE_COMMAND_ADD_ENDPOINT = 2,    /* object: struct xske_endpoint */
	XSKE_COMMAND_REMOVE_ENDPOINT = 3, /* what it submitted and was not posted goes back */
	XSKE_COMMAND_DRAIN = 4,           /* stop the flows, wait for completions, leave */
	XSKE_COMMAND_PARK = 5,            /* give idle memory back now; turns says when it has */
	XSKE_COMMAND_PAUSE = 6,           /* xske_loop_run returns XSKE_LOOP_PAUSED */
};

struct xske_loop;

XSKE_API int xske_loop_create(const struct xske_loop_config *config, struct xske_loop **out);
XSKE_API void xske_loop_destroy(struct xske_loop *loop);
/* Runs until drained, failed, paused or stalled; returns which enum xske_loop_state. */
XSKE_API int xske_loop_run(struct xske_loop *loop);
/* Instead of running on after XSKE_LOOP_STALLED or _PAUSED: ends the loop, with this enum xske_loop_error
 * unless it was draining. */
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
/* Async-signal-safe and thread-safe: leave now, drain nothing. */
XSKE_API void xske_loop_abort(struct xske_loop *loop);

/* ---- an endpoint: an arena and its submit ring into the loop ------------------------------------- */

struct xske_endpoint;

XSKE_API int xske_endpoint_create(struct xske_loop *loop, struct xske_arena *arena, uint32_t entries,
                                  struct xske_endpoint **out);
/* When its state is XSKE_ENDPOINT_REMOVED, or after the loop ended. */
XSKE_API void xske_endpoint_destroy(struct xske_endpoint *endpoint);
/* Moves the caller's references to the loop, all or none. -EAGAIN: ring full, -EINVAL: a desc that the
 * kernel would call invalid. The thread that has entered the arena. */
XSKE_API int xske_endpoint_submit(struct xske_endpoint *endpoint, const struct xske_desc *descs, uint32_t n);
enum xske_endpoint_state {
	XSKE_ENDPOINT_NEW = 0,
	XSKE_ENDPOINT_ADDED = 1,
	XSKE_ENDPOINT_REMOVED = 2,
};
XSKE_API int xske_endpoint_state(const struct xske_endpoint *endpoint);

/* ---- the demo's receiver ------------------------------------------------------------------------- */

struct xske_sink;

struct xske_sink_config {
	const int32_t *fds; /* bound UDP sockets, fd_count of them, the caller's */
	uint32_t fd_count;
	uint32_t payload_len;   /* what every payload must be long */
	const uint8_t *payload; /* what it must hold after its first 8 bytes, a big-endian sequence */
	uint64_t max_sequences; /* sequences 0..max_sequences-1 are checked for duplicates */
};

struct xske_sink_counters {
	uint64_t delivered_packets; /* intact and new */
	uint64_t corrupt_packets;   /* wrong length, content, or sequence out of range */
	uint64_t duplicate_packets;
	uint64_t delivered_bytes; /* payload bytes */
	uint64_t last_ns;
};

XSKE_API int xske_sink_create(const struct xske_sink_config *config, struct xske_sink **out);
XSKE_API void xske_sink_destroy(struct xske_sink *sink);
/* Receives until xske_sink_stop; 0 or a negative errno. */
XSKE_API int xske_sink_run(struct xske_sink *sink);
XSKE_API void xske_sink_stop(struct xske_sink *sink);
XSKE_API void xske_sink_read(const struct xske_sink *sink, struct xske_sink_counters *out);

#ifdef __cplusplus
}
#endif
#endif
