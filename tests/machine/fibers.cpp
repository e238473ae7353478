// Fibers: each lane has a stack of its own. ucontext starts a fiber; from then on the compiler's setjmp switches, which
// takes no system call. A fiber serves one block after the other.
#include <sys/mman.h>
#include <ucontext.h>

#include <cstdlib>

#include "state.hpp"

namespace simt::machine {

Lane lanes[LANES];
Lane* current;
char* stacks;

namespace {

void* scheduler[5];
void* scheduler_fake_stack;
const void* scheduler_stack;
size_t scheduler_stack_bytes;

// A jump may not stand in the function that it jumps to.
[[noreturn]] __attribute__((noinline, noclone)) void jump(void** to) { __builtin_longjmp(to, 1); }

void arrive(void* fake_stack) {
  if (__sanitizer_finish_switch_fiber)
    __sanitizer_finish_switch_fiber(fake_stack, &scheduler_stack, &scheduler_stack_bytes);
}

}  // namespace

__attribute__((noinline, noclone)) void leave() {
  Lane* me = current;
  if (__sanitizer_start_switch_fiber)
    __sanitizer_start_switch_fiber(&me->fake_stack, scheduler_stack, scheduler_stack_bytes);
  if (!__builtin_setjmp(me->resume)) jump(scheduler);
  arrive(current->fake_stack);
}

namespace {

// The life of a fiber: one lane of a block after the other.
void live() {
  for (arrive(nullptr);;) {
    launched.body(launched.closure);
    current->where = Where::returned;
    leave();
  }
}

[[noreturn]] __attribute__((noinline, noclone)) void start(Lane* lane) {
  if (__asan_unpoison_memory_region) __asan_unpoison_memory_region(lane->stack, STACK);  // of a lane given up before
  lane->started = true;
  ucontext_t context;
  getcontext(&context);
  context.uc_stack.ss_sp = lane->stack;
  context.uc_stack.ss_size = STACK - (lane - lanes) * 3 * 64 % 4096;  // else all stacks share a few lines of the cache
  context.uc_link = nullptr;
  makecontext(&context, live, 0);
  setcontext(&context);
  abort();
}

}  // namespace

__attribute__((noinline, noclone)) void enter(Lane* lane) {
  current = lane;
  if (__sanitizer_start_switch_fiber) __sanitizer_start_switch_fiber(&scheduler_fake_stack, lane->stack, STACK);
  if (!__builtin_setjmp(scheduler)) {
    if (lane->started) jump(lane->resume);
    start(lane);
  }
  if (__sanitizer_finish_switch_fiber) __sanitizer_finish_switch_fiber(scheduler_fake_stack, nullptr, nullptr);
  current = nullptr;
}

void make_stacks() {
  if (stacks) return;
  stacks = (char*)mmap(nullptr, LANES * STRIDE, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (stacks == MAP_FAILED) abort();
  for (int i = 0; i < LANES; ++i) {
    mprotect(stacks + i * STRIDE, STRIDE - STACK, PROT_NONE);
    lanes[i].stack = stacks + i * STRIDE + STRIDE - STACK;
  }
}

}  // namespace simt::machine
