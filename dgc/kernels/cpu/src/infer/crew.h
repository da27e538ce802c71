// Several workers at one run. Each step's items are cut into as many ranges as there are workers; a
// worker claims from its own range first, then from others'. Whoever finishes the last item of a
// step begins the next one. So nobody waits for a worker that has no core, but for the items that
// it has claimed; and the caller alone gets through the whole run.
//
// Without a claim a worker may touch the crew's own memory, and nothing else: caller, program and
// workspace may be gone. A claim takes items off a range's word, so it succeeds only in the step
// that is under way, and this step does not end before the claimed items are reported. Words,
// `left`, `turn`, `over` and `sleeping` are what workers share; all other fields are written by
// whoever begins a step, before its words, and read by those who hold a claim, after. Called by
// executor.cpp.
#pragma once
#include "steps.h"
#include "workers.h"

#include <stdlib.h>

namespace DGC_ISA {

constexpr int64_t kLine = 64;  // bytes: words of different workers do not share one

struct alignas(kLine) Claims {
    uint64_t word;  // the step's number, and how many items are left of the range, 32 bits each
};

struct Crew {
    DgcJob job;   // the first member: workers.cpp knows no other
    DgcRun run;   // a copy
    Context own;  // the caller's, whose worker is 0
    int64_t workers, scratch_floats;
    Step step;
    uint64_t number;               // of the step
    alignas(kLine) int64_t left;   // items of the step that nobody has reported
    alignas(kLine) uint32_t turn;  // grows after each change that a worker may wait for
    uint32_t over;                 // 1: the run is done
    int64_t sleeping;
    pthread_mutex_t lock;
    pthread_cond_t turned;
    Claims claims[1];  // [workers]
};

// All words of a step are written before its last item can be claimed, so before the next step.
inline void begin_step(Crew* crew) {
    ++crew->number;
    __atomic_store_n(&crew->left, crew->step.items, __ATOMIC_RELAXED);
    for (int64_t w = 0; w < crew->workers; ++w) {
        const Range own = cut(crew->step.items, w, crew->workers);
        const uint64_t word = crew->number << 32 | uint64_t(own.end - own.begin);
        __atomic_store_n(&crew->claims[w].word, word, __ATOMIC_RELEASE);
    }
}

// Whoever waits looks again. Others may be steps ahead by now: hence a sum, not a number to store.
inline void tell_all(Crew* crew) {
    __atomic_add_fetch(&crew->turn, 1, __ATOMIC_SEQ_CST);
    if (!__atomic_load_n(&crew->sleeping, __ATOMIC_SEQ_CST)) return;
    pthread_mutex_lock(&crew->lock);
    pthread_cond_broadcast(&crew->turned);
    pthread_mutex_unlock(&crew->lock);
}

// Whoever reported the last item of a step is alone here.
inline void after_step(Crew* crew, const Context& c) {
    bool more;
    do {
        more = next_step(c, &crew->step);
        if (!more || !is_small(c, crew->step)) continue;
        run_items(crew->step, c, {0, crew->step.items});
        crew->step.items = 0;
    } while (more && crew->step.items == 0);
    if (more)
        begin_step(crew);
    else
        __atomic_store_n(&crew->over, 1, __ATOMIC_RELEASE);
    tell_all(crew);
}

// Half of what is left of a range: the rest is for whoever comes first.
inline bool claim(Crew* crew, int64_t range, Range* some) {
    uint64_t* at = &crew->claims[range].word;
    uint64_t word = __atomic_load_n(at, __ATOMIC_ACQUIRE);
    int64_t left, taken;
    do {
        left = int64_t(word & 0xffffffffu), taken = (left + 1) / 2;
        if (left == 0) return false;
    } while (!__atomic_compare_exchange_n(at, &word, word - uint64_t(taken), true,
                                          __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE));
    const int64_t end = cut(crew->step.items, range, crew->workers).end;
    *some = {end - left, end - left + taken};
    return true;
}

// Everything that is to be had of one range: whether that was something.
inline bool work_on(Crew* crew, const Context& c, int64_t range) {
    int64_t done = 0;
    for (Range some; claim(crew, range, &some); done += some.end - some.begin)
        run_items(crew->step, c, some);
    if (done && __atomic_sub_fetch(&crew->left, done, __ATOMIC_ACQ_REL) == 0) after_step(crew, c);
    return done != 0;
}

inline void wait_for_turn(Crew* crew, uint32_t turn) {
    if (dgc_changes_soon(&crew->turn, turn)) return;
    pthread_mutex_lock(&crew->lock);
    __atomic_add_fetch(&crew->sleeping, 1, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&crew->turn, __ATOMIC_SEQ_CST) == turn)
        pthread_cond_wait(&crew->turned, &crew->lock);
    __atomic_sub_fetch(&crew->sleeping, 1, __ATOMIC_SEQ_CST);
    pthread_mutex_unlock(&crew->lock);
}

inline void crew_work(DgcJob* job, int64_t worker) {
    Crew* crew = (Crew*)job;
    Context c = crew->own;
    c.worker = worker, c.scratch += worker * crew->scratch_floats;
    while (true) {
        const uint32_t turn = __atomic_load_n(&crew->turn, __ATOMIC_ACQUIRE);
        if (__atomic_load_n(&crew->over, __ATOMIC_ACQUIRE)) return;
        bool found = false;
        for (int64_t i = 0; i < crew->workers && !found; ++i)
            found = work_on(crew, c, (worker + i) % crew->workers);
        // Nothing can be claimed before the next turn: what is claimed never comes back.
        if (!found) wait_for_turn(crew, turn);
    }
}

// False where there is no memory to share a run from: then the caller works alone.
inline bool run_together(const DgcRun& run) {
    const int64_t workers = run.threads;
    const int64_t bytes = int64_t(sizeof(Crew)) + (workers - 1) * int64_t(sizeof(Claims));
    Crew* crew = (Crew*)aligned_alloc(kLine, size_t(ceil_div(bytes, kLine) * kLine));
    if (!crew) return false;
    __builtin_memset((void*)crew, 0, size_t(bytes));
    crew->run = run, crew->workers = workers;
    crew->own = context_of(crew->run, 0, workers);
    crew->scratch_floats = crew->own.program->scratch_floats;
    pthread_mutex_init(&crew->lock, nullptr);
    pthread_cond_init(&crew->turned, nullptr);
    bool more = begin_stretch(crew->own, 0, &crew->step);
    while (more && crew->step.items == 0) more = next_step(crew->own, &crew->step);
    crew->over = !more;
    if (more) begin_step(crew);
    crew->job.work = crew_work, crew->job.wanted = workers - 1;
    dgc_work_together(&crew->job);
    return true;
}

}  // namespace DGC_ISA
