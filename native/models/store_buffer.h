/* SPDX-License-Identifier: MIT */
/*
 * store_buffer.h - for models of store-then-load handshakes: what a thread stores, plain or release, waits in a buffer of
 * its own, first in, first out, until it fences or the machine gets round to it, at any moment (TSO, as on x86). A seq_cst
 * store is a STORE and a FENCE. Read-modify-writes empty the buffer first. Nobody here loads a word that he stores:
 * he has it in a variable of his own.
 * WORDS, THREADS and DEPTH are the model's.
 */
byte word[WORDS];
chan buffer[THREADS] = [DEPTH] of { byte, byte };

#define STORE(thread, which, value) buffer[thread] !which, value
#define FENCE(thread) (empty(buffer[thread]))
/* One step: a read-modify-write, of a word or of what nobody stores plainly. */
#define RMW(thread, code)                                                                                    \
	atomic                                                                                               \
	{                                                                                                    \
		empty(buffer[thread]);                                                                       \
		code                                                                                         \
	}

active proctype Machine()
{
	byte which, value;

end:
	do
		::atomic
		{
			buffer[0] ? which, value;
			word[which] = value;
			which = 0;
			value = 0
		}
#if THREADS > 1
	::atomic
	{
		buffer[1] ? which, value;
		word[which] = value;
		which = 0;
		value = 0
	}
#endif
#if THREADS > 2
	::atomic
	{
		buffer[2] ? which, value;
		word[which] = value;
		which = 0;
		value = 0
	}
#endif
	od
}
