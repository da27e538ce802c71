// Contracts that are checked where the kernels are built with -DDGC_DEBUG=ON (CMake), and cost
// nothing elsewhere. A contract is between our own files: what comes from outside is refused with
// an answer instead (api.cpp).
#pragma once

#ifdef DGC_DEBUG
#include <stdio.h>
#include <stdlib.h>
// The process ends with one line that names the broken contract and its place.
#define DGC_CHECK(condition)                                                                  \
    do {                                                                                      \
        if (!(condition)) {                                                                   \
            fprintf(stderr, "broken contract: %s (%s:%d)\n", #condition, __FILE__, __LINE__); \
            abort();                                                                          \
        }                                                                                     \
    } while (0)
#else
#define DGC_CHECK(condition) ((void)sizeof((condition) ? 1 : 0))  // compiled, never computed
#endif
