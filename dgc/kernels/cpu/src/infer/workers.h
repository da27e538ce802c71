// Threads that help with a run. There is one crew for the process; its threads sleep while nobody
// calls, and are made when they are first wanted.
//
// Nobody waits for a helper to come: the caller works itself and is done when the work is. A helper
// that gets no core until then finds nothing left to do. So a job may be looked at after its caller
// has gone, and is freed by whoever looks last; what the job's work touches of the caller's memory
// is the job's own affair (crew.h). A child of fork() starts without helpers.
#pragma once
#include <pthread.h>
#include <stdint.h>

struct DgcJob {
    // Helps until nothing is left to do. 0: the caller, from 1 on: helpers, each with a number of
    // its own below 1 + `wanted`.
    void (*work)(DgcJob* job, int64_t worker);
    int64_t wanted;  // helpers, at most
    // For workers.cpp alone, under its lock.
    int64_t joined, users;
    DgcJob* next;
};

// Does the job, from malloc; it is gone afterwards.
void dgc_work_together(DgcJob* job);

// Looks at `word` for a short while, until it is no longer `old`: whether it is. Who sleeps at once
// is woken too late for what lasts microseconds; who looks for long takes a core from others.
bool dgc_changes_soon(const uint32_t* word, uint32_t old);
