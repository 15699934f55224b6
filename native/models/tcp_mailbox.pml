/* SPDX-License-Identifier: MIT */
/*
 * tcp_mailbox.pml - a TCP connection between its application's two threads and the loop: one writes blocks and shuts down,
 * the other closes, waits for the end and destroys it; the loop takes what was handed over, and the connection may end by
 * itself at any moment. Every block is taken or dropped once, a FIN comes behind all that was written before it, no wish
 * is forgotten, and the connection is buried once, when it stands on no list and nobody but a late caller knows it.
 *
 * mirrors native/tcp/app.c hand_over dd56ec74
 * mirrors native/tcp/app.c want b6baa542
 * mirrors native/tcp/app.c app_drop_submits ff22e9d6
 * mirrors native/tcp/app.c xske_tcp_write 890eb9f9
 * mirrors native/tcp/app.c xske_tcp_shutdown 04e785c8
 * mirrors native/tcp/app.c xske_tcp_close c4b38873
 * mirrors native/tcp/stack.c take_pending 2d47e051
 * mirrors native/tcp/stack.c take_from 61b17dd6
 * mirrors native/tcp/stack.c tcp_unlink 64ae9a62
 * mirrors native/tcp/stack.c tell_the_gone 15b36684
 * mirrors native/tcp/state.c tcp_closed e8118a5f
 * mirrors native/tcp/open.c xske_tcp_conn_destroy 9f5d3d11
 *
 * holds
 * breaks -DDEAD_UNSEEN: buried although it stands on the list
 * breaks -DHANDED_OVER_DEAD: put on the list although it was destroyed
 * breaks -DDEAD_FORGOTTEN: taken from the list it can be put there again
 * breaks -DOVER_TOUCHED: the loop looks into one that its application may have destroyed
 * breaks -DCLEARED_LATE: `queued`, after the loop has looked
 * breaks -DWANTS_LAST: a FIN overtakes what was written before it
 * breaks -DNO_LAST_DROP: of blocks that crossed the end
 */
#define WORDS 4
#define THREADS 3
#define DEPTH 2
#include "store_buffer.inc"

#define WRITER 0
#define LOOP 1
#define CLOSER 2
#define BLOCKS 2
#define HEAD 0 /* of the submit ring: blocks ever; whether it is full is submit_ring.pml's */
#define TAIL 1
#define ENTERED 2
#define CLOSED 3 /* app.state */
#define DEAD 2   /* QUEUED_DEAD; 1: QUEUED_PENDING */
#define SHUTDOWN 1
#define CLOSE 2

byte queued, wants, buried, dropped, taken;
bool pending; /* there is one connection: it is on the list or not */
bool freed, destroyed, wrote;

inline hand_over(me)
{
	RMW(me, was = queued; queued = queued | 1);
	if
#ifdef HANDED_OVER_DEAD
	:: was & 1
	:: else -> RMW(me, assert(!buried); pending = true)
#else
	:: was
	:: else -> RMW(me, assert(!buried); pending = true)
#endif
	fi;
	was = 0
}

inline want(me, what)
{
	RMW(me, wants = wants | what);
	hand_over(me)
}

inline bury()
{
	atomic { assert(!buried); buried++; freed = true }
}

proctype Writer()
{
	byte i, was;

	for (i : 1 .. BLOCKS) {
		if
		:: word[CLOSED] -> break
		:: else
		fi;
		atomic { empty(buffer[WRITER]) && word[ENTERED] == 0 -> word[ENTERED] = 1 };
		if
		:: word[CLOSED] -> STORE(WRITER, ENTERED, 0); break
		:: else
		fi;
		STORE(WRITER, HEAD, i);
		STORE(WRITER, ENTERED, 0);
		hand_over(WRITER)
	}
	if
	:: word[CLOSED]
	:: else -> want(WRITER, SHUTDOWN)
	fi;
	wrote = true
}

inline take_submits()
{
	ready = word[HEAD];
	taken = taken + ready - tail;
	tail = ready;
	STORE(LOOP, TAIL, tail);
	ready = 0
}

/* tcp_unlink(), tcp_closed(): what the ring holds is dropped, and then the application may destroy it. */
inline end_connection()
{
	assert(!freed);
	over = true;
	ready = word[HEAD];
	dropped = dropped + ready - tail;
	tail = ready;
	STORE(LOOP, TAIL, tail);
	ready = 0;
	STORE(LOOP, CLOSED, 1)
}

inline take_from()
{
	assert(!freed);
#ifdef WANTS_LAST
	take_submits();
	RMW(LOOP, wish = wants; wants = 0);
#else
	RMW(LOOP, wish = wants; wants = 0);
	take_submits();
#endif
	if
	:: wish & SHUTDOWN -> assert(taken == BLOCKS)
	:: else
	fi;
	if
	:: wish & CLOSE -> end_connection()
	:: else
	fi;
	wish = 0
}

inline take_pending()
{
	RMW(LOOP, pending = false);
	assert(!freed);
	was_over = over;
#ifdef CLEARED_LATE
	if
	:: was_over
	:: else -> take_from()
	fi;
	RMW(LOOP, was = queued; queued = queued & DEAD);
	if
	:: was & DEAD -> bury()
	:: else
	fi;
#else
#ifdef DEAD_FORGOTTEN
	RMW(LOOP, was = queued; queued = 0);
#else
	RMW(LOOP, was = queued; queued = queued & DEAD);
#endif
	if
	:: was & DEAD -> bury()
#ifdef OVER_TOUCHED
	:: !(was & DEAD) -> take_from()
#else
	:: !(was & DEAD) && !was_over -> take_from()
	:: !(was & DEAD) && was_over
#endif
	fi;
#endif
	d_step { was = 0; was_over = false }
}

proctype Loop()
{
	byte tail, ready, wish, was;
	bool over, was_over, resets;

	if
	:: resets = true /* the peer will */
	:: true
	fi;
end:	do
	:: pending -> take_pending()
	:: resets && !over -> end_connection()
	od
}

proctype Closer()
{
	byte ready, was;

	if
	:: word[CLOSED]
	:: else -> want(CLOSER, CLOSE)
	fi;
	word[CLOSED];
	atomic { empty(buffer[CLOSER]) && word[ENTERED] == 0 -> word[ENTERED] = 1 };
#ifndef NO_LAST_DROP
	ready = word[TAIL];
	d_step { dropped = dropped + word[HEAD] - ready; ready = 0 };
#endif
#ifdef DEAD_UNSEEN
	bury();
#else
	RMW(CLOSER, was = queued; queued = queued | DEAD);
	if
	:: was & 1 /* who takes it from the list buries it */
	:: else -> bury()
	fi;
#endif
	STORE(CLOSER, ENTERED, 0);
	destroyed = true
}

active proctype Judge()
{
end:	atomic {
		timeout ->
		assert(destroyed && wrote && buried == 1);
		assert(taken + dropped == word[HEAD])
	}
}

init
{
	atomic { run Writer(); run Loop(); run Closer() }
}
