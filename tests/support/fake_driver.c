/* A pretended libcuda.so.1: streams that take real time, and a count of every call. To try loops, never to measure.

   A stream is the time until which it is busy; a graph is the time that it takes; an event is the time at which it
   is reached. As with the real driver, a thread without a context can do nothing. */
#define _GNU_SOURCE
#include <sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { OK = 0, INVALID_CONTEXT = 201, INVALID_HANDLE = 400, NOT_READY = 600, LAUNCH_FAILED = 719 };
enum { LAUNCH, RECORD, SYNCHRONISE, QUERY, ELAPSED, SET_CONTEXT, CALLS };

struct item {
  int64_t kind; /* guards against a handle of one kind given for another */
  int64_t ns;
};

static int64_t calls[CALLS];
static int64_t fail_launch = -1; /* this one fails */
static _Thread_local void *context;

static int64_t now_ns(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static int64_t count(int call) { return __atomic_fetch_add(&calls[call], 1, __ATOMIC_RELAXED); }

/* kind: s stream, g graph (with what it takes), e event */
void *fake_new(int kind, int64_t ns) {
  struct item *made = malloc(sizeof *made);
  made->kind = kind;
  made->ns = ns;
  return made;
}
void fake_free(void *item) { free(item); }
int64_t fake_calls(int call) { return calls[call]; }
void fake_reset(int64_t failing_launch) {
  memset(calls, 0, sizeof calls);
  fail_launch = failing_launch;
}

int cuCtxGetCurrent(void **found) {
  *found = context;
  return OK;
}
int cuCtxSetCurrent(void *wanted) {
  count(SET_CONTEXT);
  context = wanted;
  return OK;
}

int cuGetErrorName(int error, const char **name) {
  *name = error == LAUNCH_FAILED ? "CUDA_ERROR_LAUNCH_FAILED" : error == INVALID_CONTEXT ? "CUDA_ERROR_INVALID_CONTEXT" : NULL;
  return *name ? OK : 1;
}

static int check(struct item *item, int kind) {
  if (!context) return INVALID_CONTEXT;
  return item && item->kind == kind ? OK : INVALID_HANDLE;
}

int cuGraphLaunch(struct item *graph, struct item *stream) {
  int64_t now = now_ns();
  if (count(LAUNCH) == fail_launch) return LAUNCH_FAILED;
  if (check(graph, 'g') || check(stream, 's')) return check(graph, 'g') | check(stream, 's');
  stream->ns = (stream->ns > now ? stream->ns : now) + graph->ns;
  return OK;
}

int cuEventRecord(struct item *event, struct item *stream) {
  int64_t now = now_ns();
  count(RECORD);
  if (check(event, 'e') || check(stream, 's')) return check(event, 'e') | check(stream, 's');
  event->ns = stream->ns > now ? stream->ns : now;
  return OK;
}

int cuMemcpyAsync(void *target, const void *source, size_t size, struct item *stream) {
  if (check(stream, 's')) return check(stream, 's');
  memmove(target, source, size);
  return OK;
}

static int ready(struct item *event) { return now_ns() >= event->ns; }

int cuEventSynchronize(struct item *event) {
  count(SYNCHRONISE);
  if (check(event, 'e')) return check(event, 'e');
  while (!ready(event)) sched_yield();
  return OK;
}

int cuEventQuery(struct item *event) {
  count(QUERY);
  if (check(event, 'e')) return check(event, 'e');
  if (ready(event)) return OK;
  sched_yield(); /* or a loop that polls would keep a small machine's cores from the others */
  return NOT_READY;
}

int cuEventElapsedTime(float *ms, struct item *begin, struct item *end) {
  count(ELAPSED);
  if (check(begin, 'e') || check(end, 'e')) return check(begin, 'e') | check(end, 'e');
  if (!ready(end)) return NOT_READY;
  *ms = (float)((end->ns - begin->ns) / 1e6);
  return OK;
}
