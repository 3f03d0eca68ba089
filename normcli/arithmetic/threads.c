/* Threads that wait for work, so that a call need not start any. They are started when they are first wanted, and end with
 * the process; a child of fork has none until it wants some. One call at a time has them: one that comes meanwhile does
 * its work alone. */

#include "loops.h"
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>

enum { MOST_THREADS = 256, STACK = 1 << 20, SPINS = 2000 /* some dozens of microseconds, within which a call often follows */ };

/* `places` holds how many threads may still join the work and, in its lower half, how many are at it. */
#define PLACE ((int64_t)1 << 32)
static struct {
    atomic_flag taken;
    _Atomic int64_t places, next, asleep, awaited;
    int64_t count, started;
    Step *step;
    void *of;
    pthread_mutex_t lock;
    pthread_cond_t more, done;
} pool = {.taken = ATOMIC_FLAG_INIT,
          .lock = PTHREAD_MUTEX_INITIALIZER,
          .more = PTHREAD_COND_INITIALIZER,
          .done = PTHREAD_COND_INITIALIZER};

void normcli_pause(int64_t times) {
    if (times > SPINS) sched_yield();
#if defined(__x86_64__) || defined(__i386__)
    else __builtin_ia32_pause();
#elif defined(__aarch64__)
    else __asm__ volatile("yield");
#endif
}

static void work(void) {
    for (int64_t number; (number = atomic_fetch_add(&pool.next, 1)) < pool.count;) pool.step(pool.of, number);
}

static int join(void) {
    int64_t places = atomic_load(&pool.places);
    while (places >= PLACE)
        if (atomic_compare_exchange_weak(&pool.places, &places, places - PLACE + 1)) return 1;
    return 0;
}

static void leave(void) {
    if (atomic_fetch_sub(&pool.places, 1) != 1 || !atomic_load(&pool.awaited)) return;
    pthread_mutex_lock(&pool.lock);
    pthread_cond_signal(&pool.done);
    pthread_mutex_unlock(&pool.lock);
}

static void wait_for_work(void) {
    for (int64_t times = 0; times < SPINS; times++, normcli_pause(0))
        if (atomic_load_explicit(&pool.places, memory_order_relaxed) >= PLACE) return;
    pthread_mutex_lock(&pool.lock);
    atomic_fetch_add(&pool.asleep, 1);
    while (atomic_load(&pool.places) < PLACE) pthread_cond_wait(&pool.more, &pool.lock);
    atomic_fetch_sub(&pool.asleep, 1);
    pthread_mutex_unlock(&pool.lock);
}

static void *serve(void *nothing) {
    for (;;) {
        wait_for_work();
        if (!join()) continue;
        work();
        leave();
    }
    return nothing;
}

static void forget(void) {
    atomic_store(&pool.places, 0), atomic_store(&pool.asleep, 0), atomic_store(&pool.awaited, 0);
    pool.started = 0;
    pthread_mutex_init(&pool.lock, NULL);
    pthread_cond_init(&pool.more, NULL), pthread_cond_init(&pool.done, NULL);
    atomic_flag_clear(&pool.taken);
}

/* Have so many threads, or as many as there can be; signals are for those of the interpreter. */
static int64_t start(int64_t wanted) {
    static int is_watched;
    pthread_attr_t attributes;
    sigset_t all, before;
    if (!is_watched) is_watched = !pthread_atfork(NULL, NULL, forget);
    if (!is_watched || pool.started >= wanted || pthread_attr_init(&attributes)) return pool.started;
    sigfillset(&all);
    pthread_attr_setstacksize(&attributes, STACK);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (pthread_t thread; pool.started < wanted; pool.started++)
        if (pthread_create(&thread, &attributes, serve, NULL)) break;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return pool.started;
}

void normcli_each(int64_t count, int64_t threads, Step *step, void *of) {
    int64_t wanted = (threads < count ? threads : count) - 1;
    if (wanted > MOST_THREADS) wanted = MOST_THREADS;
    if (wanted <= 0 || atomic_flag_test_and_set(&pool.taken)) {
        for (int64_t number = 0; number < count; number++) step(of, number);
        return;
    }
    int64_t there = start(wanted), others = there < wanted ? there : wanted;
    pool.step = step, pool.of = of, pool.count = count;
    atomic_store(&pool.next, 0);
    atomic_store(&pool.places, others * PLACE);
    if (others && atomic_load(&pool.asleep)) {
        pthread_mutex_lock(&pool.lock);
        if (others == 1) pthread_cond_signal(&pool.more);
        else pthread_cond_broadcast(&pool.more);
        pthread_mutex_unlock(&pool.lock);
    }
    work();
    atomic_fetch_and(&pool.places, PLACE - 1); /* nobody joins any more */
    for (int64_t times = 0; atomic_load(&pool.places) && times < SPINS; times++) normcli_pause(0);
    if (atomic_load(&pool.places)) {
        pthread_mutex_lock(&pool.lock);
        atomic_store(&pool.awaited, 1);
        while (atomic_load(&pool.places)) pthread_cond_wait(&pool.done, &pool.lock);
        atomic_store(&pool.awaited, 0);
        pthread_mutex_unlock(&pool.lock);
    }
    atomic_flag_clear(&pool.taken);
}
