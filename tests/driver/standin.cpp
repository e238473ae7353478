// A stand-in for NVIDIA's driver, libcuda.so.1, so that PyCUDA itself runs in tests without a GPU. A kernel is what the
// library named by FIELDSHOT_STANDIN_KERNELS exports as fieldshot_<name> (kernels/simt.cuh).
//
// It is lazy where a GPU may be: what is asynchronous runs only when somebody waits for it, so that a result read too
// early, or an input overwritten too early, shows in every run. New memory is filled with 0xFF: floats there are nan.
//
// Environment, read by cuInit and the first call:
//   FIELDSHOT_STANDIN_KERNELS   the library of kernels; without it no kernel is found
//   FIELDSHOT_STANDIN_DEVICES   how many devices (1); FIELDSHOT_STANDIN_MEMORY  bytes of each (256 MiB)
//   FIELDSHOT_STANDIN_DRIVER    the CUDA version that the driver reports (13000)
//   FIELDSHOT_STANDIN_NO_IMAGE  1: no fatbin or cubin has an image for the device; PTX loads
//
// For tests, by ctypes.CDLL("libcuda.so.1"):
//   standin_fail(function, nth, code)   the nth next call of the function answers the code; may be asked several times
//   standin_calls(function)             how often the function was called
//   standin_unsupported()               names of the functions called that do nothing here, one a line
#include <dlfcn.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

namespace {

enum Code {
  SUCCESS = 0,
  INVALID_VALUE = 1,
  OUT_OF_MEMORY = 2,
  NOT_INITIALIZED = 3,
  NO_DEVICE = 100,
  INVALID_DEVICE = 101,
  INVALID_IMAGE = 200,
  INVALID_CONTEXT = 201,
  NO_BINARY_FOR_GPU = 209,
  FILE_NOT_FOUND = 301,
  INVALID_HANDLE = 400,
  NOT_FOUND = 500,
  NOT_READY = 600,
  ILLEGAL_ADDRESS = 700,
  CONTEXT_IS_DESTROYED = 709,
  ALREADY_REGISTERED = 712,
  NOT_REGISTERED = 713,
  LAUNCH_FAILED = 719,
  NOT_SUPPORTED = 801,
  CAPTURE_UNSUPPORTED = 900,
  CAPTURE_INVALIDATED = 901,
};

struct Text {
  const char *name, *text;
};

const std::map<int, Text> texts = {
    {SUCCESS, {"CUDA_SUCCESS", "no error"}},
    {INVALID_VALUE, {"CUDA_ERROR_INVALID_VALUE", "invalid argument"}},
    {OUT_OF_MEMORY, {"CUDA_ERROR_OUT_OF_MEMORY", "out of memory"}},
    {NOT_INITIALIZED, {"CUDA_ERROR_NOT_INITIALIZED", "initialization error"}},
    {NO_DEVICE, {"CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"}},
    {INVALID_DEVICE, {"CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"}},
    {INVALID_IMAGE, {"CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"}},
    {INVALID_CONTEXT, {"CUDA_ERROR_INVALID_CONTEXT", "invalid device context"}},
    {NO_BINARY_FOR_GPU, {"CUDA_ERROR_NO_BINARY_FOR_GPU", "no kernel image is available for execution on the device"}},
    {FILE_NOT_FOUND, {"CUDA_ERROR_FILE_NOT_FOUND", "file not found"}},
    {INVALID_HANDLE, {"CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"}},
    {NOT_FOUND, {"CUDA_ERROR_NOT_FOUND", "named symbol not found"}},
    {NOT_READY, {"CUDA_ERROR_NOT_READY", "device not ready"}},
    {ILLEGAL_ADDRESS, {"CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"}},
    {CONTEXT_IS_DESTROYED, {"CUDA_ERROR_CONTEXT_IS_DESTROYED", "context is destroyed"}},
    {ALREADY_REGISTERED,
     {"CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED", "part or all of the requested memory range is already mapped"}},
    {NOT_REGISTERED,
     {"CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED", "pointer does not correspond to a registered memory region"}},
    {LAUNCH_FAILED, {"CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"}},
    {NOT_SUPPORTED, {"CUDA_ERROR_NOT_SUPPORTED", "operation not supported"}},
};

constexpr int LANES = 256, SHARED_DEFAULT = 48 << 10, SHARED_OPT_IN = 166912, MAJOR = 8, MINOR = 7;

const std::map<int, int> device_attributes = {
    {1, 1024},              // threads a block
    {2, 1024},              // block x, y, z
    {3, 1024},
    {4, 64},
    {5, 2147483647},        // grid x, y, z
    {6, 65535},
    {7, 65535},
    {8, SHARED_DEFAULT},    // shared memory a block
    {9, 65536},             // constant memory
    {10, 32},               // warp
    {12, 65536},            // registers a block
    {13, 1300000},          // clock, kHz
    {16, 8},                // multiprocessors
    {18, 1},                // integrated
    {19, 1},                // maps host memory
    {31, 1},                // concurrent kernels
    {36, 3199000},          // memory clock, kHz
    {37, 256},              // memory bus, bits
    {38, 4 << 20},          // L2
    {39, 1536},             // threads a multiprocessor
    {40, 2},                // copy engines
    {41, 1},                // unified addressing
    {75, MAJOR},
    {76, MINOR},
    {78, 1},                // stream priorities
    {81, 167936},           // shared memory a multiprocessor
    {82, 65536},            // registers a multiprocessor
    {83, 1},                // managed memory
    {97, SHARED_OPT_IN},
    {106, 16},              // blocks a multiprocessor
    {111, 1024},            // shared memory a block that CUDA keeps
};

using Clock = std::chrono::steady_clock;
using Kernel = int(const void* params, int first, int last, int blocks, size_t shared);

struct Context;

using Work = std::deque<std::function<int()>>;

struct Stream {
  Context* context;
  bool ordered;  // with the default stream
  Work work{};
  std::unique_ptr<Work> captured{};  // while it is captured: what goes into the graph
  bool spoiled = false;            // by something that no graph can hold
  bool in_function = false;        // of the host, in some thread
};

struct Event {
  Context* context;
  bool timed;
  std::shared_ptr<Stream> stream;  // of the last record
  long recorded = 0, completed = 0;
  Clock::time_point at;
};

struct Context {
  int device;
  bool alive = true;
  int error = SUCCESS;  // once set, every call answers it, as after a failed launch
  std::shared_ptr<Stream> default_stream = std::make_shared<Stream>(Stream{this, true});
};

struct Module {
  Context* context;
};

struct Function {
  Module* module;
  std::string name;
  Kernel* kernel;
  int shared_limit = SHARED_DEFAULT;
};

struct Block {
  enum Kind { DEVICE, PINNED, REGISTERED } kind;
  size_t size;
  Context* context;
  unsigned flags;
};

struct Device {
  Context* primary = nullptr;
  int retained = 0;
  size_t used = 0;
};

struct Record {
  long calls = 0;
  std::map<long, int> faults;  // by number of the call
  bool unsupported = false;
};

std::mutex mutex;  // guards all below
pid_t process = 0;  // that called cuInit
std::vector<Device> devices;
size_t memory_limit;
std::map<std::string, Record> records;
std::map<uintptr_t, Block> blocks;
// Contexts are never deleted: a thread may have a dead one on its stack.
std::unordered_map<void*, std::unique_ptr<Context>> contexts;
std::unordered_map<void*, std::shared_ptr<Stream>> streams;
std::unordered_map<void*, std::shared_ptr<Event>> events;
std::unordered_map<void*, std::unique_ptr<Module>> modules;
std::unordered_map<void*, std::unique_ptr<Function>> functions;
std::unordered_map<void*, std::unique_ptr<Work>> graphs;  // and executable ones

thread_local std::vector<Context*> stack;  // the last is current

long setting(const char* name, long otherwise) {
  const char* text = getenv(name);
  return text && *text ? atol(text) : otherwise;
}

enum Needs { NOTHING, PROCESS, INIT, CONTEXT };

// Entry of a driver function: takes the lock, counts the call and finds what forbids it.
struct Call {
  std::unique_lock<std::mutex> lock;
  int code = SUCCESS;
  Context* context = nullptr;  // the current one, where the function needs one

  Call(const char* name, Needs needs) {
    if (needs >= PROCESS && process && process != getpid()) {  // a forked child: before the lock, which may be held
      code = NOT_INITIALIZED;
      return;
    }
    lock = std::unique_lock<std::mutex>(mutex);
    Record& record = records[name];
    ++record.calls;
    auto fault = record.faults.find(record.calls);
    if (fault != record.faults.end()) {
      code = fault->second;
      if ((code == LAUNCH_FAILED || code == ILLEGAL_ADDRESS) && !stack.empty()) stack.back()->error = code;
    } else if (needs >= INIT && !process) {
      code = NOT_INITIALIZED;
    } else if (needs == CONTEXT) {
      code = stack.empty() ? INVALID_CONTEXT : !stack.back()->alive ? CONTEXT_IS_DESTROYED : stack.back()->error;
      if (!code) context = stack.back();
    }
  }
};

#define CALL(needs)           \
  Call call(__func__, needs); \
  if (call.code) return call.code
#define DRIVER extern "C" int

template <typename T> typename T::mapped_type::element_type* find(const T& all, void* handle) {
  auto found = all.find(handle);
  return found == all.end() ? nullptr : found->second.get();
}

// --- work and the order it is done in ---

void step(Stream* stream) {
  if (stream->work.empty()) return;
  auto work = std::move(stream->work.front());
  stream->work.pop_front();
  if (!stream->context->error) stream->context->error = work();
}

// Where a thread is in a host function of the stream, what comes after that is left to it.
void run(Stream* stream) {
  while (!stream->in_function && !stream->work.empty()) step(stream);
}

// Runs what the next piece of work of this stream comes after, other than work of the stream itself.
void run_before(Stream* stream) {
  Stream* default_stream = stream->context->default_stream.get();
  if (stream == default_stream) {
    for (auto& [handle, other] : streams)
      if (other->context == stream->context && other->ordered) run(other.get());
  } else if (stream->ordered) {
    run(default_stream);
  }
}

int submit(Stream* stream, std::function<int()> work) {
  if (stream->captured) return stream->captured->push_back(std::move(work)), SUCCESS;
  run_before(stream);
  stream->work.push_back(std::move(work));
  return SUCCESS;
}

int finish(Stream* stream) {
  if (stream->captured) return stream->spoiled = true, CAPTURE_UNSUPPORTED;
  run_before(stream);
  run(stream);
  return stream->context->error;
}

int finish(Context* context) {
  std::vector<std::shared_ptr<Stream>> all;  // host functions let other threads make streams meanwhile
  for (auto& [handle, stream] : streams)
    if (stream->context == context) all.push_back(stream);
  for (auto& stream : all) run(stream.get());
  return finish(context->default_stream.get());
}

// Null and 1 are the default stream.
std::shared_ptr<Stream> stream_of(Context* context, void* handle) {
  if ((uintptr_t)handle <= 1) return context->default_stream;
  auto found = streams.find(handle);
  return found == streams.end() ? nullptr : found->second;
}

// --- memory ---

Block* block_at(const void* address, size_t size) {
  auto next = blocks.upper_bound((uintptr_t)address);
  if (next == blocks.begin()) return nullptr;
  auto& [start, block] = *std::prev(next);
  return (uintptr_t)address + size <= start + block.size ? &block : nullptr;
}

int allocate(void** address, size_t size, Block::Kind kind, Context* context, unsigned flags) {
  if (!size) return INVALID_VALUE;
  size_t& used = devices[context->device].used;
  if (kind == Block::DEVICE && size > memory_limit - used) return OUT_OF_MEMORY;
  if (posix_memalign(address, 256, size)) return OUT_OF_MEMORY;
  memset(*address, 0xFF, size);
  if (kind == Block::DEVICE) used += size;
  blocks[(uintptr_t)*address] = {kind, size, context, flags};
  return SUCCESS;
}

void release(std::map<uintptr_t, Block>::iterator block) {
  if (block->second.kind == Block::DEVICE) devices[block->second.context->device].used -= block->second.size;
  if (block->second.kind != Block::REGISTERED) free((void*)block->first);
  blocks.erase(block);
}

int release(void* address, Block::Kind kind, int otherwise) {
  auto block = blocks.find((uintptr_t)address);
  if (block == blocks.end() || block->second.kind != kind) return otherwise;
  finish(block->second.context);  // freeing waits for the device
  release(block);
  return SUCCESS;
}

void destroy(Context* context) {
  finish(context);
  for (auto block = blocks.begin(); block != blocks.end();) {
    auto next = std::next(block);
    if (block->second.context == context) release(block);
    block = next;
  }
  auto drop = [context](auto& all, auto context_of) {
    for (auto item = all.begin(); item != all.end();)
      item = context_of(*item->second) == context ? all.erase(item) : std::next(item);
  };
  drop(functions, [](Function& function) { return function.module->context; });
  drop(modules, [](Module& module) { return module.context; });
  drop(events, [](Event& event) { return event.context; });
  drop(streams, [](Stream& stream) { return stream.context; });
  context->alive = false;
}

// A primary context is released, never destroyed. PyCUDA's destructor calls cuCtxDetach for one all the same, unless
// its detach() was called before.
int destroy_created(Context* context) {
  if (!find(contexts, context) || !context->alive) return INVALID_CONTEXT;
  if (devices[context->device].primary == context) return INVALID_CONTEXT;
  destroy(context);
  if (!stack.empty() && stack.back() == context) stack.pop_back();
  return SUCCESS;
}

enum { TO_DEVICE = 1, TO_HOST = 2 };

int copy(Context* context, void* to, const void* from, size_t size, void* handle, int direction, bool wait) {
  if (!(direction & TO_HOST) && !block_at(to, size)) return INVALID_VALUE;
  if (!(direction & TO_DEVICE) && !block_at(from, size)) return INVALID_VALUE;
  auto stream = stream_of(context, handle);
  if (!stream) return INVALID_HANDLE;
  const bool pageable = (direction == TO_DEVICE && !block_at(from, size)) || (direction == TO_HOST && !block_at(to, size));
  if (stream->captured && pageable) return stream->spoiled = true, CAPTURE_UNSUPPORTED;
  if (direction == TO_DEVICE && !block_at(from, size)) {  // pageable: the driver has read it when it returns
    auto staged = std::make_shared<std::vector<char>>((const char*)from, (const char*)from + size);
    submit(stream.get(), [=] { return memcpy(to, staged->data(), size), SUCCESS; });
  } else {
    submit(stream.get(), [=] { return memmove(to, from, size), SUCCESS; });
    if (direction == TO_HOST && !block_at(to, size)) wait = true;  // pageable: the driver has written it
  }
  return wait ? finish(stream.get()) : SUCCESS;
}

template <typename T> int fill(Context* context, void* to, T value, size_t count, void* handle, bool wait) {
  if (!block_at(to, count * sizeof(T))) return INVALID_VALUE;
  auto stream = stream_of(context, handle);
  if (!stream) return INVALID_HANDLE;
  submit(stream.get(), [=] { return std::fill_n((T*)to, count, value), SUCCESS; });
  return wait ? finish(stream.get()) : SUCCESS;
}

// --- kernels ---

void* exported(const std::string& name) {
  static void* library = [] {
    const char* path = getenv("FIELDSHOT_STANDIN_KERNELS");
    void* opened = path && *path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : nullptr;
    if (path && *path && !opened) fprintf(stderr, "stand-in driver: %s\n", dlerror());
    return opened;
  }();
  return library ? dlsym(library, name.c_str()) : nullptr;
}

int execute(Kernel* kernel, const void* params, int count, size_t shared) {
  static auto clear = (void (*)())exported("fieldshot_check_regions_clear");
  static auto region = (void (*)(const void*, size_t))exported("fieldshot_check_region");
  static auto report = (const char* (*)())exported("fieldshot_check_report");
  if (clear && region) {
    clear();
    for (auto& [start, block] : blocks) region((const void*)start, block.size);
  }
  if (kernel(params, 0, count, count, shared) == 0) return SUCCESS;
  if (report) fputs(report(), stderr);
  return LAUNCH_FAILED;
}

int load(Context* context, void** module, const char* image) {
  uint32_t magic;
  memcpy(&magic, image, sizeof magic);
  bool binary = magic == 0xBA55ED50 || memcmp(image, "\x7f" "ELF", 4) == 0;
  if (!binary && !strstr(image, ".version")) return INVALID_IMAGE;
  if (binary && setting("FIELDSHOT_STANDIN_NO_IMAGE", 0)) return NO_BINARY_FOR_GPU;
  auto loaded = std::make_unique<Module>(Module{context});
  *module = loaded.get();
  modules[*module] = std::move(loaded);
  return SUCCESS;
}

int new_stream(Context* context, void** stream, unsigned flags) {
  auto made = std::make_shared<Stream>(Stream{context, !(flags & 1)});  // 1: CU_STREAM_NON_BLOCKING
  *stream = made.get();
  streams[*stream] = made;
  return SUCCESS;
}

int new_context(Context** context, int device) {
  if (device < 0 || device >= (int)devices.size()) return INVALID_DEVICE;
  auto made = std::make_unique<Context>();
  made->device = device;
  *context = made.get();
  contexts[*context] = std::move(made);
  return SUCCESS;
}

}  // namespace

// --- for tests ---

extern "C" void standin_fail(const char* function, int nth, int code) {
  std::lock_guard<std::mutex> lock(mutex);
  Record& record = records[function];
  record.faults[record.calls + nth] = code;
}

extern "C" long standin_calls(const char* function) {
  std::lock_guard<std::mutex> lock(mutex);
  return records[function].calls;
}

extern "C" const char* standin_unsupported() {
  static std::string names;
  std::lock_guard<std::mutex> lock(mutex);
  names.clear();
  for (auto& [name, record] : records)
    if (record.unsupported) names += name + "\n";
  return names.c_str();
}

// What the functions answer that PyCUDA links to and that are not below (tests/driver_build.py writes them).
extern "C" int standin_missing(const char* function) {
  Call call(function, NOTHING);
  records[function].unsupported = true;
  return call.code ? call.code : NOT_SUPPORTED;
}

// --- errors, driver, devices ---

DRIVER cuGetErrorString(int code, const char** text) {
  auto found = texts.find(code);
  *text = found == texts.end() ? "unrecognized error code" : found->second.text;
  return found == texts.end() ? INVALID_VALUE : SUCCESS;
}

DRIVER cuGetErrorName(int code, const char** name) {
  auto found = texts.find(code);
  *name = found == texts.end() ? "unrecognized error code" : found->second.name;
  return found == texts.end() ? INVALID_VALUE : SUCCESS;
}

DRIVER cuInit(unsigned) {
  CALL(PROCESS);
  if (process) return SUCCESS;
  long count = setting("FIELDSHOT_STANDIN_DEVICES", 1);
  if (count < 1) return NO_DEVICE;
  devices.resize(count);
  memory_limit = setting("FIELDSHOT_STANDIN_MEMORY", 256 << 20);
  process = getpid();
  return SUCCESS;
}

DRIVER cuDriverGetVersion(int* version) {
  CALL(NOTHING);
  *version = setting("FIELDSHOT_STANDIN_DRIVER", 13000);
  return SUCCESS;
}

DRIVER cuDeviceGetCount(int* count) {
  CALL(INIT);
  *count = devices.size();
  return SUCCESS;
}

DRIVER cuDeviceGet(int* device, int ordinal) {
  CALL(INIT);
  if (ordinal < 0 || ordinal >= (int)devices.size()) return INVALID_DEVICE;
  *device = ordinal;
  return SUCCESS;
}

DRIVER cuDeviceGetName(char* name, int size, int) {
  CALL(INIT);
  snprintf(name, size, "Stand-in");
  return SUCCESS;
}

DRIVER cuDeviceGetPCIBusId(char* id, int size, int device) {
  CALL(INIT);
  snprintf(id, size, "0000:%02x:00.0", device + 1);
  return SUCCESS;
}

DRIVER cuDeviceGetAttribute(int* value, int attribute, int device) {
  CALL(INIT);
  if (device < 0 || device >= (int)devices.size()) return INVALID_DEVICE;
  auto found = device_attributes.find(attribute);
  *value = found == device_attributes.end() ? 0 : found->second;
  return SUCCESS;
}

DRIVER cuDeviceComputeCapability(int* major, int* minor, int) {
  CALL(INIT);
  *major = MAJOR;
  *minor = MINOR;
  return SUCCESS;
}

DRIVER cuDeviceTotalMem_v2(size_t* bytes, int) {
  CALL(INIT);
  *bytes = memory_limit;
  return SUCCESS;
}

// --- contexts ---

DRIVER cuDevicePrimaryCtxRetain(Context** context, int device) {
  CALL(INIT);
  if (device < 0 || device >= (int)devices.size()) return INVALID_DEVICE;
  if (!devices[device].primary) new_context(&devices[device].primary, device);
  ++devices[device].retained;
  *context = devices[device].primary;
  return SUCCESS;
}

DRIVER cuDevicePrimaryCtxRelease_v2(int device) {
  CALL(INIT);
  if (device < 0 || device >= (int)devices.size()) return INVALID_DEVICE;
  if (!devices[device].retained) return INVALID_CONTEXT;
  if (--devices[device].retained == 0) {
    destroy(devices[device].primary);
    devices[device].primary = nullptr;
  }
  return SUCCESS;
}

DRIVER cuDevicePrimaryCtxGetState(int device, unsigned* flags, int* active) {
  CALL(INIT);
  if (device < 0 || device >= (int)devices.size()) return INVALID_DEVICE;
  *flags = 0;
  *active = devices[device].primary != nullptr;
  return SUCCESS;
}

DRIVER cuCtxCreate_v4(Context** context, void*, unsigned, int device) {
  CALL(INIT);
  int code = new_context(context, device);
  if (!code) stack.push_back(*context);
  return code;
}

DRIVER cuCtxDestroy_v2(Context* context) {
  CALL(INIT);
  return destroy_created(context);
}

DRIVER cuCtxDetach(Context* context) {
  CALL(INIT);
  return destroy_created(context);
}

DRIVER cuCtxPushCurrent_v2(Context* context) {
  CALL(INIT);
  if (!find(contexts, context)) return INVALID_CONTEXT;
  if (!context->alive) return CONTEXT_IS_DESTROYED;
  stack.push_back(context);
  return SUCCESS;
}

DRIVER cuCtxPopCurrent_v2(Context** context) {
  CALL(INIT);
  if (stack.empty()) return INVALID_CONTEXT;
  if (context) *context = stack.back();
  stack.pop_back();
  return SUCCESS;
}

DRIVER cuCtxSetCurrent(Context* context) {
  CALL(INIT);
  if (context && !find(contexts, context)) return INVALID_CONTEXT;
  if (!stack.empty()) stack.pop_back();
  if (context) stack.push_back(context);
  return SUCCESS;
}

DRIVER cuCtxGetCurrent(Context** context) {
  CALL(INIT);
  *context = stack.empty() ? nullptr : stack.back();
  return SUCCESS;
}

DRIVER cuCtxGetDevice(int* device) {
  CALL(CONTEXT);
  *device = call.context->device;
  return SUCCESS;
}

DRIVER cuCtxSynchronize() {
  CALL(CONTEXT);
  return finish(call.context);
}

// --- memory ---

DRIVER cuMemGetInfo_v2(size_t* available, size_t* total) {
  CALL(CONTEXT);
  *available = memory_limit - devices[call.context->device].used;
  *total = memory_limit;
  return SUCCESS;
}

DRIVER cuMemAlloc_v2(void** address, size_t size) {
  CALL(CONTEXT);
  return allocate(address, size, Block::DEVICE, call.context, 0);
}

DRIVER cuMemFree_v2(void* address) {
  CALL(CONTEXT);
  return address ? release(address, Block::DEVICE, INVALID_VALUE) : SUCCESS;
}

DRIVER cuMemGetAddressRange_v2(void** start, size_t* size, void* address) {
  CALL(CONTEXT);
  if (!block_at(address, 1)) return NOT_FOUND;
  auto& [base, block] = *std::prev(blocks.upper_bound((uintptr_t)address));
  *start = (void*)base;
  *size = block.size;
  return SUCCESS;
}

DRIVER cuMemHostAlloc(void** address, size_t size, unsigned flags) {
  CALL(CONTEXT);
  return allocate(address, size, Block::PINNED, call.context, flags);
}

DRIVER cuMemAllocHost_v2(void** address, size_t size) {
  CALL(CONTEXT);
  return allocate(address, size, Block::PINNED, call.context, 0);
}

DRIVER cuMemFreeHost(void* address) {
  CALL(CONTEXT);
  return release(address, Block::PINNED, INVALID_VALUE);
}

DRIVER cuMemHostRegister_v2(void* address, size_t size, unsigned flags) {
  CALL(CONTEXT);
  if (!address || !size) return INVALID_VALUE;
  auto next = blocks.lower_bound((uintptr_t)address);
  if (block_at(address, 0) || (next != blocks.end() && next->first < (uintptr_t)address + size))
    return ALREADY_REGISTERED;
  blocks[(uintptr_t)address] = {Block::REGISTERED, size, call.context, flags};
  return SUCCESS;
}

DRIVER cuMemHostUnregister(void* address) {
  CALL(CONTEXT);
  return release(address, Block::REGISTERED, NOT_REGISTERED);
}

DRIVER cuMemHostGetDevicePointer_v2(void** device, void* address, unsigned) {
  CALL(CONTEXT);
  Block* block = block_at(address, 1);
  if (!block || block->kind == Block::DEVICE) return INVALID_VALUE;
  *device = address;
  return SUCCESS;
}

DRIVER cuMemHostGetFlags(unsigned* flags, void* address) {
  CALL(CONTEXT);
  Block* block = block_at(address, 1);
  if (!block || block->kind == Block::DEVICE) return INVALID_VALUE;
  *flags = block->flags;
  return SUCCESS;
}

#define COPY(name, direction, wait, ...)                                      \
  DRIVER name(void* to, const void* from, size_t size __VA_ARGS__) {          \
    CALL(CONTEXT);                                                            \
    return copy(call.context, to, from, size, STREAM##wait, direction, wait); \
  }
#define STREAM1 nullptr
#define STREAM0 stream
COPY(cuMemcpyHtoD_v2, TO_DEVICE, 1)
COPY(cuMemcpyDtoH_v2, TO_HOST, 1)
COPY(cuMemcpyDtoD_v2, 0, 1)
COPY(cuMemcpyHtoDAsync_v2, TO_DEVICE, 0, , void* stream)
COPY(cuMemcpyDtoHAsync_v2, TO_HOST, 0, , void* stream)
COPY(cuMemcpyDtoDAsync_v2, 0, 0, , void* stream)

#define FILL(name, type)                                            \
  DRIVER cuMemset##name##_v2(void* to, type value, size_t count) {  \
    CALL(CONTEXT);                                                  \
    return fill(call.context, to, value, count, nullptr, true);     \
  }                                                                 \
  DRIVER cuMemset##name##Async(void* to, type value, size_t count, void* stream) { \
    CALL(CONTEXT);                                                  \
    return fill(call.context, to, value, count, stream, false);     \
  }
FILL(D8, unsigned char)
FILL(D16, unsigned short)
FILL(D32, unsigned)

// --- streams and events ---

DRIVER cuStreamCreate(void** stream, unsigned flags) {
  CALL(CONTEXT);
  return new_stream(call.context, stream, flags);
}

DRIVER cuStreamCreateWithPriority(void** stream, unsigned flags, int) {
  CALL(CONTEXT);
  return new_stream(call.context, stream, flags);
}

DRIVER cuStreamDestroy_v2(void* handle) {
  CALL(CONTEXT);
  Stream* stream = find(streams, handle);
  if (!stream) return INVALID_HANDLE;
  run(stream);
  streams.erase(handle);
  return SUCCESS;
}

DRIVER cuStreamSynchronize(void* handle) {
  CALL(CONTEXT);
  auto stream = stream_of(call.context, handle);
  return stream ? finish(stream.get()) : INVALID_HANDLE;
}

// Asking is also what makes work go on here, a step at a time.
DRIVER cuStreamQuery(void* handle) {
  CALL(CONTEXT);
  auto stream = stream_of(call.context, handle);
  if (!stream) return INVALID_HANDLE;
  if (stream->work.empty()) return SUCCESS;
  step(stream.get());
  return call.context->error ? call.context->error : NOT_READY;
}

// The lock is open meanwhile: the function may wait for a thread that is in a call of its own.
DRIVER cuLaunchHostFunc(void* handle, void (*function)(void*), void* data) {
  CALL(CONTEXT);
  auto stream = stream_of(call.context, handle);
  if (!stream || !function) return INVALID_HANDLE;
  return submit(stream.get(), [=, running = stream.get()] {
    running->in_function = true;
    mutex.unlock();
    function(data);
    mutex.lock();
    running->in_function = false;
    return SUCCESS;
  });
}

DRIVER cuStreamWaitEvent(void* handle, void* event_handle, unsigned) {
  CALL(CONTEXT);
  auto stream = stream_of(call.context, handle);
  auto event = events.find(event_handle);
  if (!stream || event == events.end()) return INVALID_HANDLE;
  if (!event->second->recorded) return SUCCESS;
  return submit(stream.get(), [event = event->second, source = event->second->stream, until = event->second->recorded] {
    while (event->completed < until && !source->work.empty()) step(source.get());
    return source->context->error;
  });
}

// A graph is the work of one stream in its order, which starts again with each launch, on what is in memory then.
DRIVER cuStreamBeginCapture_v2(void* handle, int mode) {
  CALL(CONTEXT);
  auto stream = stream_of(call.context, handle);
  if (!stream || stream == call.context->default_stream) return INVALID_HANDLE;
  if (stream->captured || mode < 0 || mode > 2) return INVALID_VALUE;
  stream->captured = std::make_unique<Work>();
  stream->spoiled = false;
  return SUCCESS;
}

DRIVER cuStreamIsCapturing(void* handle, int* status) {
  CALL(CONTEXT);
  auto stream = stream_of(call.context, handle);
  if (!stream) return INVALID_HANDLE;
  *status = stream->captured != nullptr;
  return SUCCESS;
}

DRIVER cuStreamEndCapture(void* handle, void** graph) {
  Call call(__func__, CONTEXT);
  auto found = streams.find(handle);
  Stream* stream = found == streams.end() ? nullptr : found->second.get();
  if (!stream || !stream->captured) return INVALID_HANDLE;
  auto captured = std::move(stream->captured);  // an error too ends the capture
  *graph = nullptr;
  if (call.code) return call.code;
  if (stream->spoiled) return CAPTURE_INVALIDATED;
  *graph = captured.get();
  graphs[*graph] = std::move(captured);
  return SUCCESS;
}

DRIVER cuGraphInstantiateWithFlags(void** executable, void* graph, unsigned long long) {
  CALL(CONTEXT);
  Work* work = find(graphs, graph);
  if (!work) return INVALID_HANDLE;
  auto made = std::make_unique<Work>(*work);
  *executable = made.get();
  graphs[*executable] = std::move(made);
  return SUCCESS;
}

DRIVER cuGraphLaunch(void* executable, void* handle) {
  CALL(CONTEXT);
  Work* work = find(graphs, executable);
  auto stream = stream_of(call.context, handle);
  if (!work || !stream) return INVALID_HANDLE;
  for (auto& piece : *work) submit(stream.get(), piece);
  return SUCCESS;
}

DRIVER cuGraphDestroy(void* graph) {
  CALL(CONTEXT);
  return graphs.erase(graph) ? SUCCESS : INVALID_HANDLE;
}

DRIVER cuGraphExecDestroy(void* executable) {
  CALL(CONTEXT);
  return graphs.erase(executable) ? SUCCESS : INVALID_HANDLE;
}

DRIVER cuEventCreate(void** event, unsigned flags) {
  CALL(CONTEXT);
  auto made = std::make_shared<Event>();
  made->context = call.context;
  made->timed = !(flags & 2);  // 2: CU_EVENT_DISABLE_TIMING
  *event = made.get();
  events[*event] = made;
  return SUCCESS;
}

DRIVER cuEventDestroy_v2(void* handle) {
  CALL(CONTEXT);
  return events.erase(handle) ? SUCCESS : INVALID_HANDLE;
}

DRIVER cuEventRecord(void* event_handle, void* handle) {
  CALL(CONTEXT);
  auto found = events.find(event_handle);
  auto stream = stream_of(call.context, handle);
  if (!stream || found == events.end()) return INVALID_HANDLE;
  auto event = found->second;
  event->stream = stream;
  return submit(stream.get(), [event, number = ++event->recorded] {
    event->completed = number;
    event->at = Clock::now();
    return SUCCESS;
  });
}

DRIVER cuEventSynchronize(void* handle) {
  CALL(CONTEXT);
  Event* event = find(events, handle);
  if (!event) return INVALID_HANDLE;
  while (event->completed < event->recorded && !event->stream->work.empty()) step(event->stream.get());
  return call.context->error;
}

DRIVER cuEventQuery(void* handle) {
  CALL(CONTEXT);
  Event* event = find(events, handle);
  if (!event) return INVALID_HANDLE;
  if (event->completed == event->recorded) return SUCCESS;
  step(event->stream.get());
  return call.context->error ? call.context->error : NOT_READY;
}

DRIVER cuEventElapsedTime_v2(float* milliseconds, void* start_handle, void* end_handle) {
  CALL(CONTEXT);
  Event *start = find(events, start_handle), *end = find(events, end_handle);
  if (!start || !end || !start->timed || !end->timed || !start->recorded || !end->recorded) return INVALID_HANDLE;
  if (start->completed < start->recorded || end->completed < end->recorded) return NOT_READY;
  *milliseconds = std::chrono::duration<float, std::milli>(end->at - start->at).count();
  return SUCCESS;
}

// --- modules and launches ---

DRIVER cuModuleLoadData(void** module, const char* image) {
  CALL(CONTEXT);
  return load(call.context, module, image);
}

DRIVER cuModuleLoadDataEx(void** module, const char* image, unsigned count, const int* options, void** values) {
  CALL(CONTEXT);
  for (unsigned i = 0; i < count; ++i)
    if (options[i] == 4 || options[i] == 6) values[i] = nullptr;  // sizes of the logs: nothing was written
  return load(call.context, module, image);
}

DRIVER cuModuleLoad(void** module, const char* path) {
  CALL(CONTEXT);
  std::ifstream file(path, std::ios::binary);
  if (!file) return FILE_NOT_FOUND;
  std::string image{std::istreambuf_iterator<char>(file), {}};
  return load(call.context, module, image.append(4, '\0').c_str());
}

DRIVER cuModuleUnload(void* handle) {
  CALL(CONTEXT);
  if (!find(modules, handle)) return INVALID_HANDLE;
  finish(call.context);
  for (auto item = functions.begin(); item != functions.end();)
    item = item->second->module == handle ? functions.erase(item) : std::next(item);
  modules.erase(handle);
  return SUCCESS;
}

DRIVER cuModuleGetFunction(void** function, void* handle, const char* name) {
  CALL(CONTEXT);
  Module* module = find(modules, handle);
  if (!module) return INVALID_HANDLE;
  auto kernel = (Kernel*)exported(std::string("fieldshot_") + name);
  if (!kernel) return NOT_FOUND;
  auto made = std::make_unique<Function>(Function{module, name, kernel});
  *function = made.get();
  functions[*function] = std::move(made);
  return SUCCESS;
}

DRIVER cuFuncGetAttribute(int* value, int attribute, void* handle) {
  CALL(CONTEXT);
  Function* function = find(functions, handle);
  if (!function) return INVALID_HANDLE;
  const std::map<int, int> known = {
      {0, LANES}, {4, 40}, {5, 10 * MAJOR + MINOR}, {6, 10 * MAJOR + MINOR}, {8, function->shared_limit}};
  auto found = known.find(attribute);
  *value = found == known.end() ? 0 : found->second;
  return SUCCESS;
}

DRIVER cuFuncSetAttribute(void* handle, int attribute, int value) {
  CALL(CONTEXT);
  Function* function = find(functions, handle);
  if (!function) return INVALID_HANDLE;
  if (attribute != 8) return SUCCESS;
  if (value < 0 || value > SHARED_OPT_IN) return INVALID_VALUE;
  function->shared_limit = value;
  return SUCCESS;
}

// PyCUDA's Function.__call__ says the block's shape here too, before it launches.
DRIVER cuFuncSetBlockShape(void* handle, int x, int y, int z) {
  CALL(CONTEXT);
  if (!find(functions, handle)) return INVALID_HANDLE;
  return x > 0 && y > 0 && z > 0 ? SUCCESS : INVALID_VALUE;
}

DRIVER cuLaunchKernel(void* handle, unsigned grid, unsigned grid_y, unsigned grid_z, unsigned block, unsigned block_y,
                      unsigned block_z, unsigned shared, void* stream_handle, void** params, void** extra) {
  CALL(CONTEXT);
  Function* function = find(functions, handle);
  auto stream = stream_of(call.context, stream_handle);
  if (!function || !stream) return INVALID_HANDLE;
  if (block != LANES || block_y != 1 || block_z != 1 || grid_y != 1 || grid_z != 1) return INVALID_VALUE;
  if (grid < 1 || grid > 2147483647 || (int)shared > function->shared_limit) return INVALID_VALUE;
  Kernel* kernel = function->kernel;
  if (params) {  // of a size that the driver reads from the image: here only good until we return
    submit(stream.get(), [=] { return execute(kernel, params[0], grid, shared); });
    finish(stream.get());
    return SUCCESS;
  }
  const void* buffer = nullptr;
  size_t size = 0;
  for (; extra && extra[0]; extra += 2) {
    if (extra[0] == (void*)1) buffer = extra[1];           // CU_LAUNCH_PARAM_BUFFER_POINTER
    if (extra[0] == (void*)2) size = *(size_t*)extra[1];   // CU_LAUNCH_PARAM_BUFFER_SIZE
  }
  if (!buffer || !size) return INVALID_VALUE;
  auto copied = std::make_shared<std::vector<char>>((const char*)buffer, (const char*)buffer + size);
  return submit(stream.get(), [=] { return execute(kernel, copied->data(), grid, shared); });
}
