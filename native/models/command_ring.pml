/* SPDX-License-Identifier: MIT */
/*
 * command_ring.pml - two threads give commands under the lock, the loop takes them and ends at any moment. Two slots and
 * indices of two bits, which begin anywhere, so that they wrap. What was accepted is done once, in its sender's order, and
 * not after the end; what comes later is refused. Slots and indices go through store buffers; who locks sees what was
 * stored under the lock before.
 *
 * mirrors native/spsc.h spsc_room 2ee58e26
 * mirrors native/spsc.h spsc_push 86749556
 * mirrors native/spsc.h spsc_ready 970221b3
 * mirrors native/spsc.h spsc_pop 6d55fd85
 * mirrors native/loop.c xske_loop_command 021d4330
 * mirrors native/loop.c take_commands dee501ae
 * mirrors native/loop.c loop_finish 89ea71a4
 *
 * holds
 * breaks -DNO_LOCK: two producers
 * breaks -DHEAD_FIRST: published before it is written
 * breaks -DPOPPED_FIRST: given back before it is read
 * breaks -DROOM_FOR_ONE_MORE
 * breaks -DENDED_WITHOUT_LOCK: between a producer's look at it and his push
 * breaks -DENDED_AFTER_LOCK: between the last look into the ring and the end one more is accepted
 * breaks -DNO_LAST_LOOK
 */
#define WORDS 4
#define THREADS 3
#define DEPTH 2
#include "store_buffer.inc"

#define LOOP 2
#define SLOTS 2
#define HEAD 2 /* words 0 and 1: the slots */
#define TAIL 3
#define EACH 2 /* commands of a producer: 10 and 11, 20 and 21 */

bool locked;
byte last_locked = LOOP;
bool ended, over;
byte accepted[2], done[2], answered;

inline lock(me)
{
#ifdef NO_LOCK
	skip
#else
	atomic { !locked && empty(buffer[last_locked]) -> locked = true; last_locked = me }
#endif
}

inline push(me, command)
{
	head = word[HEAD]; /* his own, or seen with the lock */
	tail = word[TAIL];
#ifdef ROOM_FOR_ONE_MORE
	no_room = ((head - tail) & 3) > SLOTS;
#else
	no_room = ((head - tail) & 3) >= SLOTS;
#endif
	if
	:: no_room
	:: else ->
		/* Counted first: the loop may be done with it before this thread goes on. */
		atomic {
			accepted[me]++;
#ifdef HEAD_FIRST
			STORE(me, HEAD, (head + 1) & 3)
		};
		STORE(me, head & 1, command)
#else
			STORE(me, head & 1, command)
		};
		STORE(me, HEAD, (head + 1) & 3)
#endif
	fi;
	d_step { head = 0; tail = 0; mine = 0; no_room = false }
}

proctype Producer(byte me)
{
	byte head, tail;
	byte mine;
	bool no_room;

	do
	:: accepted[me] == EACH -> break
	:: else ->
		lock(me);
		if
		:: ended -> locked = false; break
		:: else -> mine = 10 * (me + 1) + accepted[me]; push(me, mine)
		fi;
		locked = false
	od;
	atomic { FENCE(me); answered++ }
}

inline take_commands()
{
	first = tail;
	ready = (word[HEAD] - tail) & 3;
	tail = (tail + ready) & 3;
#ifdef POPPED_FIRST
	STORE(LOOP, TAIL, tail);
#endif
	do
	:: ready > 0 ->
		atomic {
			command = word[first & 1];
			assert(!over);
			/* The next of its sender's, and none twice. */
			assert(command == 10 * (command / 10) + done[command / 10 - 1]);
			done[command / 10 - 1]++;
			first = (first + 1) & 3;
			ready--;
			command = 0
		}
	:: else -> break
	od;
	first = 0;
#ifndef POPPED_FIRST
	STORE(LOOP, TAIL, tail)
#endif
}

proctype Loop(byte tail)
{
	byte first, ready, command;

	do
	:: take_commands()
	:: break
	od;
#ifdef ENDED_WITHOUT_LOCK
	take_commands();
	ended = true;
#else
	lock(LOOP);
#ifndef NO_LAST_LOOK
	take_commands();
#endif
#ifdef ENDED_AFTER_LOCK
	locked = false;
#endif
	ended = true;
	locked = false;
#endif
	FENCE(LOOP);
	over = true
}

active proctype Judge()
{
end:	atomic {
		timeout ->
		assert(answered == 2 && over);
		assert(accepted[0] == done[0] && accepted[1] == done[1])
	}
}

init
{
	byte from;

	atomic {
		select(from : 0 .. 3);
		word[HEAD] = from;
		word[TAIL] = from;
		run Producer(0);
		run Producer(1);
		run Loop(from)
	}
}
