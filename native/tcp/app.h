/* SPDX-License-Identifier: MIT */
/* app.h - what a connection shares with its application: who writes which word. */
#ifndef XSKE_TCP_APP_H
#define XSKE_TCP_APP_H

#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "../spsc.h"
#include "../util.h"

/* The application's side; its thread's but for what is marked shared. Made and destroyed by app.c. */
struct tcp_app {
	struct spsc submits;      /* blocks: addr, len, options = sum */
	uint64_t submitted_bytes; /* ever; whole words, as others read it */
	bool shutdown_called, closed;
	bool chunks_short; /* the latest write had no room for want of chunks, not of the peer's ACKs */
	/* A ring of bytes from the loop to the application: shared, head written by the loop, tail by the application. seq_cst
	 * stores: release for the bytes, and each then looks at a word of the other's (awaits, window_closed). Models: await.pml,
	 * tcp_mailbox.pml. */
	uint8_t *received;
	uint32_t receive_mask;
	alignas(XSKE_CACHE_LINE) _Atomic uint64_t receive_head;
	alignas(XSKE_CACHE_LINE) _Atomic uint64_t receive_tail;
	/* Shared, written by the application, read by the loop, after which it hands the connection over. Released, and acquired
	 * by an exchange: with a wish comes what was submitted before. */
	_Atomic uint32_t wants; /* TCP_WANTS_* */
	/* Shared, written by the loop: seq_cst where `awaits` is looked at next (for window_closed: receive_tail). The others are
	 * stored before one of those and come with it; the end is signalled whether awaited or not, so it is only released. */
	alignas(XSKE_CACHE_LINE) _Atomic uint64_t acked_bytes; /* of submitted_bytes */
	_Atomic uint64_t send_buffer;                          /* bytes: the most of submitted - acked */
	_Atomic uint32_t block_bytes; /* of payload in a block; 0 = not connected yet */
	_Atomic uint32_t state;       /* enum xske_tcp_state */
	_Atomic uint32_t error;       /* errno, once CLOSED */
	_Atomic uint32_t at_end;      /* TCP_END_*: no more than receive_head will come */
	_Atomic uint32_t
	        window_closed; /* the application's reading is to be told: the window had become small */
	/* Shared: what the application waits for, XSKE_TCP_READABLE ...; who does what it waits for clears it and signals. Set with
	 * seq_cst and a fence before the second look. take_submits() only releases the ring's tail, so there it clears by an RMW:
	 * of two that write the word the second has seen the first. */
	_Atomic uint32_t awaits;
};
enum { TCP_END_OF_STREAM = 1, TCP_END_OF_CONNECTION = 2 }; /* by the peer's FIN; without */
/* It stands on the pending list; it was destroyed, and who takes it from there buries it, for good: DEAD is never cleared. */
enum { QUEUED_PENDING = 1, QUEUED_DEAD = 2 };
enum { TCP_WANTS_SHUTDOWN = 1, TCP_WANTS_ABORT = 2, TCP_WANTS_WINDOW = 4, TCP_WANTS_CLOSE = 8 };

#endif
