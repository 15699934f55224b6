/* SPDX-License-Identifier: MIT */
/*
 * tcp.h - the TCP sender: what the files of native/tcp/ share. A connection is one state machine in the loop of one txq;
 * it sends in bulk, and receives in order what answers and requests need.
 *
 *   segment.c, segment_write.c   bytes <-> struct segment; knows no connection
 *   wheel, rtt, cc (reno, cubic), isn   timers, RFC 6298, congestion control, RFC 6528
 *   open.c     a connection comes to be, and goes when the loop has forgotten it
 *   app.c      the application's side: copies into blocks, reads, asks
 *   stack.c    the loop's side: takes what applications and devices bring, finds the connection, gives turns
 *   state.c    the life of a connection: opening, closing, resets, errors
 *   input.c    a segment has come (RFC 9293, 3.10.7; RFC 5961; RFC 7323)
 *   ack.c      what it acknowledges (RFC 5681, 2018, 6298)
 *   recovery.c what is lost (RFC 8985 RACK-TLP, RFC 6675)
 *   timers.c   a timer has expired
 *   output.c   what is to be sent now, in order of need
 *   says.c     what every segment says of this end: header, window, ACKs
 *   post.c     one segment becomes descs
 *   sendq.c    the bytes that are not acknowledged yet, and the segments that carried them
 *
 * THE MEMORY CONTRACT
 * 1. Payload lives in blocks: frags of the connection's own arena. The application fills one (xske_tcp_alloc) or has it
 *    copied (xske_tcp_write); submitting moves its reference to the send queue, which keeps it until the last byte of the
 *    block is acknowledged. That frees the chunk, unless it is inflight: then its completion does.
 * 2. Posting borrows (txq_borrow): the txq holds a reference of its own while the chunk is inflight. So a block survives
 *    its completion as long as it is not acknowledged, and an ACK as long as it is inflight.
 * 3. Where a whole segment fits into a chunk, a block is one segment, with room in front: `header_room` bytes for
 *    Ethernet, IP and TCP. The first transmission writes its header there and is one desc. Otherwise blocks are payload
 *    alone, as large as a chunk holds, and segments are a header frag of the loop's arena and pieces of blocks.
 * 4. A retransmission writes a header in place only while nothing of the chunk is inflight. Otherwise it has a header
 *    frag of its own in front of the same payload, or, where a packet is one desc, is copied into a frag of the loop's
 *    arena. Payload is copied for nothing else but segments that do not lie in one block, where a packet is one desc
 *    (small writes together, segments of a path that has become narrower), and those that are padded to 60 bytes.
 * 5. Bytes of a block are not written again once it is submitted, but for the room in front of them (4).
 * 6. Send buffer: what is submitted and not acknowledged, in bytes, at most `send_buffer` (autotuned: twice cwnd, from
 *    64 KiB up to the configured bound); the arena's quota bounds the chunks. A connection with nothing to send parks its arena after
 *    IDLE_PARK: it owns no chunk then.
 *
 * Threads: the loop's thread owns a connection but for `struct tcp_app`, which belongs to the application's (one at a time),
 * and the words that are marked shared. Sequence numbers are compared modulo 2^32 (seq.h).
 */
#ifndef XSKE_TCP_H
#define XSKE_TCP_H

#include "../loop.h"
#include "app.h"
#include "cc.h"
#include "isn.h"
#include "rtt.h"
#include "segment.h"
#include "sendq.h"
#include "seq.h"
#include "wheel.h"

/* What may be sent without waiting for more, and how long an ACK may wait: RFC 9293, 3.8.6.3 (less than 500 ms); Linux'
 * TCP_DELACK_MIN. Lower: more ACKs; higher: the peer's RTT samples grow. */
#define TCP_DELACK_NS (40 * NSEC_PER_MSEC)
/* Nothing to send for so long: the arena goes back to the pool (DESIGN.md, as the loop's own). */
#define TCP_IDLE_PARK_NS (10 * NSEC_PER_MSEC)
/* Segments of one connection in a turn of the loop: the others wait so long. Lower: more turns; higher: less fair. */
#define TCP_TURN_SEGMENTS 64u
/* RFC 5961, 5: ACKs that answer what may be an attack, per second and connection; Linux allows 1 per 500 ms and socket. */
#define TCP_CHALLENGES_PER_SECOND 10u
/* RFC 9293, 3.7.1: what a peer takes that does not say; IPv6: RFC 8200, 8.3 (1280 - 60). */
#define TCP_DEFAULT_MSS4 536u
#define TCP_DEFAULT_MSS6 1220u
/* RFC 1191, 3: no path is narrower, for us: a forged ICMP message shall not make segments of 8 bytes. Linux: min_pmtu. */
#define TCP_MIN_PMTU4 552u
#define TCP_MIN_PMTU6 1280u
#define TCP_TIMESTAMP_BYTES 12u /* in every segment, padded: RFC 7323, appendix A */
#define TCP_MAX_WSCALE 14u      /* RFC 7323, 2.3 */

enum tcp_timer_kind {
	TCP_TIMER_RETRANS,
	TCP_TIMER_DELACK,
	TCP_TIMER_PACE,
	TCP_TIMER_KEEPALIVE,
	TCP_TIMER_IDLE,
	TCP_TIMERS
};
/* What TCP_TIMER_RETRANS is armed for; one of them at a time. */
enum tcp_retrans {
	TCP_RETRANS_NONE,
	TCP_RETRANS_RTO,
	TCP_RETRANS_TLP,
	TCP_RETRANS_REORDER,
	TCP_RETRANS_PROBE,
	TCP_RETRANS_LIFE
};

struct tcp_timer {
	struct wheel_timer timer; /* first */
	struct xske_tcp_conn *conn;
	enum tcp_timer_kind kind;
};

/* RFC 8985: the most recently sent segment that was delivered. */
struct rack {
	uint64_t sent_ns;
	uint64_t rtt_ns;
	uint32_t end_seq;
	uint32_t fack;        /* highest sequence delivered */
	uint32_t fack_before; /* the ACK in hand, which tells in no order of what has come */
	uint32_t reo_wnd_mult;
	uint32_t reo_wnd_persist; /* recoveries */
	uint32_t dsack_round;     /* snd_nxt at the last DSACK that counted; if has_dsack_round */
	bool has_dsack_round;
	bool reordering_seen;
	bool dsack_seen;
	/* TLP, 7 */
	uint32_t tlp_end_seq;
	uint32_t tlp_stamp; /* what the probe's timestamp was */
	bool tlp_is_out;
	bool tlp_is_retrans;
};

enum tcp_recovery { TCP_OPEN, TCP_RECOVERY, TCP_LOSS };

struct xske_tcp_conn {
	struct xske_tcp *tcp;
	struct xske_arena *arena;
	struct xske_tcp_conn_config config;
	struct xske_tcp_info info; /* counters; stored with tcp_count(), gauges by tcp_publish() */
	struct tcp_tuple tuple;
	struct xske_tcp_conn *next_in_bucket;
	struct xske_tcp_conn *next, **prev; /* of all that the stack has; prev NULL: none */
	struct xske_tcp_conn *next_pending; /* handed over by its application */
	_Atomic uint32_t queued;            /* QUEUED_*; acq_rel, as an endpoint's (loop.h) */
	struct xske_tcp_conn *next_ready;   /* has something to send */
	bool ready;
	struct grave grave;
	uint32_t state; /* enum xske_tcp_state */
	struct tcp_timer timers[TCP_TIMERS];
	/* RFC 9293, 3.3.1 */
	uint32_t iss, irs;
	uint32_t snd_una, snd_nxt;
	uint32_t snd_end; /* behind the last submitted byte, without FIN */
	uint32_t snd_wl1, snd_wl2;
	int32_t told_wnd; /* as it stood in the last ACK; -1: in a SYN, where it is never scaled */
	uint64_t snd_wnd; /* scaled */
	uint64_t max_snd_wnd;
	uint32_t rcv_nxt;
	uint32_t rcv_adv; /* highest right edge told */
	uint32_t rcv_mss; /* the longest payload that came in one segment */
	uint8_t snd_wscale, rcv_wscale;
	bool timestamps_ok, sack_ok, wscale_ok;
	bool fin_wanted; /* behind snd_end comes FIN */
	bool fin_sent, fin_acked, fin_received;
	bool syn_due, reset_due;   /* owed, and there was no room */
	int abort_error;           /* what a reset that is due ends it with */
	bool ack_now, ack_delayed; /* owed */
	uint32_t duplicates_due;   /* of those, one for each segment beyond a gap (RFC 5681, 4.2) */
	bool app_gone; /* nobody reads any more: RFC 9293, 3.6 and RFC 2525, 2.17: data then means a reset */
	uint32_t header_room;
	uint32_t mss;      /* payload bytes of a full segment now, without options' 12 */
	uint32_t peer_mss; /* as told */
	uint32_t path_mtu;
	/* RFC 7323 */
	uint32_t ts_offset, ts_recent;
	uint64_t ts_recent_ns;
	uint32_t last_ack_sent;
	/* send queue */
	struct blocks blocks;
	struct sents sents;
	uint32_t sacked_bytes, lost_bytes,
	        retrans_bytes; /* of sents: sacked; lost and not sent again; sent again and not delivered */
	/* recovery */
	enum tcp_recovery recovery;
	uint32_t recovery_end; /* ends when this is acknowledged */
	uint32_t dupacks;      /* in a row, for who has no SACK */
	uint32_t undo_retrans; /* retransmissions of this episode that no DSACK has told of */
	uint32_t undo_start;   /* snd_una when it began: what lies below was not sent again in it */
	uint32_t undo_end;     /* what is acknowledged beyond it says nothing of the episode any more */
	uint32_t timeout_una;  /* snd_una at the last RTO */
	bool may_undo;
	bool acked_retrans;     /* the oldest segment that the ACK in hand covers was sent again */
	bool acked_late;        /* it covers one that was thought lost, and never sent again */
	uint64_t retrans_stamp; /* ts_val of the first retransmission of the episode (Eifel, RFC 3522) */
	bool has_retrans_stamp;
	struct rack rack;
	struct rtt rtt;
	struct cc cc;
	enum tcp_retrans retrans;
	uint64_t
	        rto_due_ns; /* when the RTO expires, whatever the timer is armed for; 0: nothing outstanding */
	bool resend_now; /* the first retransmission of an episode does not wait for cwnd (RFC 6675, 5, 4.3) */
	uint64_t reorder_due_ns; /* RACK: when more may be lost; 0: nothing is waited for */
	bool override_due;       /* a small segment has waited long enough (RFC 9293, 3.8.6.2.1) */
	uint32_t alive_probes;   /* keepalive: without an answer */
	uint64_t alive_since_ns;
	bool probe_due;     /* TLP: output.c sends one segment */
	uint64_t flight_ns; /* the last turn in which an ACK has come */
	uint32_t flight;    /* snd_nxt - snd_una before it */
	/* Of the ACK in hand: the echoed timestamp, if it has one. */
	uint32_t ack_echo;
	bool has_ack_echo;
	uint64_t sack_rtt_ns; /* of the last segment that it has SACKed and that was sent once; 0: none */
	uint32_t probes;      /* in a row without an answer: of a closed window, or keepalive */
	uint32_t syn_tries;
	uint32_t lost_syns;   /* that were not answered in time */
	uint64_t life_end_ns; /* SYN_SENT: gives up; FIN_WAIT_2 without an application, TIME_WAIT: ends */
	uint64_t
	        progress_ns; /* the last time the peer acknowledged something new, or there was nothing to acknowledge */
	uint64_t last_sent_ns, last_received_ns;
	uint64_t next_pace_ns;
	uint32_t soft_error; /* errno an ICMP message told; said when giving up (RFC 1122, 4.2.3.9) */
	/* RFC 5961 */
	uint64_t challenge_since_ns;
	uint32_t challenges;
	bool cwnd_limited;
	bool in_table;
	bool connected; /* counts as opened */
	bool stuck;     /* its submit ring holds blocks that the send queue had no room for */
	struct tcp_app app;
};

/* All connections of a loop. */
struct xske_tcp {
	struct xske_loop *loop;
	struct xske_tcp_config config;
	struct xske_tcp_counters *counters;
	struct rxq *queues;
	struct chunk **chunks; /* that the queues receive into */
	uint32_t chunk_count;
	struct xske_tcp_conn **table; /* by hash of the tuple */
	uint32_t table_mask;
	struct xske_tcp_conn *conns;
	struct xske_tcp_conn *ready, **ready_end; /* turns in order */
	struct xske_tcp_conn *gone; /* by next_ready: closed, and its application does not know yet */
	_Atomic(struct xske_tcp_conn *) pending; /* handed over by applications; orders as loop->pending */
	struct wheel wheel;
	struct isn_secret secret;
	struct isn_secret table_secret; /* another hash than sequence numbers show */
	uint64_t now_ns;
	uint64_t active_ns; /* the last time that something came */
	uint32_t conn_count;
	_Atomic uint32_t opened; /* by applications, and not closed yet; orders nothing: relaxed */
	struct xske_receive_counters arrived;
	struct pollfd *fds; /* what the loop sleeps on: its wake_fd, and the queues' */
};

/* ---- who does what ------------------------------------------------------------------------------- */

/* state.c */
void tcp_start(struct xske_tcp_conn *c);                      /* the application's connect: SYN */
void tcp_take_wants(struct xske_tcp_conn *c, uint32_t wants); /* shutdown, abort, close, window */
void tcp_established(struct xske_tcp_conn *c);
void tcp_set_state(struct xske_tcp_conn *c, uint32_t state);
void tcp_fail(struct xske_tcp_conn *c,
              int err); /* CLOSED with this errno, 0: orderly; everything goes back */
void tcp_abort(struct xske_tcp_conn *c, int err); /* likewise, with RST first */
void tcp_closed(struct xske_tcp_conn *c); /* tells the application; the connection may be gone afterwards */
void tcp_fin_is_sent(struct xske_tcp_conn *c);
void tcp_fin_is_acked(struct xske_tcp_conn *c);
void tcp_fin_has_come(struct xske_tcp_conn *c);
void tcp_set_path_mtu(struct xske_tcp_conn *c, uint32_t mtu);
void tcp_icmp(struct xske_tcp_conn *c, const struct segment *s, enum segment_kind kind);
/* input.c */
void tcp_input(struct xske_tcp_conn *c, struct segment *s); /* which it may change */
uint32_t tcp_receive_room(const struct xske_tcp_conn *c);
/* ack.c */
bool tcp_ack(struct xske_tcp_conn *c,
             const struct segment *s);            /* false: not acceptable, nothing more is taken from s */
uint32_t tcp_pipe(const struct xske_tcp_conn *c); /* bytes thought to be in the network (RFC 6675) */
/* recovery.c */
void rack_delivered(struct xske_tcp_conn *c, const struct sent *s, bool by_ack); /* else: sacked */
void rack_detect(struct xske_tcp_conn *c); /* marks what is lost, arms the reordering timer */
void recovery_dsack(struct xske_tcp_conn *c, const struct sack_block *b); /* this has come twice */
void recovery_after_ack(struct xske_tcp_conn *c, uint32_t una_before);
void recovery_mark_lost(struct xske_tcp_conn *c, struct sent *s);
void recovery_timeout(struct xske_tcp_conn *c); /* RTO */
bool recovery_probe(
        struct xske_tcp_conn *c); /* TLP: marks what output.c sends; false: nothing to probe with */
/* timers.c */
void tcp_timer_expired(struct tcp_timer *t);
void tcp_arm(struct xske_tcp_conn *c, enum tcp_timer_kind kind, uint64_t due_ns);
void tcp_disarm(struct xske_tcp_conn *c, enum tcp_timer_kind kind);
void tcp_restart_rto(
        struct xske_tcp_conn
                *c); /* from now on, or not at all when nothing is outstanding (RFC 6298, 5.2, 5.3) */
void tcp_arm_retrans(struct xske_tcp_conn *c);                  /* RTO, TLP, probe: by what is outstanding */
void tcp_arm_reorder(struct xske_tcp_conn *c, uint64_t due_ns); /* RACK, before the RTO */
/* output.c */
enum tcp_turn { TCP_TURN_DONE, TCP_TURN_MORE, TCP_TURN_NO_ROOM };
enum tcp_turn tcp_output(struct xske_tcp_conn *c, uint32_t limit, uint32_t *posted);
/* says.c */
void tcp_fill(struct xske_tcp_conn *c, struct segment_out *o, uint8_t flags, uint32_t seq);
/* So many of them, with so many bytes of payload together. */
void tcp_was_sent(struct xske_tcp_conn *c, const struct segment_out *o, uint32_t segments, uint32_t payload);
void tcp_challenge(struct xske_tcp_conn *c);   /* an ACK to what may be an attack (RFC 5961) */
void tcp_tell_window(struct xske_tcp_conn *c); /* an ACK, if that opens the window far enough */
/* The sequence number of what carries no payload: snd_nxt, unless the peer has taken its window back to before that, by more
 * than the rounding of a scaled one. It drops what lies beyond its window, with the ACK in it, so two sides that send could
 * wait for each other for ever (tcp_acceptable_seq() of Linux). */
uint32_t tcp_seq_to_say(const struct xske_tcp_conn *c);
/* One segment without payload, now: SYN, ACK, RST, probes. -EAGAIN: no room. */
int tcp_send_control(struct xske_tcp_conn *c, uint8_t flags, uint32_t seq);
/* post.c: the segment `out` with `len` payload bytes of the send queue from out->seq on. again: was sent before.
 * 0, or -EAGAIN: no room on the txq, or no chunk. At most tcp_fits() bytes. */
int tcp_post(struct xske_tcp_conn *c, const struct segment_out *out, uint32_t len, bool again);
/* Up to n full segments that were never sent, each of them a block of its own, with their headers in front: bulk, where a
 * segment fits into a chunk. `out` is the first. How many; 0: tcp_post() knows why. */
uint32_t tcp_post_run(struct xske_tcp_conn *c, const struct segment_out *out, uint32_t n);
/* How much of `len` bytes from seq on fits into one packet: the descs of a packet are counted. */
uint32_t tcp_fits(const struct xske_tcp_conn *c, uint32_t seq, uint32_t len);
/* stack.c */
void tcp_ready(struct xske_tcp_conn *c); /* it has something to send: gets a turn */
/* Off all lists, and onto tcp->gone: tcps_turn and tcps_post call tcp_closed() for those as the last thing they do, since
 * the application may destroy it from then on. What its submit ring holds is dropped. */
void tcp_unlink(struct xske_tcp_conn *c);
/* XSKE_TCP_*, just stored with seq_cst: wakes the application if it awaits that. */
void tcp_signal(struct xske_tcp_conn *c, uint32_t what);
struct xske_tcp_conn *tcp_find(const struct xske_tcp *t, const struct tcp_tuple *tuple);
/* For the loop. */
void tcps_connect(struct xske_loop *l, struct xske_tcp_conn *c);
bool tcps_turn(struct xske_loop *l); /* takes what has come, expires timers; true: something moved */
/* As endpoints_post(). */
bool tcps_post(struct xske_loop *l, uint32_t limit, uint32_t *posted);
bool tcps_have_work(const struct xske_loop *l);   /* somebody has something to send, or to say */
bool tcps_have_mail(const struct xske_loop *l);   /* an application has */
uint64_t tcps_next_ns(const struct xske_loop *l); /* when to be awake; UINT64_MAX: no timer is armed */
bool tcps_are_settled(
        const struct xske_loop *l); /* everything written is acknowledged, and no FIN is under way */
void tcps_end(struct xske_loop *l, bool with_resets); /* all connections; idempotent */
/* arrive.c */
bool tcp_arrive(struct xske_tcp *t); /* what the receive rings hold */
int arrive_open(struct xske_tcp *t);
void arrive_close(struct xske_tcp *t);
/* app.c, for the loop: */
void app_took_ack(struct xske_tcp_conn *c, uint64_t bytes);
void app_drop_submits(struct xske_tcp_conn *c);
/* open.c: its application has destroyed it. */
void tcp_bury(struct xske_tcp_conn *c);

/* ---- small things -------------------------------------------------------------------------------- */

/* Counters: one writer, whole words. */
static inline void tcp_store(uint64_t *word, uint64_t value)
{
	__atomic_store_n(word, value, __ATOMIC_RELAXED);
}

static inline void tcp_count(uint64_t *word, uint64_t by)
{
	tcp_store(word, *word + by);
}

static inline uint32_t sents_count(const struct xske_tcp_conn *c)
{
	return c->sents.tail - c->sents.head;
}

static inline struct sent *sents_at(const struct xske_tcp_conn *c, uint32_t index) /* 0: the oldest */
{
	return &c->sents.ring[(c->sents.head + index) & c->sents.mask];
}

static inline bool tcp_is_six(const struct xske_tcp_conn *c)
{
	return c->tuple.version == 6;
}

/* Of option bytes in every segment with data. */
static inline uint32_t tcp_option_bytes(const struct xske_tcp_conn *c)
{
	return c->timestamps_ok ? TCP_TIMESTAMP_BYTES : 0;
}

/* RFC 7323, 4: a millisecond clock; it wraps after 24.8 days of half a cycle. */
static inline uint32_t tcp_stamp(const struct xske_tcp_conn *c)
{
	return (uint32_t)(c->tcp->now_ns / NSEC_PER_MSEC) + c->ts_offset;
}

void tcp_publish(struct xske_tcp_conn *c); /* gauges of info; state.c */

#endif
