/* Preloaded, it steps this process's wall clock an hour back and an hour forth, every 0.7 s of true time. */
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long step_s(void) {
    struct timespec now;
    syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
    return (now.tv_sec * 10 + now.tv_nsec / 100000000) / 7 % 2 ? 3600 : -3600;
}

int clock_gettime(clockid_t id, struct timespec *out) {
    int code = syscall(SYS_clock_gettime, id, out);
    if (code == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) out->tv_sec += step_s();
    return code;
}

int gettimeofday(struct timeval *restrict out, void *restrict zone) {
    int code = syscall(SYS_gettimeofday, out, zone);
    if (code == 0 && out) out->tv_sec += step_s();
    return code;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
