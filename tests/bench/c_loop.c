/* The loop of sweep/load/servers.py in C, over the graph, stream and events of a session that Python made.

   No CUDA header is needed: the driver's functions are found by name, and all of its handles are pointers. The
   runtime's handles are the driver's. One inference is event, graph, event; the elapsed time is read one late. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#define NOT_READY 600
#define TOO_MANY 64

struct lane {
  void *stream;
  void *graph;
  void **begin; /* `places` events before an inference, and as many after it */
  void **end;
  int64_t places;
  int64_t capacity; /* length of the three arrays below */
  int64_t *issued_ns;
  int64_t *done_ns;
  float *gpu_ms;
  int64_t issued; /* counts: enqueued, seen complete, elapsed time read */
  int64_t done;
  int64_t read;
  const char *failed; /* the call that failed, or NULL, and its CUresult */
  int64_t error;
};

static int (*launch_graph)(void *graph, void *stream);
static int (*record)(void *event, void *stream);
static int (*synchronise)(void *event);
static int (*query)(void *event);
static int (*elapsed)(float *ms, void *begin, void *end);
static int (*get_context)(void **context);
static int (*set_context)(void *context);
static int (*error_name)(int error, const char **name);

/* NULL, or why the driver's library cannot be used. */
const char *c_loop_load(const char *library) {
  const struct {
    const char *name;
    void *target;
  } wanted[] = {
      {"cuGraphLaunch", &launch_graph},   {"cuEventRecord", &record},
      {"cuEventSynchronize", &synchronise}, {"cuEventQuery", &query},
      {"cuEventElapsedTime", &elapsed},   {"cuCtxGetCurrent", &get_context},
      {"cuCtxSetCurrent", &set_context},  {"cuGetErrorName", &error_name},
  };
  void *handle = dlopen(library, RTLD_NOW);
  if (!handle) return dlerror();
  for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
    void *found = dlsym(handle, wanted[i].name);
    if (!found) return dlerror();
    *(void **)wanted[i].target = found;
  }
  return NULL;
}

int64_t c_loop_lane_bytes(void) { return sizeof(struct lane); }

const char *c_loop_error_name(int error) {
  const char *name = NULL;
  return error_name(error, &name) || !name ? "unknown" : name;
}

static int64_t now_ns(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time); /* the clock of Python's perf_counter_ns on Linux */
  return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static int tell(struct lane *lane, const char *call, int error) {
  if (error) {
    lane->failed = call;
    lane->error = error;
  }
  return error;
}

static int read_one(struct lane *lane) {
  int64_t place = lane->read % lane->places;
  int error = elapsed(&lane->gpu_ms[lane->read], lane->begin[place], lane->end[place]);
  lane->read++;
  return tell(lane, "cuEventElapsedTime", error);
}

static int start(struct lane *lane) {
  int64_t place = lane->issued % lane->places;
  int error;
  lane->issued_ns[lane->issued] = now_ns();
  if ((error = record(lane->begin[place], lane->stream))) return tell(lane, "cuEventRecord", error);
  if ((error = launch_graph(lane->graph, lane->stream))) return tell(lane, "cuGraphLaunch", error);
  if ((error = record(lane->end[place], lane->stream))) return tell(lane, "cuEventRecord", error);
  lane->issued++;
  return lane->read < lane->done ? read_one(lane) : 0;
}

static int finish(struct lane *lane, int poll) {
  void *event = lane->end[lane->done % lane->places];
  int error;
  if (poll)
    while ((error = query(event)) == NOT_READY) {
    }
  else
    error = synchronise(event);
  if (error) return tell(lane, poll ? "cuEventQuery" : "cuEventSynchronize", error);
  lane->done_ns[lane->done++] = now_ns();
  return 0;
}

static void read_rest(struct lane *lane) {
  while (lane->read < lane->done && !read_one(lane)) {
  }
}

/* One thread keeps `depth` inferences in flight on each lane, in turn, until `deadline` or a lane is full. */
static void drive(struct lane *lanes, int count, int depth, int64_t deadline, int poll) {
  int going = 1;
  for (int i = 0; i < count; i++)
    while (lanes[i].issued < depth && lanes[i].issued < lanes[i].capacity)
      if (start(&lanes[i])) return;
  while (going) {
    going = 0;
    for (int i = 0; i < count; i++) {
      struct lane *lane = &lanes[i];
      if (lane->done == lane->issued) continue;
      if (finish(lane, poll)) return;
      if (lane->done_ns[lane->done - 1] < deadline && lane->issued < lane->capacity && start(lane)) return;
      going = 1;
    }
  }
  for (int i = 0; i < count; i++) read_rest(&lanes[i]);
}

struct job {
  struct lane *lane;
  int depth;
  int64_t deadline;
  int poll;
  void *context;
};

static void *work(void *argument) {
  struct job *job = argument;
  if (!tell(job->lane, "cuCtxSetCurrent", set_context(job->context)))
    drive(job->lane, 1, job->depth, job->deadline, job->poll);
  return NULL;
}

static int drive_threads(struct lane *lanes, int count, struct job job) {
  pthread_t threads[TOO_MANY];
  struct job jobs[TOO_MANY];
  int started = 0, error = 0;
  if (count > TOO_MANY) return tell(lanes, "thread limit", TOO_MANY);
  if ((error = get_context(&job.context))) return tell(lanes, "cuCtxGetCurrent", error);
  while (started < count && !error) {
    jobs[started] = job;
    jobs[started].lane = &lanes[started];
    error = pthread_create(&threads[started], NULL, work, &jobs[started]);
    if (!error) started++;
  }
  for (int i = 0; i < started; i++) pthread_join(threads[i], NULL);
  return tell(lanes, "pthread_create", error);
}

/* Closed loop for `duration_ns`; a thread for each lane, or the caller's for all. What failed is in the lanes. */
void c_loop_closed(struct lane *lanes, int count, int depth, int64_t duration_ns, int threads, int poll) {
  struct job job = {NULL, depth, now_ns() + duration_ns, poll, NULL};
  if (threads)
    drive_threads(lanes, count, job);
  else
    drive(lanes, count, depth, job.deadline, poll);
}

/* Open loop: inference i starts at due_ns[i], or once the one before it is done. */
void c_loop_open(struct lane *lane, const int64_t *due_ns, int64_t count, int poll) {
  for (int64_t i = 0; i < count && i < lane->capacity; i++) {
    while (now_ns() < due_ns[i]) {
    }
    if (start(lane) || finish(lane, poll)) return;
  }
  read_rest(lane);
}
