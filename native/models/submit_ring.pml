/* SPDX-License-Identifier: MIT */
/*
 * submit_ring.pml - an endpoint's life: a thread sends packets of one or two descs into a ring of two slots with indices
 * of two bits (they wrap), the loop posts them as room comes and goes, another thread closes and destroys the endpoint,
 * and the loop ends, all at any moment. Every desc that was accepted is posted or dropped, once, in order, and only in
 * whole packets; the loop touches nothing that may have been freed.
 *
 * mirrors native/spsc.h spsc_room 2ee58e26
 * mirrors native/spsc.h spsc_push 86749556
 * mirrors native/spsc.h spsc_ready 970221b3
 * mirrors native/spsc.h spsc_pop 6d55fd85
 * mirrors native/send.c enter 7133754d
 * mirrors native/send.c xske_endpoint_send 047494e7
 * mirrors native/endpoint.c endpoint_is_open 86dee625
 * mirrors native/endpoint.c endpoint_hand_over e1ea925f
 * mirrors native/endpoint.c next_packet 7da00734
 * mirrors native/endpoint.c post_from ffc42f0d
 * mirrors native/endpoint.c drop_submits 82b75734
 * mirrors native/endpoint.c forget_pending 5997634e
 * mirrors native/endpoint.c endpoint_remove 600fef38
 * mirrors native/endpoint.c xske_endpoint_destroy 8730c88d
 * mirrors native/loop.c loop_finish 89ea71a4
 *
 * holds
 * breaks -DHEAD_BY_ONE: half a packet is published
 * breaks -DHEAD_FIRST: published before it is written
 * breaks -DPOPPED_FIRST: given back before it is read
 * breaks -DHANDED_OVER_LATE: when the arena has been left, so that it may be closed meanwhile
 * breaks -DCLOSED_UNENTERED: while a thread sends
 * breaks -DSTAYS_PENDING: removed, but not from the list
 * breaks -DDROPPED_AND_KEPT: what the loop drops stays in the ring
 * breaks -DNO_LAST_DROP: of what crossed the loop's end
 */
#define WORDS 7
#define THREADS 3
#define DEPTH 4
#include "store_buffer.inc"

#define SENDER 0
#define LOOP 1
#define CLOSER 2
#define SLOTS 2
#define PACKETS 3
/* Words 0 and 1: the slots, 2 * number + (more of its packet comes). */
#define HEAD 2
#define TAIL 3
#define ENTERED 4
#define REMOVED 5
#define ENDED 6

bool queued, pending, backlog; /* there is one endpoint: on the lists, or not */
bool freed, over, closed;
byte accepted, gone; /* descs */
chan commands = [1] of { bit };

inline enter(me)
{
	atomic { empty(buffer[me]) && word[ENTERED] == 0 -> word[ENTERED] = 1 }
}

inline leave(me)
{
	STORE(me, ENTERED, 0)
}

inline hand_over()
{
	RMW(SENDER, was = queued; queued = true);
	if
	:: was -> was = false
	:: else -> RMW(SENDER, pending = true)
	fi
}

inline push(n)
{
	atomic {
		STORE(SENDER, head & 1, 2 * accepted + (n == 2));
#ifdef HEAD_BY_ONE
		STORE(SENDER, HEAD, (head + 1) & 3);
#endif
		if
		:: n == 2 -> STORE(SENDER, (head + 1) & 1, 2 * (accepted + 1))
		:: else
		fi;
		accepted = accepted + n
	}
}

proctype Sender()
{
	byte i, head, n;
	bool was, full_now;

	do
	:: i == PACKETS -> break
	:: i < PACKETS ->
		if
		:: n = 1
		:: n = 2
		fi;
		if
		:: word[REMOVED] || word[ENDED] -> break
		:: else
		fi;
		enter(SENDER);
		if
		:: word[REMOVED] || word[ENDED] -> leave(SENDER); break
		:: else
		fi;
		full_now = SLOTS - ((head - word[TAIL]) & 3) < n;
		if
		:: full_now -> leave(SENDER); i++ /* -EAGAIN: not this one */
		:: else ->
#ifdef HEAD_FIRST
			STORE(SENDER, HEAD, (head + n) & 3);
			push(n);
#else
			push(n);
			STORE(SENDER, HEAD, (head + n) & 3);
#endif
			head = (head + n) & 3;
			i++;
#ifdef HANDED_OVER_LATE
			leave(SENDER);
			hand_over()
#else
			hand_over();
			leave(SENDER)
#endif
		fi;
		full_now = false
	od
}

/* One desc, of the reader's: the next that nobody has had. */
inline take_slot(tail)
{
	d_step {
		assert(word[tail & 1] / 2 == gone);
		gone++
	}
}

/* A packet, whole; then perhaps no room for the next. */
inline post_from()
{
	ready = (word[HEAD] - tail) & 3;
	do
	:: ready == 0 -> break
	:: ready > 0 -> backlog = true; break /* no room: it stays in the round */
	:: ready > 0 ->
		more = word[tail & 1] & 1;
		assert(ready > more); /* the rest of it is there */
#ifdef POPPED_FIRST
		STORE(LOOP, TAIL, (tail + 1 + more) & 3);
#endif
		take_slot(tail);
		if
		:: more -> take_slot(tail + 1)
		:: else
		fi;
		tail = (tail + 1 + more) & 3;
		ready = ready - 1 - more;
#ifndef POPPED_FIRST
		STORE(LOOP, TAIL, tail);
#endif
		more = 0
	od;
	ready = 0
}

inline drop_submits(me, tail)
{
	ready = (word[HEAD] - tail) & 3;
	do
	:: ready == 0 -> break
	:: ready > 0 -> take_slot(tail); tail = (tail + 1) & 3; ready--
	od;
#ifdef DROPPED_AND_KEPT
	skip
#else
	STORE(me, TAIL, tail)
#endif
}

inline remove()
{
	assert(!freed);
#ifdef STAYS_PENDING
	backlog = false;
#else
	atomic { pending = false; backlog = false };
#endif
	drop_submits(LOOP, tail);
	STORE(LOOP, REMOVED, 1);
	known = false
}

proctype Loop()
{
	byte tail, ready, more;
	bool known, was;

	known = true;
	do
	:: commands?_ -> remove()
	:: backlog || pending ->
		if
		:: !backlog -> RMW(LOOP, pending = false)
		:: else -> backlog = false
		fi;
		assert(!freed);
		RMW(LOOP, queued = false);
		post_from();
		if
		:: backlog ->
			RMW(LOOP, was = queued; queued = true);
			if
			:: was -> backlog = false; was = false
			:: else
			fi
		:: else
		fi
	:: break
	od;
	/* loop_finish() */
	STORE(LOOP, ENDED, 1);
	if
	:: known -> remove()
	:: else
	fi;
	FENCE(LOOP);
	over = true
}

proctype Closer()
{
	byte ready, tail;

#ifndef CLOSED_UNENTERED
	enter(CLOSER);
#endif
	commands!0;
	word[REMOVED] || over;
	tail = word[TAIL];
#ifndef NO_LAST_DROP
	drop_submits(CLOSER, tail);
#endif
	freed = true; /* buried, and then it may take as long as it likes until the loop looks */
	leave(CLOSER);
	closed = true
}

active proctype Judge()
{
end:	atomic {
		timeout ->
		assert(closed && over && gone == accepted)
	}
}

init
{
	atomic { run Sender(); run Loop(); run Closer() }
}
