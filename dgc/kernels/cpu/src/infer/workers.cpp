// The crew of workers.h. Compiled once, without any instruction set's flags.
#include "workers.h"

#include <signal.h>
#include <stdlib.h>
#include <time.h>

namespace {

// Long enough for the next run of somebody who calls one after the other, and for a worker that
// has a little more to do than the others.
constexpr int64_t kLookNs = 100'000;
constexpr int kLooks = 32;  // between two looks at the clock

struct Crew {
    pthread_mutex_t lock;
    pthread_cond_t posted;
    DgcJob* open;            // jobs whose callers are still at work
    int64_t threads, asked;  // helpers that there are, and that all open jobs want together
    int64_t sleeping;
    uint32_t posts;  // counts jobs
};
Crew crew = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, nullptr, 0, 0, 0, 0};
pthread_once_t prepared = PTHREAD_ONCE_INIT;

int64_t now_ns() {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return int64_t(t.tv_sec) * 1'000'000'000 + t.tv_nsec;
}

void pause_once() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

// A child has the caller's thread alone. The lock is held while the process is doubled, so that
// nobody is half way through something.
void before_fork() {
    pthread_mutex_lock(&crew.lock);
}
void in_parent() {
    pthread_mutex_unlock(&crew.lock);
}
void in_child() {
    crew = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, nullptr, 0, 0, 0, 0};
}
void prepare() {
    pthread_atfork(before_fork, in_parent, in_child);
}

DgcJob* job_that_wants() {
    DgcJob* job = crew.open;
    while (job && job->joined == job->wanted) job = job->next;
    return job;
}

void leave(DgcJob* job) {  // under the lock
    if (--job->users == 0) free(job);
}

void* help(void*) {
    pthread_mutex_lock(&crew.lock);
    for (;;) {
        if (DgcJob* job = job_that_wants()) {
            const int64_t number = ++job->joined;
            ++job->users;
            pthread_mutex_unlock(&crew.lock);
            job->work(job, number);
            pthread_mutex_lock(&crew.lock);
            leave(job);
            continue;
        }
        const uint32_t posts = crew.posts;
        pthread_mutex_unlock(&crew.lock);
        const bool soon = dgc_changes_soon(&crew.posts, posts);
        pthread_mutex_lock(&crew.lock);
        if (soon) continue;
        ++crew.sleeping;
        while (crew.posts == posts) pthread_cond_wait(&crew.posted, &crew.lock);
        --crew.sleeping;
    }
}

// One more helper, which takes no signal: those are for the threads of whoever uses the library.
bool hire() {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_t thread;
    const bool made = pthread_create(&thread, nullptr, help, nullptr) == 0;
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    if (made) pthread_detach(thread);
    return made;
}

}  // namespace

bool dgc_changes_soon(const uint32_t* word, uint32_t old) {
    for (const int64_t end = now_ns() + kLookNs; now_ns() < end;)
        for (int i = 0; i < kLooks; ++i) {
            if (__atomic_load_n(word, __ATOMIC_ACQUIRE) != old) return true;
            pause_once();
        }
    return false;
}

void dgc_work_together(DgcJob* job) {
    pthread_once(&prepared, prepare);
    pthread_mutex_lock(&crew.lock);
    job->joined = 0, job->users = 1;
    job->next = crew.open, crew.open = job;
    crew.asked += job->wanted;
    __atomic_store_n(&crew.posts, crew.posts + 1, __ATOMIC_RELEASE);
    // Where no more threads may be had, those that there are do the work.
    while (crew.threads < crew.asked && hire()) ++crew.threads;
    if (crew.sleeping) pthread_cond_broadcast(&crew.posted);
    pthread_mutex_unlock(&crew.lock);
    job->work(job, 0);
    pthread_mutex_lock(&crew.lock);
    DgcJob** at = &crew.open;
    while (*at != job) at = &(*at)->next;
    *at = job->next;
    crew.asked -= job->wanted;
    leave(job);
    pthread_mutex_unlock(&crew.lock);
}
