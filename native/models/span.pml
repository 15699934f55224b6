/* SPDX-License-Identifier: MIT */
/*
 * span.pml - a thread looks for free neighbours among its arena's chunks, where it meets one that was its own: another
 * thread drops the last reference, finds the arena parked and gives the chunk to the pool; a third arena takes it and puts
 * it on its stack. The looker has no lock and may take it for its own only if it is. Relaxed loads of two words may be done
 * in either order.
 *
 * mirrors native/span.c is_mine_and_free 60287189
 * mirrors native/chunk.h chunk_move 629eb184
 * mirrors native/chunk.h chunk_set_arena 02584287
 * mirrors native/chunk.c chunk_pool_push be14bbbb
 * mirrors native/arena.c grow 12e3cc62
 * mirrors native/arena.c arena_push_stack b7f1de36
 *
 * holds
 * breaks -DRELAXED: place and arena are read in either order
 * breaks -DARENA_ALONE: a chunk that is referenced, or free and pooled, is taken
 */
mtype = { MINE, OTHERS, NOBODYS, REFERENCED, POOLED, STACKED };

mtype arena = MINE, place = REFERENCED;
bool locked;

active proctype Dropper()
{
	atomic { !locked -> locked = true };
	arena = NOBODYS;
	place = POOLED;
	locked = false
}

active proctype Other()
{
	do
	:: atomic { !locked && place == POOLED -> locked = true };
		arena = OTHERS;
		place = STACKED;
		locked = false;
		break
	od
}

active proctype Looker()
{
	mtype where, whose;

	if
#ifdef RELAXED
	:: whose = arena; where = place
#endif
#ifdef ARENA_ALONE
	:: where = STACKED; whose = arena
#else
	:: where = place; whose = arena
#endif
	fi;
	/* It was referenced, then pooled, then another's: never this one's and free. */
	assert(!(where == STACKED && whose == MINE))
}
