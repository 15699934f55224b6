/* SPDX-License-Identifier: MIT */
/*
 * sleep_wake.pml - the loop sleeps only when nobody has brought it anything. Two threads, each with an endpoint, give
 * commands and submits; the loop takes commands, then goes round its endpoints (one packet a turn, room now and then
 * absent), dozes when nothing moved, and is aborted at any moment. Here a sleep has no deadline, so that a wake-up that
 * is lost stays lost: at a standstill everything that was brought must have been taken. While the link is down, or with
 * something inflight and no room, submits are no mail: those sleeps end by themselves within 10 ms, and are not modelled.
 *
 * mirrors native/idle.c loop_wake ed839518
 * mirrors native/idle.c has_mail 83979a16
 * mirrors native/idle.c doze 9890b5e0
 * mirrors native/endpoint.c endpoint_hand_over e1ea925f
 * mirrors native/endpoint.c begin_round 1578c504
 * mirrors native/endpoint.c endpoints_post bffddda8
 * mirrors native/endpoint.c endpoints_have_work f56b582c
 * mirrors native/loop.c xske_loop_command 021d4330
 * mirrors native/loop.c xske_loop_abort 9425ab82
 *
 * holds
 * holds -DABORTS_EARLY: at any moment
 * breaks -DNO_FENCE_IN_WAKE: the command is still in its sender's buffer when he sees the loop awake
 * breaks -DNO_FENCE_IN_DOZE: the mark is still in the loop's buffer when it finds no mail
 * breaks -DNO_LOOK_BEFORE_SLEEP
 * breaks -DLOOK_BEFORE_MARK
 * breaks -DQUEUED_CLEARED_LATE: after the look into the ring
 * breaks -DNO_CAS: two that come at once, one is forgotten
 * breaks -DLOOP_FORGETS_TO_QUEUE: an endpoint with more has its thread put it on two lists
 * breaks -DABORTS_EARLY -DABORT_WITHOUT_WRITE
 */
#define WORDS 4
#define THREADS 3
#define DEPTH 2
#include "store_buffer.inc"

#define LOOP 2 /* threads 0 and 1 are the senders; an endpoint has its sender's number */
#define NONE 3
#define COMMANDS 2 /* words 0 and 1: heads of the submit rings */
#define SLEEPING 3


byte last_locked = LOOP; /* had command_lock: whoever has it next sees his stores (the ring itself: command_ring.pml) */
byte pending = NONE, next_pending[2] = NONE;
bool queued[2];
byte wake_fd;
bool aborted;
byte commands_taken, submits_taken[2];
byte backlog = NONE, served = NONE, served_end = NONE; /* NONE: the head itself */

inline wake(me)
{
	if
#ifdef NO_FENCE_IN_WAKE
	:: !word[SLEEPING]
#else
	:: empty(buffer[me]) && !word[SLEEPING] /* the fence, and the load behind it */
#endif
	:: empty(buffer[me]) && word[SLEEPING] ->
		RMW(me, was = word[SLEEPING]; word[SLEEPING] = 0);
		if
		:: was -> atomic { wake_fd = 1; was = 0 }
		:: else
		fi
	fi
}

inline command(me)
{
	atomic { empty(buffer[last_locked]); last_locked = me; STORE(me, COMMANDS, word[COMMANDS] + 1) };
	wake(me)
}

inline submit(me)
{
	STORE(me, me, brought + 1); /* spsc_push(): the head */
	brought++;
	RMW(me, was = queued[me]; queued[me] = true);
	if
	:: !was ->
		head = pending;
		do
		:: next_pending[me] = head;
			if /* the CAS */
#ifdef NO_CAS
			:: atomic { pending = me; head = 0 }; break
#else
			:: atomic { empty(buffer[me]) && pending == head -> pending = me; head = 0 }; break
			:: atomic { pending != head -> head = pending }
#endif
			fi
		od;
		wake(me)
	:: else ->
		was = 0;
		wake(me)
	fi
}

proctype Sender(byte me)
{
	byte i, brought, head;
	bool was;

#ifdef ABORTS_EARLY
	for (i : 1 .. 1) {
#else
	for (i : me .. 1) {
#endif
		if
		:: command(me)
		:: submit(me)
		fi
	}
}

inline begin_round()
{
	if
	:: pending == NONE -> in_order = NONE
	:: else ->
		atomic { e = pending; pending = NONE };
		d_step {
			in_order = NONE;
			do
			:: e != NONE -> next = next_pending[e]; next_pending[e] = in_order; in_order = e; e = next
			:: else -> break
			od
		}
	fi;
	d_step {
		if
		:: served_end == NONE -> served = in_order
		:: else -> next_pending[served_end] = in_order
		fi;
		backlog = served;
		served = NONE;
		served_end = NONE;
		in_order = 0;
		next = 0
	}
}

/* A turn that finds no room leaves the rest of the round: then something is inflight, and the sleep is short. */
inline post()
{
	no_room = false;
	if
	:: backlog == NONE -> begin_round()
	:: else
	fi;
	do
	:: backlog != NONE && !no_room ->
		atomic { e = backlog; backlog = next_pending[e] };
#ifndef QUEUED_CLEARED_LATE
		RMW(LOOP, queued[e] = false);
#endif
		ready = word[e] - submits_taken[e];
		if
		:: ready == 0
		:: ready > 0 -> submits_taken[e]++; ready--; moved = true
		:: ready > 0 && !has_lacked -> has_lacked = true; no_room = true
		fi;
#ifdef QUEUED_CLEARED_LATE
		RMW(LOOP, queued[e] = false);
#endif
		if
		:: ready == 0
		:: else ->
#ifdef LOOP_FORGETS_TO_QUEUE
			was = queued[e];
#else
			RMW(LOOP, was = queued[e]; queued[e] = true);
#endif
			d_step {
				if
				:: was
				:: !was && no_room -> next_pending[e] = backlog; backlog = e
				:: !was && !no_room ->
					next_pending[e] = NONE;
					if
					:: served_end == NONE -> served = e
					:: else -> next_pending[served_end] = e
					fi;
					served_end = e
				fi;
				was = false
			}
		fi
	:: else -> break
	od;
	e = 0;
	ready = 0
}

inline look()
{
	mail = word[COMMANDS] != commands_taken;
	mail = mail || (backlog == NONE && served == NONE && pending != NONE);
	mail = mail || aborted
}

proctype Loop()
{
	byte e, next, in_order, ready;
	bool moved, was, mail, no_room, has_lacked;

	do
	:: aborted -> break
	:: else ->
		moved = false;
		ready = word[COMMANDS] - commands_taken;
		commands_taken = commands_taken + ready;
		moved = ready > 0;
		post();
		if
		:: moved || no_room || backlog != NONE || served != NONE
		:: else -> /* doze() */
#ifdef LOOK_BEFORE_MARK
			look();
#endif
			STORE(LOOP, SLEEPING, 1);
#ifndef NO_FENCE_IN_DOZE
			FENCE(LOOP);
#endif
#ifdef NO_LOOK_BEFORE_SLEEP
			mail = false;
#endif
#if !defined(LOOK_BEFORE_MARK) && !defined(NO_LOOK_BEFORE_SLEEP)
			look();
#endif
			if
			:: mail
			:: !mail -> atomic { wake_fd > 0; wake_fd = 0 }
			fi;
			mail = false;
			STORE(LOOP, SLEEPING, 0)
		fi
	od
}

active proctype Aborter()
{
#ifndef ABORTS_EARLY
	atomic {
		timeout -> /* a standstill: all that was brought was taken */
		assert(commands_taken == word[COMMANDS]);
		assert(submits_taken[0] == word[0] && submits_taken[1] == word[1]);
		assert(pending == NONE && backlog == NONE && served == NONE)
	}
#endif
	aborted = true;
#ifndef ABORT_WITHOUT_WRITE
	wake_fd = 1
#endif
}

init
{
	atomic { run Sender(0); run Sender(1); run Loop() }
}
