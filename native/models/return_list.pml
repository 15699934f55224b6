/* SPDX-License-Identifier: MIT */
/*
 * return_list.pml - an application's arena: its owner allocates, and waits at the quota; the loop and another thread drop
 * what they were given, clones as well, and the loop parks the arena at any moment. In the end the owner closes it, and
 * what is dropped later goes to the pool. A chunk is always in one place (`where`, which the code does not have), no
 * reference is dropped twice, nobody waits for chunks that are there, and all is in the pool at the end.
 * `waiting` is the owner's plain store and his load behind it, so it goes through a store buffer.
 *
 * mirrors native/arena.h frag_unref 8e47081b
 * mirrors native/arena.h frag_ref 4d143928
 * mirrors native/arena.h arena_waits d821c2d0
 * mirrors native/arena.h arena_alloc 59ff520f
 * mirrors native/arena.c unreferenced 9a076527
 * mirrors native/arena.c arena_push_stack b7f1de36
 * mirrors native/arena.c drop_bias 271fdd97
 * mirrors native/arena.c retire_open 93d5e736
 * mirrors native/arena.c arena_retire_or_stack_open fcd52d21
 * mirrors native/arena.c arena_take_returns c41ce513
 * mirrors native/arena.c grow 12e3cc62
 * mirrors native/arena.c arena_open_chunk a84d5100
 * mirrors native/arena.c disown c4d7a1c1
 * mirrors native/arena.c arena_recycle 126de398
 * mirrors native/arena.c enter_as ad4d5c9c
 * mirrors native/arena.c xske_arena_park_if_idle 41650674
 * mirrors native/arena.c arena_give_back 59588177
 * mirrors native/arena.c xske_arena_park 9b503050
 * mirrors native/arena.c xske_arena_close 5498848e
 * mirrors native/arena.c xske_arena_await b2ababe2
 *
 * holds
 * holds -DFRAGS=2 -DCHUNKS=1 -DALLOCS=4: two frags in a chunk, and the chunk is rewound
 * breaks -DNO_CAS: two that push at once
 * breaks -DTAKEN_BY_LOAD: the list, and then the head is cleared
 * breaks -DUNREF_BY_LOAD: two that drop at once
 * breaks -DBIAS_WHOLE: given back with what was handed out
 * breaks -DREWOUND_UNSEEN: without a look whether others hold it
 * breaks -DPARKED_WITHOUT_MARK: who drops later does not see that nobody will take it
 * breaks -DPARKED_UNENTERED: while the owner allocates
 * breaks -DPOOL_WITHOUT_LOCK
 * breaks -DNO_FENCE: the owner's `waiting` is in his buffer when he looks again
 * breaks -DNO_SECOND_LOOK: he waits as soon as he has said so
 * breaks -DLOOKED_FIRST: who pushes looks who waits, then pushes
 */
#define WORDS 1
#define THREADS 1
#define DEPTH 1
#include "store_buffer.inc"

#define WHEN(condition, code) if :: condition -> code :: else fi

#define OWNER 0
#define WAITING 0 /* the word */

#ifndef CHUNKS
#define CHUNKS 2
#define FRAGS 1 /* in a chunk */
#define ALLOCS 3
#endif
#define BIAS 100
#define NONE 255
#define PARKED 254
#define STOP 9

mtype = { POOLED, STACKED, RETURNED, REFERENCED, FALLEN, FREE, USED, BEING_PARKED };

byte refs[CHUNKS], next[CHUNKS] = NONE;
mtype where[CHUNKS] = POOLED;
byte returns = NONE;
mtype entered = FREE;
byte owned, unlinked;
bool closed, event;
/* The entered thread's. */
byte open = NONE, stack = NONE, used;
short handed;
chan gives[2] = [ALLOCS + 1] of { byte }; /* references */

inline disown(c)
{
	assert(refs[c] == 0);
	where[c] = POOLED;
	owned--;
	WHEN(owned == 0 && closed, unlinked++)
}

inline push_stack(c)
{
	d_step {
		assert(where[c] == FALLEN);
		refs[c] = 0;
		where[c] = STACKED;
		next[c] = stack;
		stack = c
	}
}

/* refs, less n; last: nobody holds it now. */
inline fetch_sub(c, n)
{
#ifdef UNREF_BY_LOAD
	left = refs[c];
	atomic {
		left = left - (n);
		refs[c] = left;
#else
	atomic {
		assert(refs[c] >= n);
		refs[c] = refs[c] - (n);
		left = refs[c];
#endif
		last = left == 0;
		left = 0;
		WHEN(last, assert(where[c] == REFERENCED); where[c] = FALLEN)
	}
}

/* The owner's: its open chunk lives on by refs alone. */
inline retire()
{
	c = open;
	open = NONE;
	used = 0;
#ifdef BIAS_WHOLE
	fetch_sub(c, BIAS);
#else
	fetch_sub(c, BIAS - handed);
#endif
	handed = 0;
	WHEN(last, push_stack(c));
	last = false
}

/* Of a list taken whole: what is on it was pushed, once, and is nobody's. */
inline check(list)
{
	d_step {
		at = list;
		n = 0;
		do
		:: at >= PARKED -> break
		:: else ->
			assert(where[at] == RETURNED && refs[at] == 0 && n < CHUNKS);
			where[at] = STACKED;
			n++;
			at = next[at]
		od;
		at = 0;
		n = 0
	}
}

inline exchange_returns(with)
{
#ifdef TAKEN_BY_LOAD
	list = returns;
	atomic {
		returns = with;
#else
	atomic {
		list = returns;
		returns = with;
#endif
		check(list)
	}
}

inline grow()
{
	atomic { /* under umem->lock; one chunk, the lowest */
		c = 0;
		do
		:: c < CHUNKS && where[c] != POOLED -> c++
		:: else -> break
		od;
		WHEN(c < CHUNKS, owned++; where[c] = FALLEN; push_stack(c));
		c = 0
	}
}

inline open_chunk()
{
	if
	:: open != NONE ->
#ifdef REWOUND_UNSEEN
		mine = true;
#else
		mine = refs[open] + handed == BIAS;
#endif
		if
		:: mine -> d_step { assert(refs[open] + handed == BIAS); refs[open] = BIAS; handed = 0; used = 0; mine = false }
		:: else -> retire()
		fi
	:: else
	fi;
	if
	:: open == NONE ->
		if
		:: stack == NONE && returns != NONE ->
			exchange_returns(NONE);
			WHEN(list != PARKED, stack = list);
			list = 0
		:: else
		fi;
		WHEN(stack == NONE, grow());
		if
		:: stack != NONE ->
			d_step {
				assert(where[stack] == STACKED && refs[stack] == 0);
				open = stack;
				stack = next[open];
				refs[open] = BIAS;
				where[open] = REFERENCED
			}
		:: else
		fi
	:: else
	fi
}

/* got: whether there is a frag, in the chunk that is open. */
inline alloc()
{
	atomic { entered == FREE -> entered = USED };
	WHEN(open == NONE || used == FRAGS, open_chunk());
	got = open != NONE;
	WHEN(got, d_step { used++; handed++; frag = open });
	entered = FREE
}

inline retire_or_stack_open()
{
	if
	:: open != NONE && refs[open] + handed == BIAS ->
		d_step { where[open] = FALLEN; push_stack(open); open = NONE; handed = 0; used = 0 }
	:: open != NONE && refs[open] + handed != BIAS -> retire()
	:: open == NONE
	fi
}

inline give_back(from)
{
	do
	:: from >= PARKED -> break
	:: else -> c = from; from = next[c]; disown(c)
	od
}

inline park()
{
	retire_or_stack_open();
#ifdef PARKED_WITHOUT_MARK
	exchange_returns(NONE);
#else
	exchange_returns(PARKED);
#endif
	d_step { give_back(stack); give_back(list); stack = NONE; list = 0; c = 0 }
}

inline drop_own()
{
	atomic { entered == FREE -> entered = USED };
	if
	:: frag == open -> handed--
	:: else ->
		fetch_sub(frag, 1);
		WHEN(last, push_stack(frag));
		last = false
	fi;
	entered = FREE
}

proctype Owner()
{
	byte i, c, frag, list, at, n, left;
	bool got, last, mine;

	for (i : 1 .. ALLOCS) {
		do
		:: alloc();
			WHEN(got, break);
			/* xske_arena_await(), and look again before waiting. */
			STORE(OWNER, WAITING, 1);
#ifndef NO_FENCE
			FENCE(OWNER);
#endif
#ifndef NO_SECOND_LOOK
			alloc();
			WHEN(got, break);
#endif
			atomic { event -> event = false }
		od;
		got = false;
		if
		:: gives[0]!frag
		:: gives[1]!frag
		:: atomic { refs[frag]++; gives[0]!frag; gives[1]!frag } /* with a clone */
		:: atomic { refs[frag]++; gives[1]!frag }; drop_own() /* the clone */
		fi;
		frag = 0
	}
	gives[0]!STOP;
	gives[1]!STOP;
	atomic { entered == FREE -> entered = USED };
	park();
	d_step {
		closed = true;
		WHEN(owned == 0, unlinked++)
	}
}

inline look_who_waits()
{
	if
	:: word[WAITING] == 0
	:: else ->
		atomic { waits = word[WAITING]; word[WAITING] = 0 };
		WHEN(waits, atomic { event = true; waits = false })
	fi
}

inline recycle(c)
{
	head = returns;
	do
	:: head == PARKED ->
#ifdef POOL_WITHOUT_LOCK
		n = owned;
		d_step { disown(c); owned = n - 1 };
#else
		d_step { disown(c) };
#endif
		break
	:: else ->
#ifdef LOOKED_FIRST
		look_who_waits();
#endif
		next[c] = head;
		if
#ifdef NO_CAS
		:: d_step { returns = c; where[c] = RETURNED }; break
#else
		:: atomic { returns == head -> assert(where[c] == FALLEN); returns = c; where[c] = RETURNED }; break
		:: atomic { returns != head -> head = returns }
#endif
		fi
	od;
	head = 0;
#ifndef LOOKED_FIRST
	look_who_waits()
#endif
}

/* 0 is the loop. */
proctype Dropper(byte me)
{
	byte frag, c, head, list, at, n, left;
	bool last, waits, parks;

	parks = me == 0;
	do
	:: gives[me]?frag ->
		WHEN(frag == STOP, break);
		fetch_sub(frag, 1);
		WHEN(last, recycle(frag));
		last = false;
		frag = 0
#ifdef PARKED_UNENTERED
	:: parks -> parks = false; park()
#else
	:: atomic { parks && entered == FREE -> entered = BEING_PARKED; parks = false }; /* in use, it is left alone */
		park();
		entered = FREE
#endif
	od
}

active proctype Judge()
{
	byte i;

end:	atomic {
		timeout ->
		assert(closed && unlinked == 1 && owned == 0 && returns == PARKED);
		for (i : 0 .. CHUNKS - 1) {
			assert(where[i] == POOLED && refs[i] == 0)
		}
	}
}

init
{
	atomic { run Owner(); run Dropper(0); run Dropper(1) }
}
