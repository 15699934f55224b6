/* SPDX-License-Identifier: MIT */
/* The marks as functions, for Python. */
#include "mark.h"

__attribute__((visibility("default"))) void mark_begin(void)
{
	MARK(MARK_BEGIN);
}

__attribute__((visibility("default"))) void mark_end(void)
{
	MARK(MARK_END);
}
