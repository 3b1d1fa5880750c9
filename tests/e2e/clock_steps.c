/* Preloaded, it shifts this process's clocks by what the file of CLOCK_STEPS says: two int64, the nanoseconds by which
   CLOCK_REALTIME and CLOCK_MONOTONIC are off. Every process that maps the file sees a step in the same instant.
   Deadlines on the shifted CLOCK_MONOTONIC are shifted back before the kernel, whose clock is right, waits for them. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000LL

static const volatile int64_t none[2], *steps = none;

__attribute__((constructor)) static void map_steps(void) {
    const char *name = getenv("CLOCK_STEPS");
    int file = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *mapped = mmap(NULL, sizeof none, PROT_READ, MAP_SHARED, file, 0);
    if (mapped != MAP_FAILED) steps = mapped;
    close(file);
}

static int64_t step_of(clockid_t id) {
    if (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE) return steps[0];
    return id == CLOCK_MONOTONIC || id == CLOCK_MONOTONIC_COARSE ? steps[1] : 0;
}

static struct timespec shifted(struct timespec at, int64_t by) {
    int64_t all = at.tv_sec * SECOND + at.tv_nsec + by;
    if (all < 0) all = 0;
    return (struct timespec){.tv_sec = all / SECOND, .tv_nsec = all % SECOND};
}

int clock_gettime(clockid_t id, struct timespec *out) {
    int code = syscall(SYS_clock_gettime, id, out);
    if (code == 0) *out = shifted(*out, step_of(id));
    return code;
}

int gettimeofday(struct timeval *restrict out, void *restrict zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    *out = (struct timeval){.tv_sec = now.tv_sec, .tv_usec = now.tv_nsec / 1000};
    return 0;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}

int clock_nanosleep(clockid_t id, int flags, const struct timespec *until, struct timespec *left) {
    int (*real)(clockid_t, int, const struct timespec *, struct timespec *) = dlsym(RTLD_NEXT, "clock_nanosleep");
    struct timespec right = flags & TIMER_ABSTIME ? shifted(*until, -step_of(id)) : *until;
    return real(id, flags, &right, left);
}

int sem_clockwait(sem_t *restrict sem, clockid_t id, const struct timespec *restrict until) {
    int (*real)(sem_t *, clockid_t, const struct timespec *) = dlsym(RTLD_NEXT, "sem_clockwait");
    struct timespec right = shifted(*until, -step_of(id));
    return real(sem, id, &right);
}

int pthread_cond_clockwait(
    pthread_cond_t *restrict cond, pthread_mutex_t *restrict mutex, clockid_t id, const struct timespec *restrict until
) {
    int (*real)(pthread_cond_t *, pthread_mutex_t *, clockid_t, const struct timespec *) =
        dlsym(RTLD_NEXT, "pthread_cond_clockwait");
    struct timespec right = shifted(*until, -step_of(id));
    return real(cond, mutex, id, &right);
}

int pthread_cond_timedwait(
    pthread_cond_t *restrict cond, pthread_mutex_t *restrict mutex, const struct timespec *restrict until
) {
    int (*real)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *) =
        dlsym(RTLD_NEXT, "pthread_cond_timedwait");
    struct timespec right = shifted(*until, -steps[1]); /* Python sets its condition variables to CLOCK_MONOTONIC */
    return real(cond, mutex, &right);
}
