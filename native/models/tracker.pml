/* SPDX-License-Identifier: MIT */
/*
 * tracker.pml - two watches go with their descs to the loop, which settles or loses each; the user closes the tracker, asks
 * how it stands, and lets go of it at any moment. Done means that none is lost and all have their stamps; nobody touches
 * it after it was freed, and it is freed once.
 *
 * mirrors native/tracker.c tracker_watch 18abce57
 * mirrors native/tracker.c xske_tracker_close 0e30237d
 * mirrors native/tracker.c xske_tracker_destroy 96aeeff2
 * mirrors native/tracker.c xske_tracker_state 067cdf5f
 * mirrors native/tracker.c settle a0ed7af9
 * mirrors native/tracker.c let_go bc16d074
 * mirrors native/tracker.c watch_settle bd67f27d
 * mirrors native/tracker.c watches_lose f7320e80
 *
 * holds
 * breaks -DLOST_READ_FIRST: asked whether any is lost, then whether any is pending
 * breaks -DLOST_SAID_LATE: after it is settled
 * breaks -DSTAMPED_LATE
 * breaks -DWATCHED_LATE: counted after it was handed over
 * breaks -DNOT_OPEN: no count for those that may still come
 * breaks -DONE_HOLDER: whoever settles the last frees it
 */
#define WATCHES 2

#ifdef NOT_OPEN
byte pending = 0;
#else
byte pending = 1;
#endif
#ifdef ONE_HOLDER
byte holders = 1;
#else
byte holders = 2;
#endif
bool lost, freed;
byte stamped, settled;
chan submits = [WATCHES] of { bit };

inline let_go()
{
	atomic {
		assert(!freed && holders > 0);
		holders--;
		freed = holders == 0
	}
}

inline settle()
{
	atomic {
		assert(!freed && pending > 0);
		pending--;
		last = pending == 0
	};
	if
	:: last -> last = false; let_go()
	:: else
	fi
}

inline watch()
{
	atomic { assert(!freed); pending++ }
}

/* is_done, or not: XSKE_TRACKER_DONE. */
inline ask()
{
	assert(!freed);
#ifdef LOST_READ_FIRST
	is_lost = lost;
	assert(!freed);
	is_done = pending == 0;
#else
	is_done = pending == 0;
	assert(!freed);
	is_lost = lost;
#endif
	is_done = is_done && !is_lost;
	if
	:: is_done -> assert(!lost && stamped == WATCHES)
	:: else
	fi;
	d_step { is_done = false; is_lost = false }
}

active proctype User()
{
	byte i;
	bool last, is_done, is_lost;

	for (i : 1 .. WATCHES) {
#ifdef WATCHED_LATE
		submits!0;
		watch()
#else
		watch();
		submits!0
#endif
	}
	if
	:: ask()
	:: true
	fi;
#ifndef NOT_OPEN
	settle(); /* xske_tracker_close() */
#endif
	do
	:: ask()
	:: break
	od;
	let_go()
}

active proctype Loop()
{
	bool last;
	byte i;

	for (i : 1 .. WATCHES) {
		submits?_;
		if
		:: true -> /* watch_settle() */
#ifndef STAMPED_LATE
			atomic { assert(!freed); stamped++ };
#endif
			settle();
#ifdef STAMPED_LATE
			atomic { assert(!freed); stamped++ };
#endif
			skip
		:: true -> /* watches_lose() */
#ifndef LOST_SAID_LATE
			atomic { assert(!freed); lost = true };
#endif
			settle();
#ifdef LOST_SAID_LATE
			atomic { assert(!freed); lost = true };
#endif
			skip
		fi;
		settled++
	}
}

active proctype Judge()
{
end:	atomic {
		timeout ->
		assert(settled == WATCHES && freed && pending == 0)
	}
}
