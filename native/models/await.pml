/* SPDX-License-Identifier: MIT */
/*
 * await.pml - who waits says so and looks again; who makes it true does that and looks who waits. Four words are used so,
 * and each is a store and a load behind it on either side, so both go through store buffers:
 *   (none)     the loop has written receive_head, the application awaits bytes (awaits)
 *   -DROOM     the loop has popped the submit ring and counts posted_descs, an endpoint's owner awaits room (waiting)
 *   -DSUBMITS  the loop has popped the submit ring, a connection's writer awaits room (awaits; both write that word)
 *   -DWINDOW   the application has read (receive_tail), the loop has told a small window (window_closed): the one that
 *              comes second opens it again
 * Whoever waits here waits for ever, so a wake-up that is lost is a standstill.
 *
 * mirrors native/arena.h arena_waits d821c2d0
 * mirrors native/arena.c xske_arena_await b2ababe2
 * mirrors native/endpoint.c post_from ffc42f0d
 * mirrors native/txq.c count_for ccba4825
 * mirrors native/tcp/app.c xske_tcp_await 60b2653d
 * mirrors native/tcp/app.c app_took_ack 0bd0f61d
 * mirrors native/tcp/app.c tell_window 112ff67c
 * mirrors native/tcp/app.c xske_tcp_read 28446c48
 * mirrors native/tcp/stack.c tcp_signal 94350e99
 * mirrors native/tcp/stack.c take_submits b4a98b0b
 * mirrors native/tcp/input.c copy_in dedd4a43
 * mirrors native/tcp/input.c tcp_receive_room 8d0a740f
 * mirrors native/tcp/says.c tcp_was_sent 031b2fee
 * mirrors native/tcp/says.c tcp_tell_window 5080caa8
 *
 * holds
 * holds -DROOM
 * holds -DSUBMITS
 * holds -DWINDOW
 * breaks -DLOOP_RELEASES: receive_head is no seq_cst store
 * breaks -DLOOKS_ONCE: the application does not look again
 * breaks -DROOM -DLOOP_RELEASES
 * breaks -DROOM -DAPP_RELEASES: `waiting` is no seq_cst store, and no fence comes behind it
 * breaks -DROOM -DLOOKS_ONCE
 * breaks -DSUBMITS -DLOOP_LOADS: the loop only looks at `awaits`
 * breaks -DWINDOW -DLOOP_RELEASES
 * breaks -DWINDOW -DAPP_RELEASES
 */
#define WORDS 3
#define THREADS 2
#define DEPTH 2
#include "store_buffer.inc"

#define LOOP 0
#define APP 1
#define TIMES 2
#define DATA 0   /* what is waited for: receive_head, or the ring's tail */
#define FLAG 1   /* waiting, awaits, window_closed */
#define POSTED 2 /* posted_descs */

#ifdef LOOP_RELEASES
#define LOOP_FENCE skip
#else
#define LOOP_FENCE FENCE(LOOP)
#endif
#ifdef APP_RELEASES
#define APP_FENCE skip
#else
#define APP_FENCE FENCE(APP)
#endif

bool event, is_wanted, is_told, app_done, loop_done;

#ifdef WINDOW

proctype App()
{
	STORE(APP, DATA, 1); /* has read; the ring has room */
	APP_FENCE;
	if
	:: word[FLAG] -> is_wanted = true /* tcp_mailbox.pml: the loop sees it */
	:: else
	fi;
	app_done = true
}

inline tell_window()
{
	if
	:: word[DATA] -> STORE(LOOP, FLAG, 0); is_told = true
	:: else
	fi
}

proctype Loop()
{
	STORE(LOOP, FLAG, 1); /* tcp_was_sent(): what was told is small */
	LOOP_FENCE;
	tell_window();
	if
	:: is_told
	:: is_wanted -> tell_window()
	fi;
	loop_done = true
}

#else

proctype Loop()
{
	byte i;
	bool waits;

	for (i : 1 .. TIMES) {
		STORE(LOOP, DATA, i);
#ifdef ROOM
		STORE(LOOP, POSTED, i);
#endif
#ifdef SUBMITS
#ifdef LOOP_LOADS
		waits = word[FLAG];
		if
		:: waits -> word[FLAG] = 0
		:: else
		fi;
#else
		RMW(LOOP, waits = word[FLAG]; word[FLAG] = 0);
#endif
#else
		LOOP_FENCE;
		if
		:: word[FLAG] -> RMW(LOOP, waits = word[FLAG]; word[FLAG] = 0)
		:: else
		fi;
#endif
		if
		:: waits -> event = true; waits = false
		:: else
		fi
	}
	loop_done = true
}

proctype App()
{
	byte had;

	do
	:: had == TIMES -> break
	:: else ->
		if
		:: word[DATA] > had -> had = word[DATA]
		:: else ->
#ifdef ROOM
			STORE(APP, FLAG, 1);
#else
			RMW(APP, word[FLAG] = 1);
#endif
			APP_FENCE;
			if
#ifndef LOOKS_ONCE
			:: word[DATA] > had
#endif
#ifdef LOOKS_ONCE
			:: true -> atomic { event -> event = false }
#else
			:: word[DATA] == had -> atomic { event -> event = false }
#endif
			fi
		fi
	od;
	app_done = true
}

#endif

active proctype Judge()
{
end:	atomic {
		timeout ->
		assert(app_done && loop_done)
	}
}

init
{
	atomic { run App(); run Loop() }
}
